"""Activations near 1,000, whose sums are beyond float16: blocks give what they give in float32."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blocklab.blocks.registry import create_block, parse_block, registered_blocks
from blocklab.kernels.pooling import axis_pool

CHANNELS, SIZE = 96, (80, 72)
TRIPLETS: list[dict[str, Any]] = [
    {"statistics": ["l1"]},
    {"statistics": ["l1", "max"], "inner_activation": "celu"},
    {"statistics": ["l2", "avg"], "gate": "tanh"},
    {"statistics": ["l1", "l2", "max", "avg", "median"], "gate": "softmax"},
    {"statistics": ["l2", "max"], "spatial": "coordinate"},
    {"statistics": ["l1", "max"], "spatial": "large_kernel"},
]
NEEDED: dict[str, dict[str, Any]] = {"mean": {"of": ["se", "coordinate"]}}
# A product of two such values, which these give, is itself beyond.
MULTIPLYING = {"large_kernel_attention", "lsk"}
# All that pool.
POOLING = [
    *({"type": "triplet", **options} for options in TRIPLETS),
    *(
        {"type": info.name, **NEEDED.get(info.name, {})}
        for info in registered_blocks()
        if info.kind == "attention" and info.name not in MULTIPLYING
    ),
]
# Their sigmoids take what convolutions without norms make of such values, rounded to a quarter.
BOUNDS = {"ema": 0.1, "caa": 0.1}


def images() -> Tensor:
    """Two, whose means differ by more than float16 rounds them: a norm over the batch sees that."""
    images = torch.randn(2, CHANNELS, *SIZE, generator=torch.Generator().manual_seed(0))
    return (1000 + 200 * images) * torch.tensor([0.9, 1.1]).view(2, 1, 1, 1)


def settled(spec: dict[str, Any], x: Tensor) -> nn.Module:
    """A block whose norms have statistics of these images, in evaluation mode."""
    torch.manual_seed(0)
    block = create_block("attention", parse_block("attention", spec), channels=CHANNELS)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain average
    with torch.no_grad():
        block.train()(x)
    return block.eval()


def difference(out: Tensor, expected: Tensor) -> float:
    return ((out.float() - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("spec", POOLING, ids=str)
def test_outputs_in_float16(spec: dict[str, Any], layout: torch.memory_format) -> None:
    x = images()
    block = settled(spec, x)
    with torch.no_grad():
        expected = block(x)
        narrow = x.half().contiguous(memory_format=layout)
        for form in (block, torch.fx.symbolic_trace(block)):
            with torch.autocast("cpu", torch.float16):
                assert form(narrow).dtype == torch.float16
                bound = BOUNDS.get(spec["type"], 0.02)
                assert difference(form(narrow), expected) < bound
                assert difference(form(x), expected) < bound  # as after what autocast leaves wide


@pytest.mark.parametrize("options", TRIPLETS, ids=str)
def test_gradients_in_float16(options: dict[str, Any]) -> None:
    x = images()
    block = settled({"type": "triplet", **options}, x)
    wide = x.half().float().requires_grad_()  # with the same maxima and medians
    block(wide).mean().backward()
    other = copy.deepcopy(block)
    other.zero_grad()
    narrow = x.half().requires_grad_()
    with torch.autocast("cpu", torch.float16):
        out = other(narrow).float().mean()
    (2.0**10 * out).backward()  # scaled, as training in float16 is
    assert narrow.grad is not None and wide.grad is not None
    assert difference(narrow.grad.float() / 2.0**10, wide.grad) < 0.05
    for (name, one), same in zip(block.named_parameters(), other.parameters(), strict=True):
        assert one.grad is not None and same.grad is not None, name
        if not name.startswith("hw"):  # of other blocks, whose own gradients reach further
            assert same.grad.isfinite().all(), name


def test_planes_with_norms_of_float16_maps_are_float32() -> None:
    x = images().half()
    for statistics in (("l1", "max"), ("l2",), ("max", "avg")):
        wide = torch.float32 if {"l1", "l2"} & set(statistics) else torch.float16
        _, planes = axis_pool(x, (1, 2, 3), statistics)  # type: ignore[arg-type]
        assert {plane.dtype for plane in planes} == {wide}
        assert all(bool(plane.isfinite().all()) for plane in planes)
    _, planes = axis_pool(x.bfloat16(), (1,), ("l1",))
    assert planes[0].dtype == torch.bfloat16


def test_gradients_of_gradients_in_float16() -> None:
    x = (images()[:1, :8, :6, :5] / 1000).half().requires_grad_()
    through, (plane,) = axis_pool(x, (2,), ("l1", "l2", "max"))
    (grad,) = torch.autograd.grad(plane.square().sum() + through.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(grad.float().sum(), x)
    assert grad.dtype == torch.float16 and second.isfinite().all()
