"""BatchNorm's backward pass over a gradient that lies otherwise than its map, on a processor.

    python benchmarks/gradient_layout.py [--rounds 5]

Of one BatchNorm, and of whole training steps whose small strided products give their gradients
so: as ours do, and as if they took their pixels before they put channels last. bf16, channels_last,
one thread; in CPU time, so that what else the machine does is hardly in it.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from blocklab.kernels.small_map import SmallMapConv2d
from blocklab.models.spec import model_spec

MODELS = ("res2net50", "res2net50_celu", "res2net50_gelu")
BATCH = 128


def norm_step(layout: torch.memory_format) -> Callable[[], Any]:
    """The backward pass of a BatchNorm over (256, 256, 8, 8), its gradient in a layout."""
    x = torch.randn(256, 256, 8, 8).bfloat16().contiguous(memory_format=torch.channels_last)
    zeros, ones = torch.zeros(256), torch.ones(256)
    _, mean, scale = torch.native_batch_norm(x, ones, zeros, zeros, ones, True, 0.1, 1e-5)
    grad = torch.randn(x.shape).bfloat16().contiguous(memory_format=layout)
    backward = torch.ops.aten.native_batch_norm_backward
    wanted = [True, True, True]
    return lambda: backward(grad, x, ones, None, None, mean, scale, True, 1e-5, wanted)


def training_step(name: str) -> Callable[[], Any]:
    """A step of forward and backward passes."""
    network = model_spec(name).build(100, input_size=32).train()
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(BATCH, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(100, (BATCH,))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(images)
        F.cross_entropy(logits.float(), labels).backward()
        network.zero_grad()

    return step


def sliced_first(conv: SmallMapConv2d, x: Tensor) -> Tensor:
    """The product of a small map by a 1x1 kernel, whose gradient PyTorch makes contiguous."""
    pixels = x[:, :, :: conv.stride[0], :: conv.stride[1]].permute(0, 2, 3, 1)
    return F.linear(pixels, conv.weight.flatten(1), conv.bias).permute(0, 3, 1, 2)


def as_before(step: Callable[[], Any]) -> Callable[[], Any]:
    """The same step with products of strided small maps as `sliced_first`."""
    ours = SmallMapConv2d.forward

    def forward(conv: SmallMapConv2d, input: Tensor) -> Tensor:
        small = input.shape[2] * input.shape[3] <= 16 * conv.stride[0] * conv.stride[1]
        if conv.kernel_size == (1, 1) and conv.stride[0] > 1 and small:
            return sliced_first(conv, input)
        return ours(conv, input)

    def run() -> None:
        SmallMapConv2d.forward = forward  # type: ignore[method-assign]
        try:
            step()
        finally:
            SmallMapConv2d.forward = ours  # type: ignore[method-assign]

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print("| work | gradients otherwise (ms) | as their maps (ms) | times as fast |")
    print("|---|---|---|---|")
    pairs = {
        "BatchNorm of 256x256x8x8, backward": (
            norm_step(torch.contiguous_format),
            norm_step(torch.channels_last),
        )
    }
    for name in MODELS:
        step = training_step(name)
        pairs[f"{name}, a step of {BATCH}"] = (as_before(step), step)
    for what, ways in pairs.items():
        seconds: tuple[list[float], list[float]] = ([], [])
        for number in range(rounds + 1):  # the first warms up
            for way, times in zip(ways, seconds, strict=True):
                began = time.process_time()
                way()
                if number:
                    times.append(time.process_time() - began)
        cells = [
            f"{1000 * statistics.median(t):,.1f} ({1000 * min(t):,.1f} to {1000 * max(t):,.1f})"
            for t in seconds
        ]
        gain = statistics.median(seconds[0]) / statistics.median(seconds[1])
        print(f"| {what} | {cells[0]} | {cells[1]} | {gain:.2f} |", flush=True)


if __name__ == "__main__":
    main()
