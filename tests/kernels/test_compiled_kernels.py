"""Kernels under `torch.compile`: cut to the taps that meet the map, as no export may be."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blocklab.blocks.triplet_attention import TripletAttention
from blocklab.kernels.depthwise import DepthwiseConv2d
from blocklab.kernels.plane_convolution import PlaneConv2d
from blocklab.kernels.strided import StridedConv2d

Weights = list[tuple[int, ...]]

CASES = [
    pytest.param(lambda: DepthwiseConv2d(3, 9), (2, 3, 4, 2), (3, 1, 7, 3), id="depthwise"),
    pytest.param(lambda: DepthwiseConv2d(3, 7, 3), (2, 3, 4, 7), (3, 1, 3, 5), id="dilated"),
    pytest.param(lambda: PlaneConv2d(2, 7), (2, 2, 2, 9), (1, 2, 3, 7), id="plane"),
    pytest.param(lambda: PlaneConv2d(2, 7, True), (2, 2, 9, 1), (1, 2, 7, 1), id="swapped"),
]


def convolved_with(graph: torch.fx.GraphModule) -> Weights:
    """Return the sizes of the weights that a graph convolves with."""
    return [
        tuple(node.args[1].meta["example_value"].shape)
        for node in graph.graph.nodes
        if node.op == "call_function" and "conv2d" in str(node.target)
    ]


def gradients(module: Callable[[Tensor], Tensor], kernel: nn.Conv2d, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    out = module(x)
    torch.manual_seed(1)
    out.backward(torch.randn_like(out))
    given = [x.grad, *(p.grad for p in kernel.parameters())]
    kernel.zero_grad()
    assert all(gradient is not None for gradient in given)
    return [out.detach(), *given]  # type: ignore[list-item]


@pytest.mark.parametrize(("make", "size", "cut"), CASES)
def test_a_compiled_kernel_is_cut_to_live_taps(
    make: Callable[[], nn.Conv2d], size: tuple[int, ...], cut: tuple[int, ...]
) -> None:
    torch._dynamo.reset()
    kernel, x = make(), torch.randn(size)
    met: Weights = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        met.extend(convolved_with(graph))
        return graph.forward

    torch.compile(kernel, backend=backend, fullgraph=True)(x)
    assert met == [cut]


@pytest.mark.parametrize(("make", "size", "cut"), CASES)
@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_kernel_is_whole(
    make: Callable[[], nn.Conv2d], size: tuple[int, ...], cut: tuple[int, ...], strict: bool
) -> None:
    kernel, x = make(), torch.randn(size)
    program = torch.export.export(kernel, (x,), strict=strict)
    weights = [
        tuple(node.args[1].meta["val"].shape)  # type: ignore[union-attr]
        for node in program.graph.nodes
        if "conv2d" in str(node.target)
    ]
    assert [sorted(weight) for weight in weights] == [sorted(kernel.weight.shape)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("make", "size"),
    [
        *((case.values[0], case.values[1]) for case in CASES),
        (lambda: DepthwiseConv2d(3, 5), (2, 3, 1, 1)),  # one tap: a product
        (lambda: StridedConv2d(4, 6, 3, 2, 1), (2, 4, 1, 1)),  # oneDNN leaves gradients unwritten
    ],
)
def test_a_compiled_kernel_has_the_same_values_and_gradients(
    make: Callable[[], nn.Conv2d], size: tuple[int, ...], dtype: torch.dtype
) -> None:
    torch._dynamo.reset()
    kernel = make().to(dtype)
    x = torch.randn(size, dtype=dtype)
    twin = copy.deepcopy(kernel)
    compiled = torch.compile(twin, backend="aot_eager", fullgraph=True, dynamic=False)
    expected, found = gradients(kernel, kernel, x), gradients(compiled, twin, x)
    for one, other in zip(expected, found, strict=True):
        bound = 1e-12 if dtype == torch.float64 else 0.02
        assert (one - other).abs().max() <= bound * one.abs().max().clamp_min(1)


def test_compiled_gates_and_poolings_are_plain() -> None:
    """Their lean forms would be looked at as one operation each, which nothing merges with."""
    torch._dynamo.reset()
    met: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        met.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    x = torch.randn(2, 16, 5, 6, requires_grad=True)
    torch.compile(TripletAttention(16), backend=backend, fullgraph=True)(x)
    assert any("mul" in target for target in met)
    assert not [target for target in met if "autograd_function" in target]
