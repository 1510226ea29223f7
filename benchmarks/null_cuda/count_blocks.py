"""Counts what a training step of an attention asks of a GPU, and of its plain formulation.

    count_blocks.py    (on the null device, by `null_device.run`)

Prints a line of JSON for each attention, layout and precision: kernels launched, and all else.
"""

import json
import os
import sys
from pathlib import Path

import torch
from null_device import Counter
from torch import nn

from blocklab.blocks.registry import create_block

sys.path.insert(0, str(Path(__file__).parents[1]))
from plain_attentions import PAIRS

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def step_counts(
    counter: Counter, block: nn.Module, layout: torch.memory_format, precision: torch.dtype
) -> dict[str, int]:
    block = block.cuda().to(memory_format=layout)  # type: ignore[call-overload]
    x = torch.empty(8, 64, 16, 16, device="cuda", dtype=precision).to(memory_format=layout)
    x.requires_grad_()
    for _ in range(2):  # the first one sets up
        counter.reset()
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == torch.bfloat16):
            out = block(x)
        out.backward(torch.empty_like(out))
    return counter.counts()


def main() -> None:
    counter = Counter()
    for name, (spec, make_plain) in PAIRS.items():
        for layout_name, layout in LAYOUTS.items():
            for precision in (torch.float32, torch.bfloat16):
                plain, ours = (
                    step_counts(counter, block, layout, precision)
                    for block in (make_plain(64), create_block("attention", spec, channels=64))
                )
                said = {"block": name, "layout": layout_name, "precision": str(precision)}
                print(json.dumps({**said, "plain": plain, "ours": ours}), flush=True)
    os._exit(0)  # PyTorch's threads cannot be ended in order on a device that is none


if __name__ == "__main__":
    main()
