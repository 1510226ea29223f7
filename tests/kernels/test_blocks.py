"""Blocks against the plain formulations of their papers: outputs, gradients, memory, layouts."""

from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from blocklab.blocks.registry import create_block
from blocklab.blocks.triplet_attention import TripletAttention

RIVALS = {
    "triplet": "PlainTriplet",
    "se": "PlainSE",
    "coordinate": "PlainCoordinate",
    "global_context": "PlainGlobalContext",
    "large_kernel_attention": "PlainLKA",
}
LAYOUTS = [torch.contiguous_format, torch.channels_last]
SHAPES = [(2, 32, 8, 8), (3, 64, 5, 7), (2, 32, 1, 1), (2, 32, 33, 2), (2, 32, 2, 33)]
TRIPLETS = [
    {},
    {"statistics": ["avg"]},
    {"statistics": ["avg", "max", "median"]},
    {"statistics": ["l1", "max"]},
    {"statistics": ["l2", "max"]},
    {"inner_activation": "gelu"},
    {"gate": "tanh"},
    {"gate": "softmax"},
    {"kernel": 3},
    {"spatial": "coordinate"},
    {"spatial": "large_kernel"},
    {"spatial": "full_large_kernel"},
]


def build(name: str, channels: int, plain: ModuleType) -> tuple[nn.Module, nn.Module]:
    if name == "selective_kernel":
        told = {"in_channels": channels, "out_channels": channels, "activation": "relu"}
        ours = create_block("mixer", name, **told, stride=1, first_in_stage=False)
        rival = plain.PlainSelectiveKernel(channels)
    else:
        ours = create_block("attention", name, channels=channels)
        rival = getattr(plain, RIVALS[name])(channels)
    rival.load_state_dict(ours.state_dict())
    return ours, rival


def step(block: nn.Module, x: Tensor, grad: Tensor) -> list[Tensor]:
    """The output, the input's gradient and the parameters'."""
    x = x.clone().requires_grad_()
    out = block(x)
    out.backward(grad)
    grads = [parameter.grad for parameter in block.parameters()]
    found = [out.detach(), x.grad, *grads]
    block.zero_grad()
    assert all(value is not None for value in found)
    return [value for value in found if value is not None]


def check(found: list[Tensor], wanted: list[Tensor], bound: float) -> None:
    for value, right in zip(found, wanted, strict=True):
        difference = (value.double() - right.double()).abs().max()
        # A bias before BatchNorm has no gradient but rounding.
        assert difference <= bound * right.abs().max().clamp_min(1e-2)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [*RIVALS, "selective_kernel"])
def test_float64_equals_the_plain_formulation(
    name: str, layout: torch.memory_format, train: bool, plain_blocks: ModuleType
) -> None:
    for shape in SHAPES:
        ours, rival = (b.double().train(train) for b in build(name, shape[1], plain_blocks))
        x = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=layout)
        grad = torch.randn(shape, dtype=torch.float64)
        # Plain Global Context takes a view that only contiguous maps have.
        check(step(ours, x, grad), step(rival, x.contiguous(), grad), 1e-9)
        assert ours(x).is_contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [*RIVALS, "selective_kernel"])
def test_lower_precisions_are_rounded_as_the_plain_formulation(
    name: str, layout: torch.memory_format, plain_blocks: ModuleType
) -> None:
    ours, rival = build(name, 64, plain_blocks)
    exact = rival.double().eval()
    ours.eval()
    # Values that bf16 has too, so that of all three the same one is the largest.
    x, grad = torch.randn(2, 2, 64, 9, 8).bfloat16()
    x = x.contiguous(memory_format=layout)
    wanted = step(exact, x.double().contiguous(), grad.double())[:2]
    check(step(ours, x.float(), grad.float())[:2], wanted, 1e-5)
    for value, right in zip(step(ours.bfloat16(), x, grad)[:2], wanted, strict=True):
        assert (value.double() - right).norm() <= 2e-2 * right.norm()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", TRIPLETS)
def test_every_triplet_computes_as_it_is_recorded(
    options: dict[str, object], layout: torch.memory_format
) -> None:
    """While operators are counted (or traced) the plain form runs: its values are the same."""
    for shape in SHAPES[:4]:
        block = create_block("attention", {"type": "triplet", **options}, channels=shape[1])
        block = block.double()
        x = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=layout)
        grad = torch.randn(shape, dtype=torch.float64)
        found = step(block, x, grad)
        with FlopCounterMode(display=False):
            wanted = step(block, x, grad)
        check(found, wanted, 1e-9)


def test_triplet_under_autocast_checkpoints_and_transforms() -> None:
    block = TripletAttention(16)
    x, grad = torch.randn(2, 2, 16, 9, 8)
    wanted = step(block, x, grad)
    again = step(lambda_block(block), x, grad)
    check(again[:2], wanted[:2], 1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        half = step(block, x, grad)
    assert half[0].dtype == torch.float32  # x is, and the product takes the wider of the two
    check(half[:2], wanted[:2], 5e-2)
    block.eval()
    out, _ = torch.func.jvp(block, (x,), (grad,))
    torch.testing.assert_close(out, block(x))
    torch.testing.assert_close(torch.compile(block, backend="eager")(x), block(x))
    torch.testing.assert_close(torch.export.export(block, (x,)).module()(x), block(x))


def lambda_block(block: nn.Module) -> nn.Module:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = block

        def forward(self, x: Tensor) -> Tensor:
            out = checkpoint(self.block, x, use_reentrant=False)
            assert isinstance(out, Tensor)
            return out

    return Checkpointed()


def test_triplet_takes_views() -> None:
    block = TripletAttention(6).double()
    wide = torch.randn(3, 12, 9, 10, dtype=torch.float64)
    views = (wide[:, ::2], wide[:, :6].transpose(2, 3), wide[:, :6, :, 1:9], wide[:1, 6:])
    for view in (*views, torch.randn(1, 6, 1, 1, dtype=torch.float64).expand(2, 6, 5, 4)):
        grad = torch.randn(view.shape, dtype=torch.float64)
        check(step(block, view, grad), step(block, view.contiguous(), grad), 1e-9)


def saved_bytes(block: nn.Module, x: Tensor) -> int:
    own = {parameter.untyped_storage().data_ptr() for parameter in block.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = block(x)  # held, so that no storage is freed and its address taken again
    del out
    return sum(kept.values())


@pytest.mark.parametrize("shape", [(4, 256, 32, 32), (8, 512, 8, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_triplet_keeps_at_most_half(
    shape: tuple[int, int, int, int], dtype: torch.dtype, plain_blocks: ModuleType
) -> None:
    ours, rival = (block.to(dtype) for block in build("triplet", shape[1], plain_blocks))
    x = torch.randn(shape, dtype=dtype).requires_grad_()
    assert saved_bytes(ours, x) <= saved_bytes(rival, x) / 2
