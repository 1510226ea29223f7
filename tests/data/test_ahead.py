"""The next batch is made while one is used, and no thread outlives that."""

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from blocklab.data import loader
from blocklab.data.ahead import made_ahead
from blocklab.data.loader import Batches
from blocklab.data.split import Split


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert not [t for t in threading.enumerate() if t.name.startswith("next-batch")]


def test_each_is_made_once_in_order_and_one_ahead() -> None:
    made: list[int] = []
    began = [threading.Event() for _ in range(5)]

    def make(number: int) -> int:
        made.append(number)
        began[number].set()
        return 10 * number

    for place, value in enumerate(made_ahead(make, range(5))):
        assert value == 10 * place
        if place < 4:
            assert began[place + 1].wait(120)  # with nobody asking for it
        assert len(made) == min(place + 2, 5)
    assert list(made_ahead(make, [])) == []


def test_an_error_comes_in_its_turn() -> None:
    def make(number: int) -> float:
        return 1 / (2 - number)

    with closing(made_ahead(make, range(5))) as series:
        assert [next(series), next(series)] == [0.5, 1.0]
        with pytest.raises(ZeroDivisionError):
            next(series)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_leaving_a_loop_ends_the_thread(stop: type[BaseException]) -> None:
    with pytest.raises(stop), closing(made_ahead(abs, range(100))) as series:
        for number in series:
            if number == 3:
                raise stop


@pytest.mark.parametrize(("free", "fits"), [(4004, True), (4000, False)])
def test_a_gpu_holds_what_takes_less_than_a_quarter(
    free: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda device: (free, 10_000))
    assert loader._fits(1000, torch.device("cuda")) is fits
    assert not loader._fits(1000, torch.device("cpu"))


def test_what_is_copied_without_a_wait_is_kept_until_it_is() -> None:
    """By pinned memory: the draws of an epoch are dropped as soon as they are sent."""
    numbers = Mock()
    assert (
        loader._sent(numbers, torch.device("cuda"))
        is numbers.pin_memory.return_value.to.return_value
    )
    assert loader._sent(torch.arange(3), torch.device("cpu")).tolist() == [0, 1, 2]


def test_no_more_than_a_batch_is_ever_read_of_a_large_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of a memory map that no memory would hold, only what is asked for is touched."""
    place = f"{tmp_path}/images.npy"
    shape = (20_000_000, 64, 64, 3)  # 246 GB, none of it on the disk
    try:
        images = np.lib.format.open_memmap(place, "w+", np.uint8, shape)
    except OSError:
        pytest.skip("this volume has no files with holes")
    split = Split(images, np.zeros(shape[0], np.int8), np.arange(0, shape[0], 100_000))
    most = 0
    plain = np.take

    def counted(array: np.ndarray, rows: np.ndarray, axis: int) -> np.ndarray:
        nonlocal most
        most = max(most, len(rows))
        return plain(array, rows, axis=axis)

    monkeypatch.setattr("blocklab.data.split.np", SimpleNamespace(**{**vars(np), "take": counted}))
    given = Batches(split, 32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), shuffle=True)
    assert sum(len(labels) for _, labels in given.epoch(0)) == 200
    assert most == 32
