"""Large depth-wise kernels: PyTorch's convolution and our three algorithms, side by side.

    python benchmarks/large_kernels.py [--sizes 64x128x8x8,64x256x4x4] [--kernels 31,7d3]
        [--layouts contiguous,channels_last] [--dtypes fp32,bf16] [--rounds 5] [--threads N]

A kernel is its number of taps a side, with ``dN`` for a dilation. `nn.Conv2d` convolves with all
taps; ours with those that can meet the map. Forward alone and forward with backward, one process,
in turn: median and spread in milliseconds, and how many times as fast the default (`direct`) is.
"""

import argparse

import torch
from side_by_side import DTYPES, LAYOUTS, Step, Table, alternate, parse_sizes, ratio
from torch import Tensor, nn

from blocklab.kernels.depthwise import ALGORITHMS, DepthwiseConv2d
from blocklab.measure.memory import keep_freed_memory


def training(convolution: nn.Module, x: Tensor, grad: Tensor) -> Step:
    def step() -> None:
        convolution(x).backward(grad)
        x.grad = None
        convolution.zero_grad()

    return step


def inference(convolution: nn.Module, x: Tensor) -> Step:
    def step() -> None:
        with torch.inference_mode():
            convolution(x)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", default="64x128x32x32,64x128x8x8,64x256x4x4,64x256x1x1")
    parser.add_argument("--kernels", default="31,7d3,5")
    parser.add_argument("--layouts", default=",".join(LAYOUTS))
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()  # as training does, for all rivals
    torch.manual_seed(0)
    headings = ["kernel", "size", "layout", "dtype", "work", "nn.Conv2d (ms)"]
    headings += [f"{algorithm} (ms)" for algorithm in ALGORITHMS]
    headings += [f"{algorithm}: times as fast" for algorithm in ALGORITHMS]
    table = Table("Large depth-wise kernels", headings)
    for kernel in args.kernels.split(","):
        taps, _, dilation = kernel.partition("d")
        side, spread = int(taps), int(dilation or 1)
        for size in parse_sizes(args.sizes):
            for layout in args.layouts.split(","):
                for dtype in args.dtypes.split(","):
                    channels = size[1]
                    rivals: dict[str, nn.Module] = {
                        "nn.Conv2d": nn.Conv2d(
                            *(channels, channels, side),
                            padding=spread * (side // 2),
                            dilation=spread,
                            groups=channels,
                        )
                    }
                    for algorithm in ALGORITHMS:
                        ours = DepthwiseConv2d(channels, side, spread)
                        ours.load_state_dict(rivals["nn.Conv2d"].state_dict())
                        ours.algorithm = algorithm
                        rivals[algorithm] = ours
                    x = torch.randn(size).to(DTYPES[dtype]).to(memory_format=LAYOUTS[layout])
                    grad = torch.randn_like(x)
                    for rival in rivals.values():
                        rival.to(DTYPES[dtype])
                    for work in ("inference", "training"):
                        steps = {
                            name: inference(rival, x)
                            if work == "inference"
                            else training(rival, x.requires_grad_(), grad)
                            for name, rival in rivals.items()
                        }
                        times = alternate(steps, args.rounds)
                        table.add(
                            [
                                *(kernel, "x".join(map(str, size)), layout, dtype, work),
                                *times.values(),
                                *(ratio(times["nn.Conv2d"], times[name]) for name in ALGORITHMS),
                            ]
                        )


if __name__ == "__main__":
    main()
