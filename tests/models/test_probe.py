"""Looking at a network leaves it as it was, and says which map each convolution meets."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from blocklab import cost, create_model, deploy
from blocklab.errors import InputError
from blocklab.kernels.depthwise import DepthwiseConv2d
from blocklab.measure.receptive_field import live_taps
from blocklab.models.probe import (
    blank_images,
    check_input_size,
    evaluating,
    maps_met,
    noise_images,
    plain_size,
    size_text,
)
from blocklab.models.spec import model_spec


def test_each_part_gets_its_own_mode_back() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout()))
    model.train()
    model[0].eval()  # as a frozen norm is
    with pytest.raises(ValueError), evaluating(model):
        assert not any(part.training for part in model.modules())
        raise ValueError
    assert [part.training for part in model.modules()] == [True, False, True, True, True]


class Twice(nn.Module):
    """Runs one convolution on two maps, the second of half the size."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(3, 1, 1)
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.conv(x)[:, :, ::2, :-2])
        return self.last(x)


def test_maps_are_told_in_the_order_in_which_they_are_met() -> None:
    model = Twice()
    met = maps_met(model, 8)
    assert [(name, size) for name, _, size in met] == [
        ("conv", (8, 8)),
        ("conv", (4, 6)),
        ("last", (4, 6)),
    ]
    assert met[0][1] is model.conv
    assert model.training and not any(part._forward_pre_hooks for part in model.modules())


def test_a_network_without_memory_has_maps_too() -> None:
    met = maps_met(model_spec("resnet20").build_meta(10), 32)
    assert {size for _, _, size in met} == {(32, 32), (16, 16), (8, 8)}


@pytest.mark.parametrize(("size", "message"), [(0, "positive number"), (2, "cannot take images")])
def test_what_cannot_be_looked_at_is_refused(size: int, message: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    with pytest.raises(InputError, match=message):
        maps_met(model, size)
    assert model.training and not model[0]._forward_pre_hooks


def test_a_block_that_fails_without_a_word_is_one_line() -> None:
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError

    with pytest.raises(InputError, match=r"\(RuntimeError\); choose another"):
        maps_met(Silent(), 8)


def test_images_are_as_the_network_takes_them() -> None:
    model = create_model("resnet20", in_chans=1, num_classes=2).double()
    for images in (blank_images(model, 8, 2), noise_images(model, 8, 2)):
        assert (images.shape, images.dtype) == ((2, 1, 8, 8), torch.float64)
    assert blank_images(nn.ReLU(), 5, in_chans=4).shape == (1, 4, 5, 5)
    assert noise_images(model, 8, 2, seed=1).equal(noise_images(model, 8, 2, seed=1))
    assert not noise_images(model, 8, 2, seed=1).equal(noise_images(model, 8, 2, seed=2))


def test_images_of_a_height_and_a_width() -> None:
    model = Twice()
    assert blank_images(model, (6, 9)).shape == (1, 3, 6, 9)
    assert noise_images(model, [6, 9], 2).shape == (2, 3, 6, 9)  # type: ignore[arg-type]
    assert [size for _, _, size in maps_met(model, (6, 9))] == [(6, 9), (3, 7), (3, 7)]
    assert check_input_size(np.int64(7)) == (7, 7)
    assert (plain_size((7, 7)), plain_size((7, 8)), size_text(7)) == (7, (7, 8), "7x7")


@pytest.mark.parametrize(
    "size", [0, -1, 2.5, True, None, "64x96", (3,), (3, 4, 5), (0, 3), [3, 2.0]]
)
def test_a_wrong_size_is_said(size: object) -> None:
    with pytest.raises(InputError, match=r"positive number of pixels, .*a height and a width"):
        check_input_size(size)


def first_layers(channels: int) -> dict[str, nn.Module]:
    """Networks that do not say how many channels they take, each of which takes so many."""
    tiny: dict[str, Any] = {"widths": (8, 8), "depths": (1, 1), "ffn_ratios": (2, 2)}
    named = create_model("van_b0", in_chans=channels, num_classes=5, stem="cifar", **tiny)
    features = create_model("van_b0", in_chans=channels, features_only=True, **tiny)

    class Late(nn.Module):  # whose last layer is registered first
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Conv2d(6, 2, 1)
            self.first = nn.Conv2d(channels, 6, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x))

    class Coordinates(nn.Module):  # which come as two channels more
        def __init__(self) -> None:
            super().__init__()
            self.conv = DepthwiseConv2d(channels + 2, 7)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(torch.cat([x, x[:, :1], x[:, :1]], 1))

    return {
        "features": features,
        "wrapped": nn.Sequential(nn.Identity(), nn.Sequential(named)),
        "parallel": nn.DataParallel(named),
        "layers": nn.Sequential(nn.ReLU(), nn.Conv2d(channels, 4, 1), DepthwiseConv2d(4, 7)),
        "norm": nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU()),
        "late": Late(),
        "unshuffled": nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * channels, 4, 1)),
        "coordinates": Coordinates(),
    }


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("name", first_layers(3))
def test_a_network_gets_the_channels_that_its_first_layer_takes(name: str, channels: int) -> None:
    model = first_layers(channels)[name]
    assert blank_images(model, 8).shape == (1, channels, 8, 8)
    assert model.training and not any(part._forward_pre_hooks for part in model.modules())
    live_taps(model, 8)
    deploy(model, input_size=8)
    assert (cost(model, 8).macs > 0) == (name != "norm")
