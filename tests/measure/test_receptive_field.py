"""Taps that can meet a pixel, by trying each; receptive fields whose extent is known."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from blocklab import create_model
from blocklab.errors import InputError
from blocklab.measure.receptive_field import LiveTaps, ReceptiveField, live_taps, receptive_field
from blocklab.models.spec import model_spec


def taps_by_trying(conv: nn.Conv2d, height: int, width: int) -> int:
    """Count the taps whose weight changes some output: those that get a gradient from ones."""
    channels = conv.in_channels
    conv.weight.grad = None
    conv(torch.ones(1, channels, height, width)).sum().backward()
    assert conv.weight.grad is not None
    return int((conv.weight.grad[0, 0] != 0).sum())


@pytest.mark.parametrize("kernel", [5, 7, 13, 31])
@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 4, 7, 8, 14])
def test_live_taps_are_those_that_learn(kernel: int, dilation: int, stride: int, size: int) -> None:
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(3, 3, kernel, stride, padding=padding, dilation=dilation, groups=3, bias=False)
    (row,) = live_taps(nn.Sequential(conv), size)
    assert row.live_taps == taps_by_trying(conv, size, size)
    assert row.total_taps == kernel**2
    if stride == dilation == 1:
        assert row.live == (min(kernel, 2 * size - 1),) * 2


def test_padding_that_is_not_half_a_kernel() -> None:
    conv = nn.Conv2d(3, 3, (7, 5), padding=(1, 4), groups=3, bias=False)
    (row,) = live_taps(nn.Sequential(conv), 6)
    assert row.live_taps == taps_by_trying(conv, 6, 6)
    same = nn.Conv2d(3, 3, 7, padding="same", groups=3, bias=False)
    (row,) = live_taps(nn.Sequential(same), 3)
    assert (row.live, row.kernel) == ((5, 5), (7, 7))


@pytest.mark.parametrize(("kernel", "dilation"), [(8, 1), (10, 3), ((12, 7), 1), (9, 1)])
def test_padding_that_is_one_more_on_a_side(kernel: Any, dilation: int) -> None:
    conv = nn.Conv2d(3, 3, kernel, padding="same", dilation=dilation, groups=3, bias=False)
    (row,) = live_taps(nn.Sequential(conv), 5)
    assert row.live_taps == taps_by_trying(conv, 5, 5)


def test_large_kernels_on_small_maps_are_mostly_padding() -> None:
    # a 31x31 kernel behind a stem of stride 4, on a 32x32 image
    rows = live_taps(model_spec("van_b0_replk").build_meta(100), 32)
    large = [row for row in rows if row.kernel == (31, 31)]
    assert [(row.map_size, row.live) for row in large] == [
        ((8, 8), (15, 15)),
        ((4, 4), (7, 7)),
        ((2, 2), (3, 3)),
        ((1, 1), (1, 1)),
    ]
    assert [row.modules for row in large] == [3, 3, 5, 2]
    assert large[0].module == "block1.*.attn.spatial_gating_unit.large_kernel.lkb_origin.conv"
    assert large[0].cells() == (
        "block1.*.attn.spatial_gating_unit.large_kernel.lkb_origin.conv (31x31, 3 of them)",
        "8x8",
        "15x15 = 225",
        "961",
    )
    assert large[0].to_dict()["live_taps"] == 225


def test_dilated_kernels_and_networks_without_large_ones() -> None:
    rows = live_taps(model_spec("van_b0").build_meta(10), 32)
    dilated = [row for row in rows if row.dilation == (3, 3)]
    assert [row.live for row in dilated] == [(5, 5), (3, 3), (1, 1), (1, 1)]
    assert live_taps(model_spec("resnet18").build_meta(10), 64) == ()


def test_unlike_dilations_are_both_said() -> None:
    row = LiveTaps("conv", 1, (3, 5), (1, 2), (8, 8), (3, 5))
    assert row.cells()[0] == "conv (3x5, dilation 1x2)"
    assert replace(row, dilation=(2, 2)).cells()[0] == "conv (3x5, dilation 2)"
    assert replace(row, dilation=(1, 1)).cells()[0] == "conv (3x5)"


@pytest.mark.parametrize("size", [0, -3])
def test_sizes_that_are_none_are_refused(size: int) -> None:
    with pytest.raises(InputError, match="positive"):
        live_taps(model_spec("van_b0").build_meta(10), size)


def test_receptive_field_of_one_convolution_is_its_kernel() -> None:
    conv = nn.Conv2d(3, 2, 5, padding=2, bias=False)
    field = receptive_field(conv, "one", "drawn", 17)
    weight = conv.weight.detach().sum(0).abs().sum(0).double()  # (5, 5)
    inside = field.values[6:11, 6:11]
    assert inside == pytest.approx((weight / weight.max()).numpy(), abs=1e-5)
    outside = field.values.copy()
    outside[6:11, 6:11] = 0
    assert not outside.any()
    assert field.side_holding(1.0) == 5
    assert (field.name, field.weights, field.input_size, field.images) == ("one", "drawn", 17, 8)


def test_side_holding_grows_with_the_share() -> None:
    model = create_model("resnet20", num_classes=10)
    field = receptive_field(
        model, "resnet20", "random, seed 0", 32, images=torch.randn(2, 3, 32, 32)
    )
    sides = [field.side_holding(share) for share in (0.2, 0.5, 0.95, 1.0)]
    assert sides == sorted(sides)
    assert 1 <= sides[0] < sides[-1] <= 63
    assert field.values.max() == 1.0
    assert np.isfinite(field.values).all()


def test_squares_lie_around_the_centre_of_mass() -> None:
    values = np.zeros((20, 20))
    values[3:6, 11:14] = 1.0
    field = ReceptiveField("n", "w", 20, 1, values)
    assert [field.side_holding(share) for share in (0.1, 0.5, 1.0)] == [1, 3, 3]
    assert ReceptiveField("n", "w", 20, 1, np.zeros((20, 20))).side_holding(0.5) == 0


def test_same_noise_from_the_same_seed() -> None:
    model = create_model("resnet20", num_classes=10)
    fields = [receptive_field(model, "r", "w", 32, seed=seed).values for seed in (0, 0, 1)]
    assert np.array_equal(fields[0], fields[1])
    assert not np.array_equal(fields[0], fields[2])


def test_what_has_no_field_is_refused() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.line(x.mean((2, 3)))

    with pytest.raises(InputError, match="gives no map"):
        receptive_field(Flat(), "flat", "none", 8)
    with pytest.raises(InputError, match=r"images are \(B, C, H, W\), not \(3, 4, 5\)"):
        receptive_field(nn.Conv2d(3, 3, 1), "c", "w", images=torch.zeros(3, 4, 5))


def test_a_field_of_images_that_are_not_square() -> None:
    conv = nn.Conv2d(3, 2, 5, padding=2, bias=False)
    field = receptive_field(conv, "one", "drawn", (9, 21))
    assert field.input_size == (9, 21) and field.values.shape == (9, 21)
    inside = field.values[2:7, 8:13].copy()
    field.values[2:7, 8:13] = 0
    assert inside.all() and not field.values.any()
    field.values[2:7, 8:13] = inside
    assert field.side_holding(1.0) == 5
    assert receptive_field(conv, "n", "w", images=torch.ones(1, 3, 6, 8)).input_size == (6, 8)
