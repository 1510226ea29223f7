"""Our blocks against the plain formulations of their papers, side by side.

    python benchmarks/blocks.py [--blocks triplet,se] [--sizes 64x256x32x32,64x512x8x8]
        [--layouts contiguous,channels_last] [--dtypes fp32,bf16] [--rounds 7] [--threads N]

Forward alone (inference mode, BatchNorm in evaluation), and forward and backward (training), in
one process and in turn: median and spread in milliseconds, and how many times as fast ours is.
Memory is what a training step keeps for its backward pass, each storage once, without parameters.
Before it is timed, each pair is shown to agree: the largest difference of outputs and of the
input's gradient, relative to the largest value.
"""

import argparse
from collections.abc import Callable
from typing import Any

import plain_attentions
import torch
from plain_blocks import (
    PlainCoordinate,
    PlainGlobalContext,
    PlainLKA,
    PlainSE,
    PlainSelectiveKernel,
    PlainTriplet,
)
from side_by_side import DTYPES, LAYOUTS, Step, Table, alternate, difference, parse_sizes, ratio
from torch import Tensor, nn

from blocklab.blocks.registry import create_block
from blocklab.measure.memory import keep_freed_memory

ATTENTIONS: dict[str, tuple[str | dict[str, Any], Callable[[int], nn.Module]]] = {
    "triplet": ("triplet", PlainTriplet),
    "se": ("se", PlainSE),
    "coordinate": ("coordinate", PlainCoordinate),
    "global_context": ("global_context", PlainGlobalContext),
    "lka": ("large_kernel_attention", PlainLKA),
    **plain_attentions.PAIRS,
}
BLOCKS = [*ATTENTIONS, "selective_kernel"]


def build(name: str, channels: int) -> tuple[nn.Module, nn.Module]:
    """The plain block and ours, with equal weights."""
    if name == "selective_kernel":
        told = {
            "in_channels": channels,
            "out_channels": channels,
            "stride": 1,
            "first_in_stage": False,
            "activation": "relu",
        }
        plain: nn.Module = PlainSelectiveKernel(channels)
        ours = create_block("mixer", name, **told)
    else:
        kind, make = ATTENTIONS[name]
        plain, ours = make(channels), create_block("attention", kind, channels=channels)
    plain.load_state_dict(ours.state_dict())
    return plain, ours


def training(block: nn.Module, x: Tensor, grad: Tensor) -> Step:
    def step() -> None:
        block(x).backward(grad)
        x.grad = None
        block.zero_grad()

    return step


def inference(block: nn.Module, x: Tensor) -> Step:
    def step() -> None:
        with torch.inference_mode():
            block(x)

    return step


def saved_bytes(block: nn.Module, x: Tensor) -> int:
    """Bytes that a forward pass keeps for the backward pass."""
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


def agree(plain: nn.Module, ours: nn.Module, x: Tensor, grad: Tensor) -> str:
    found = []
    for block in (plain, ours):
        block.train()
        out = block(x)
        out.backward(grad)
        assert x.grad is not None
        found.append((out.detach().float(), x.grad.float()))
        x.grad = None
        block.zero_grad()
    (plain_out, plain_grad), (our_out, our_grad) = found
    return f"{difference(our_out, plain_out):.0e}, {difference(our_grad, plain_grad):.0e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--blocks", default=",".join(BLOCKS))
    parser.add_argument("--sizes", default="64x256x32x32,64x512x8x8")
    parser.add_argument("--layouts", default=",".join(LAYOUTS))
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()  # as training does, for all rivals
    torch.manual_seed(0)
    headings = ["block", "size", "layout", "dtype", "work"]
    headings += ["plain (ms)", "ours (ms)", "times as fast", "kept, plain to ours (MB)", "differ"]
    table = Table("Blocks against the plain formulations of their papers", headings)
    for name in args.blocks.split(","):
        if name not in BLOCKS:
            raise SystemExit(f"no block '{name}'; blocks: {', '.join(BLOCKS)}")
        for size in parse_sizes(args.sizes):
            for layout in args.layouts.split(","):
                for dtype in args.dtypes.split(","):
                    pair = [block.to(DTYPES[dtype]) for block in build(name, size[1])]
                    if name == "global_context" and layout == "channels_last":
                        # The plain one takes a view that only the contiguous layout has.
                        pair[0] = nn.Sequential(_Contiguous(), pair[0])
                    x = torch.randn(size).to(DTYPES[dtype]).to(memory_format=LAYOUTS[layout])
                    grad = torch.randn_like(x)
                    x.requires_grad_()
                    differ = agree(pair[0], pair[1], x, grad)
                    kept = [saved_bytes(block, x) / 1e6 for block in pair]
                    names = ("plain", "ours")
                    steps = {
                        "training": [training(block, x, grad) for block in pair],
                        "inference": [inference(block, x) for block in pair],
                    }
                    for work, both in steps.items():
                        for block in pair:
                            block.train(work == "training")
                        times = alternate(dict(zip(names, both, strict=True)), args.rounds)
                        table.add(
                            [
                                *(name, "x".join(map(str, size)), layout, dtype, work),
                                *(times["plain"], times["ours"]),
                                ratio(times["plain"], times["ours"]),
                                f"{kept[0]:,.1f} to {kept[1]:,.1f}" if work == "training" else "",
                                differ if work == "training" else "",
                            ]
                        )


class _Contiguous(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.contiguous()


if __name__ == "__main__":
    main()
