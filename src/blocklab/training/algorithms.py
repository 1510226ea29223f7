"""Which way each large depth-wise kernel of a network is fastest here, by measurement."""

from contextlib import suppress

import torch
from torch import nn

from blocklab.kernels.depthwise import (
    Algorithm,
    DepthwiseConv2d,
    apply_algorithms,
    cut_to_live_taps,
)
from blocklab.kernels.depthwise_cuda import has_implicit_gemm
from blocklab.measure.device import probe_device
from blocklab.measure.timing import CLEAR_GAIN, Step, shortest_times, training_step
from blocklab.models.probe import maps_met
from blocklab.training.device import Setup, make_setup
from blocklab.training.remembered import Seconds, remembered
from blocklab.training.workload import Workload

SMALLEST = 11  # taps a side that meet the map; below it there is little to gain on a processor
SMALLEST_ON_GPUS = 5  # there cuDNN is slow from here on
FAILED = 1e9  # seconds of a way that this device or package cannot take

Sides = int | tuple[int, int]  # of a square kernel; height and width of a band
Kernel = tuple[int, Sides, int, int, int]  # channels, taps, dilation, height and width of the map


def measured_algorithms(work: Workload, precision: str, layout: str) -> dict[str, str]:
    """Return the algorithms of the large kernels that have a clearly faster one than the usual.

    Each is timed alone, forward and backward, on maps of the size that it meets; kernels that are
    alike are timed once.
    """
    found: dict[str, str] = {}
    ways = tried_algorithms(precision, layout)
    for name, kernel in _large_kernels(work).items():
        key = work.key(precision) | {"memory_format": layout, "kernel": list(kernel)}
        key = {what: value for what, value in key.items() if what not in ("model", "optimizer")}

        def measure(kernel: Kernel = kernel) -> Seconds:
            setup = make_setup(precision, layout)
            steps: dict[str, Step] = {}
            for way in ways:
                step = _step(work, setup, kernel, way)
                if way == ways[0] or setup.device.type == "cpu":
                    steps[way] = step
                    continue
                with suppress(Exception):  # a library that is made for other GPUs or sizes, say
                    step()
                    steps[way] = step
            failed: Seconds = dict.fromkeys(ways, FAILED)
            return failed | shortest_times(steps, threads=work.threads)

        seconds = remembered(key, ways, measure)
        fastest = min(ways, key=seconds.__getitem__)
        if seconds[fastest] < (1 - CLEAR_GAIN) * seconds[ways[0]]:
            found[name] = fastest
    return found


def tried_algorithms(precision: str, layout: str) -> tuple[Algorithm, ...]:
    """Return the algorithms that may be the fastest on this device; the usual one comes first."""
    if probe_device().type == "cpu":
        return "direct", "plain", "fourier"
    ways: list[Algorithm] = ["direct", "fourier"]  # plain is direct there
    if probe_device().type == "cuda":
        if layout == "channels_last":
            ways.append("contiguous")
        if precision != "bf16-mixed" and has_implicit_gemm():  # which takes no bf16
            ways.append("implicit_gemm")
    return tuple(ways)


def _large_kernels(work: Workload) -> dict[str, Kernel]:
    """Return the depth-wise convolutions that many taps of meet their maps, by name."""
    found: dict[str, Kernel] = {}
    smallest = SMALLEST if probe_device().type == "cpu" else SMALLEST_ON_GPUS
    model = work.build_meta()
    for name, conv, (height, width) in maps_met(model, work.image_size, DepthwiseConv2d):
        live = cut_to_live_taps(conv.weight, conv.dilation[0], height, width)
        strip = min(conv.kernel_size) == 1  # for which there is one way
        if not strip and max(live.shape[2:]) >= smallest:
            high, wide = conv.kernel_size
            taps = high if high == wide else (high, wide)
            found[name] = (conv.in_channels, taps, conv.dilation[0], height, width)
    return found


def _step(work: Workload, setup: Setup, kernel: Kernel, way: str) -> Step:
    channels, taps, dilation, height, width = kernel
    model = nn.Sequential(DepthwiseConv2d(channels, taps, dilation)).to(setup.device)
    apply_algorithms(model, {"0": way})
    maps = torch.randn((work.at_once, channels, height, width), device=setup.device)
    maps = maps.contiguous(memory_format=setup.memory_format).requires_grad_()
    return training_step(model, maps, lambda out: out.square().sum(), setup.fabric.autocast)
