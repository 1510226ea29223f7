"""A small network and a few images for tests of the loop."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import nn

from blocklab.data.image_data import ImageData
from blocklab.data.split import Split


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("BLOCKLAB_CACHE", str(tmp_path_factory.mktemp("cache")))


def _split(count: int, seed: int) -> Split:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 7, count)
    images = generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    images[:, :, :, 0] = (images[:, :, :, 0] // 4) + 25 * labels[:, None, None].astype(np.uint8)
    return Split.whole(images, labels.astype(np.int64))


@pytest.fixture
def data() -> ImageData:
    """52 images to train, 11 to validate and 23 to test on, of 7 classes, 8x8."""
    return ImageData(
        name="made up",
        train=_split(52, 0),
        validation=_split(11, 1),
        test=_split(23, 2),
        class_names=tuple("abcdefg"),
        mean=(0.4, 0.5, 0.5),
        std=(0.2, 0.3, 0.3),
        image_size=8,
        fingerprint="made up",
    )


@pytest.fixture
def network() -> Callable[[], nn.Module]:
    """Return a function that makes the same network each time."""

    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, stride=2),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(12, 7),
        )

    return make
