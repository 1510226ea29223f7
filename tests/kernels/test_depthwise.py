"""Depth-wise convolutions with cut kernels, by every algorithm, against PyTorch's with all taps."""

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import blocklab
from blocklab.errors import InputError
from blocklab.kernels import depthwise
from blocklab.kernels.depthwise import (
    ALGORITHMS,
    Algorithm,
    DepthwiseConv2d,
    apply_algorithms,
    cut_to_live_taps,
    from_phases,
    to_phases,
)

SHAPES = [
    *((2, 3, 8, 8), (3, 5, 1, 1), (2, 4, 9, 1), (2, 3, 4, 11), (1, 2, 17, 5), (2, 40, 8, 8)),
    *((3, 1, 6, 6), (1, 2, 26, 31), (2, 3, 24, 16), (3, 5, 2, 2), (2, 3, 2, 6), (2, 3, 5, 2)),
]
KERNELS = [
    *((1, 1), (3, 1), (5, 1), (7, 1), (9, 1), (11, 1), (13, 1), (31, 1)),
    *((3, 2), (9, 2), (5, 3), (7, 3), (11, 5)),
    *(((1, 11), 1), ((31, 3), 1), ((1, 15), 1), ((5, 1), 2)),
]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def pair(
    channels: int,
    kernel: int | tuple[int, int],
    dilation: int,
    dtype: torch.dtype,
    algorithm: Algorithm = "direct",
) -> tuple[DepthwiseConv2d, nn.Conv2d]:
    ours = DepthwiseConv2d(channels, kernel, dilation).to(dtype)
    ours.algorithm = algorithm
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = dilation * (sides[0] // 2), dilation * (sides[1] // 2)
    torchs = nn.Conv2d(
        channels, channels, kernel, padding=padding, dilation=dilation, groups=channels
    ).double()
    torchs.load_state_dict(ours.state_dict())
    return ours, torchs


def errors(ours: nn.Module, torchs: nn.Module, x: Tensor, grad: Tensor) -> list[float]:
    """Of the output, the input's gradient and the parameters', relative to the largest value."""
    mine, theirs = x.clone().requires_grad_(), x.double().requires_grad_()
    out, expected = ours(mine), torchs(theirs)
    assert out.dtype == x.dtype and out.shape == x.shape
    out.backward(grad)
    expected.backward(grad.double())
    pairs = [(out, expected), (mine.grad, theirs.grad)]
    grads = (parameter.grad for parameter in ours.parameters())
    pairs += zip(grads, (parameter.grad for parameter in torchs.parameters()), strict=True)
    found = []
    for value, wanted in pairs:
        assert value is not None and wanted is not None and value.dtype == x.dtype
        scale = wanted.abs().max().clamp_min(1e-30)
        found.append(((value.double() - wanted).abs().max() / scale).item())
    return found


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("kernel", "dilation"), KERNELS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_the_convolution_with_all_taps(
    algorithm: Algorithm,
    kernel: int | tuple[int, int],
    dilation: int,
    layout: torch.memory_format,
) -> None:
    for shape in SHAPES:
        ours, torchs = pair(shape[1], kernel, dilation, torch.float32, algorithm)
        x = torch.randn(shape).contiguous(memory_format=layout)
        grad = torch.randn(shape).contiguous(memory_format=layout)
        assert max(errors(ours, torchs, x, grad)) < 1e-5, shape
        assert ours(x).is_contiguous(memory_format=layout)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (5, 1), (13, 1), (31, 1), (5, 3), (7, 3)])
@pytest.mark.parametrize("size", [(8, 7), (25, 27)])
def test_bf16(algorithm: Algorithm, kernel: int, dilation: int, size: tuple[int, int]) -> None:
    ours, torchs = pair(6, kernel, dilation, torch.bfloat16, algorithm)
    x, grad = torch.randn(2, 2, 6, *size, dtype=torch.bfloat16)
    assert max(errors(ours, torchs, x, grad)) < 1e-2


class _Heights(TorchDispatchMode):
    """How many rows the maps have whose gradients PyTorch's convolution is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution_backward.default:
            self.found.append(args[1].shape[2])
        return func(*args, **(kwargs or {}))


def test_a_kernels_gradient_over_two_rows_is_asked_over_three() -> None:
    """Over two it takes many times as long (benchmarks/small_maps.py)."""
    x, weight = torch.randn(2, 8, 2, 4), torch.randn(8, 1, 3, 3)
    with _Heights() as heights:
        depthwise._weight_gradient(x, x, weight, 1)
    assert heights.found == [3]


@pytest.mark.parametrize(
    ("dilation", "size"), [(1, (4, 5)), (2, (4, 7)), (3, (9, 6)), (5, (3, 11))]
)
def test_phases_are_the_maps_rows_and_columns_apart(dilation: int, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size).contiguous(memory_format=torch.channels_last)
    phases = to_phases(x, dilation).view(2, dilation, dilation, 3, -1, -(-size[1] // dilation))
    for row in range(size[0]):
        for column in range(size[1]):
            where = row % dilation, column % dilation
            found = phases[:, *where, :, row // dilation, column // dilation]
            assert torch.equal(found, x[:, :, row, column])
    assert phases.ne(0).sum() == x.numel()
    assert torch.equal(from_phases(phases.flatten(0, 2), dilation, *size), x)


def test_few_channels_in_bf16_return() -> None:
    """PyTorch's own never does, so that it is tried in another process."""
    code = """
import torch
from torch.nn import functional as F
from blocklab.kernels.depthwise import ALGORITHMS, DepthwiseConv2d

for kernel, shape in ((15, (2, 8, 9, 33)), (31, (1, 3, 20, 32)), (31, (2, 6, 16, 17))):
    ours = DepthwiseConv2d(shape[1], kernel)
    x = torch.randn(shape).bfloat16().contiguous(memory_format=torch.channels_last)
    exact = F.conv2d(
        x.double(), ours.weight.double(), ours.bias.double(), padding=kernel // 2, groups=shape[1]
    )
    for ours.algorithm in ALGORITHMS:
        with torch.autocast("cpu", torch.bfloat16):
            out = ours(x.requires_grad_())
            out.sum().backward()
        assert out.is_contiguous(memory_format=torch.channels_last)
        assert (out.double() - exact).abs().max() < 0.02 * exact.abs().max()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


def test_taps_that_never_meet_the_map_have_no_gradient() -> None:
    ours, _ = pair(2, 31, 1, torch.float32)
    ours(torch.randn(2, 2, 4, 6)).sum().backward()
    grad = ours.weight.grad
    assert grad is not None and grad.shape == (2, 1, 31, 31)
    live = grad[:, :, 15 - 3 : 15 + 4, 15 - 5 : 15 + 6]
    assert live.ne(0).all()
    assert grad.ne(0).sum() == live.numel()


@pytest.mark.parametrize(
    ("kernel", "dilation", "size", "expected"),
    [
        (31, 1, (8, 8), (15, 15)),
        (31, 1, (1, 64), (1, 31)),
        (7, 3, (8, 3), (5, 1)),  # taps at -6, -3, 0, 3, 6; at 0 alone
        (7, 3, (4, 10), (3, 7)),
        (3, 1, (1, 1), (1, 1)),
    ],
)
def test_live_taps(
    kernel: int, dilation: int, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    weight = torch.arange(kernel**2).view(1, 1, kernel, kernel)
    live = cut_to_live_taps(weight, dilation, *size)
    assert live.shape[2:] == expected
    assert live[0, 0, expected[0] // 2, expected[1] // 2] == kernel**2 // 2  # the middle stays


@pytest.mark.parametrize(
    ("kernel", "dilation", "shape"),
    [
        *(
            (kernel, dilation, (2, 2, 5, 4))
            for kernel, dilation in [(3, 1), (5, 1), (9, 1), (5, 2)]
        ),
        (9, 2, (1, 2, 3, 10)),  # by phases
    ],
)
def test_gradients_of_gradients(kernel: int, dilation: int, shape: tuple[int, ...]) -> None:
    ours, _ = pair(2, kernel, dilation, torch.float64)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(ours, {"weight": weight, "bias": bias}, (x,))

    inputs = (x, *(parameter for parameter in ours.parameters()))
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_views_and_empty_batches() -> None:
    ours, torchs = pair(3, 9, 1, torch.float32)
    wide = torch.randn(2, 6, 8, 10)
    views = (wide[:, ::2], wide[:, :3].transpose(2, 3), wide[:, :3, :, 1:9], wide[0:1, 3:])
    for view in views:
        assert max(errors(ours, torchs, view, torch.randn(view.shape))) < 1e-5
    assert ours(torch.empty(0, 3, 8, 8)).shape == (0, 3, 8, 8)


def test_autocast_gives_what_pytorchs_gives() -> None:
    ours, _ = pair(4, 31, 1, torch.float32)
    torchs = nn.Conv2d(4, 4, 31, padding=15, groups=4)
    torchs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4, 9, 9)
    for algorithm in ALGORITHMS:
        ours.algorithm = algorithm
        with torch.autocast("cpu", torch.bfloat16):
            out, expected = ours(x), torchs(x)
        assert out.dtype == expected.dtype == torch.bfloat16
        torch.testing.assert_close(out, expected, rtol=0.02, atol=0.02)
        out.float().sum().backward()
        expected.float().sum().backward()
        assert ours.weight.grad is not None and torchs.weight.grad is not None
        assert ours.weight.grad.dtype == torch.float32
        torch.testing.assert_close(ours.weight.grad, torchs.weight.grad, rtol=0.02, atol=0.1)
        ours.zero_grad()
        torchs.zero_grad()


def test_cost_is_the_nominal_convolutions() -> None:
    for algorithm in ALGORITHMS:
        ours, _ = pair(3, 31, 1, torch.float32, algorithm)
        assert blocklab.cost(ours, input_size=8).macs == 3 * 31 * 31 * 8 * 8


def test_exports_and_compiles_as_the_convolution() -> None:
    ours, _ = pair(3, 9, 1, torch.float32)
    x = torch.randn(2, 3, 4, 4)
    program = torch.export.export(ours, (x,))
    assert any("conv2d" in str(node.target) for node in program.graph.nodes)
    for form in (program.module(), torch.compile(ours, backend="eager")):
        torch.testing.assert_close(form(x), ours(x))
    batch = torch.randn(5, 2, 3, 4, 4)
    together = torch.func.vmap(ours)(batch)
    torch.testing.assert_close(together, torch.stack([ours(images) for images in batch]))


def test_a_table_of_algorithms() -> None:
    model = nn.Sequential(DepthwiseConv2d(2, 5), nn.ReLU(), DepthwiseConv2d(2, 9))
    before = copy.deepcopy(model.state_dict())
    apply_algorithms(model, {"2": "fourier"})
    assert [model[index].algorithm for index in (0, 2)] == ["direct", "fourier"]  # type: ignore[union-attr]
    assert model.state_dict().keys() == before.keys()
    with pytest.raises(InputError, match="no depth-wise convolution '1'"):
        apply_algorithms(model, {"0": "plain", "1": "plain"})
    with pytest.raises(
        InputError, match="one of direct, plain, fourier, contiguous, implicit_gemm"
    ):
        apply_algorithms(model, {"0": "plain", "2": "winograd"})
    assert [model[index].algorithm for index in (0, 2)] == ["direct", "fourier"]  # type: ignore[union-attr]


BANDS = [(1, 11), (11, 1), (5, 51), (51, 5), (3, 1), (1, 3), (7, 13)]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sides", BANDS, ids=str)
def test_kernels_that_are_no_squares(
    sides: tuple[int, int], layout: torch.memory_format, algorithm: Algorithm
) -> None:
    torch.manual_seed(0)
    ours = DepthwiseConv2d(5, sides)
    ours.algorithm = algorithm
    padding = (sides[0] // 2, sides[1] // 2)
    torchs = nn.Conv2d(5, 5, sides, padding=padding, groups=5).double()
    torchs.load_state_dict(ours.state_dict())
    for size in ((9, 17), (1, 1), (2, 30), (40, 3)):
        x = torch.randn(2, 5, *size).contiguous(memory_format=layout)
        assert max(errors(ours, torchs, x, torch.randn(2, 5, *size))) < 2e-5
