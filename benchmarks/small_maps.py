"""Convolutions of small maps: PyTorch's and ours, side by side.

    python benchmarks/small_maps.py [--batch-size 128] [--rounds 7] [--threads N]

The convolutions of ResNet-50's and Res2Net-50's last stages behind an ImageNet stem on 32x32
images, ours as matrix products; and the depth-wise ones of VAN-B0's, ours with the kernel's
gradient over two rows computed over three. channels_last. Forward and backward, one process, in
turn: median and spread in milliseconds, and how many times as fast ours is. In bf16 under autocast,
as networks train.
"""

import argparse

import torch
from side_by_side import Step, Table, alternate, ratio
from torch import nn

from blocklab.kernels.depthwise import DepthwiseConv2d
from blocklab.kernels.small_map import SmallMapConv2d

# in channels, out channels, kernel, stride, pixels a side
SHAPES = [
    *((2048, 512, 1, 1, 1), (512, 2048, 1, 1, 1), (512, 512, 3, 1, 1), (1024, 2048, 1, 2, 2)),
    *((1024, 256, 1, 1, 2), (256, 1024, 1, 1, 2), (512, 1024, 1, 2, 4)),
    *((512, 128, 1, 1, 4), (128, 512, 1, 1, 4), (256, 512, 1, 2, 8)),
]
DEPTHWISE = [(640, 2), (160, 2), (1024, 1), (512, 4)]  # channels, pixels a side; of 3x3 kernels


def training(conv: nn.Conv2d, x: torch.Tensor, grad: torch.Tensor, bf16: bool) -> Step:
    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = conv(x)
        out.backward(grad.to(out.dtype))
        x.grad = None
        conv.zero_grad()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    headings = ["convolution", "map", "dtype", "nn.Conv2d (ms)", "ours (ms)", "times as fast"]
    table = Table(f"Convolutions of small maps, batch {args.batch_size}", headings)
    for inside, outside, kernel, stride, side in SHAPES:
        name = f"{kernel}x{kernel}, {inside} to {outside}" + f", stride {stride}" * (stride > 1)
        for dtype in ("bf16",) if side > 1 else ("bf16", "fp32"):
            convs = [
                kind(inside, outside, kernel, stride, padding=kernel // 2, bias=False)
                for kind in (nn.Conv2d, SmallMapConv2d)
            ]
            compare(table, name, convs, inside, side, dtype, args)
    for channels, side in DEPTHWISE:
        for dtype in ("bf16", "fp32"):
            plain = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
            convs = [plain, DepthwiseConv2d(channels, 3)]
            compare(table, f"3x3, each of {channels}", convs, channels, side, dtype, args)


def compare(
    table: Table,
    name: str,
    convs: list[nn.Conv2d],
    channels: int,
    side: int,
    dtype: str,
    args: argparse.Namespace,
) -> None:
    """Add a line: PyTorch's and our convolution of one map."""
    x = torch.randn(args.batch_size, channels, side, side)
    x = x.to(torch.bfloat16 if dtype == "bf16" else torch.float32)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    for conv in convs:
        conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        grad = torch.randn_like(convs[0].to(x.dtype)(x))
    steps = [training(conv.float(), x, grad, dtype == "bf16") for conv in convs]
    times = alternate(dict(zip(("plain", "ours"), steps, strict=True)), args.rounds)
    cells = [name, f"{side}x{side}", dtype, *times.values()]
    table.add([*cells, ratio(times["plain"], times["ours"])])


if __name__ == "__main__":
    main()
