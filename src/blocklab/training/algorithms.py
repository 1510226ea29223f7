"""Which way each large depth-wise kernel of a network is fastest here, by measurement."""

import torch
from torch import nn

from blocklab.kernels.depthwise import (
    ALGORITHMS,
    DepthwiseConv2d,
    apply_algorithms,
    cut_to_live_taps,
)
from blocklab.measure.timing import CLEAR_GAIN, Step, shortest_times, training_step
from blocklab.models.probe import maps_met
from blocklab.training.device import Setup, make_setup
from blocklab.training.remembered import Seconds, remembered
from blocklab.training.workload import Workload

SMALLEST = 11  # taps a side that meet the map; below it there is little to gain

Sides = int | tuple[int, int]  # of a square kernel; height and width of a band
Kernel = tuple[int, Sides, int, int, int]  # channels, taps, dilation, height and width of the map


def measured_algorithms(work: Workload, precision: str, layout: str) -> dict[str, str]:
    """Return the algorithms of the large kernels that have a clearly faster one than the usual.

    Each is timed alone, forward and backward, on maps of the size that it meets; kernels that are
    alike are timed once.
    """
    found: dict[str, str] = {}
    for name, kernel in _large_kernels(work).items():
        key = work.key(precision) | {"memory_format": layout, "kernel": list(kernel)}
        key = {what: value for what, value in key.items() if what not in ("model", "optimizer")}

        def measure(kernel: Kernel = kernel) -> Seconds:
            setup = make_setup(precision, layout)
            steps = {way: _step(work, setup, kernel, way) for way in ALGORITHMS}
            return shortest_times(steps, threads=work.threads)

        seconds = remembered(key, ALGORITHMS, measure)
        fastest = min(ALGORITHMS, key=seconds.__getitem__)
        if seconds[fastest] < (1 - CLEAR_GAIN) * seconds[ALGORITHMS[0]]:
            found[name] = fastest
    return found


def _large_kernels(work: Workload) -> dict[str, Kernel]:
    """Return the depth-wise convolutions that many taps of meet their maps, by name."""
    found: dict[str, Kernel] = {}
    model = work.spec.build_meta(work.num_classes)
    for name, conv, (height, width) in maps_met(model, work.image_size, DepthwiseConv2d):
        live = cut_to_live_taps(conv.weight, conv.dilation[0], height, width)
        if max(live.shape[2:]) >= SMALLEST:
            high, wide = conv.kernel_size
            taps = high if high == wide else (high, wide)
            found[name] = (conv.in_channels, taps, conv.dilation[0], height, width)
    return found


def _step(work: Workload, setup: Setup, kernel: Kernel, way: str) -> Step:
    channels, taps, dilation, height, width = kernel
    model = nn.Sequential(DepthwiseConv2d(channels, taps, dilation)).to(setup.device)
    apply_algorithms(model, {"0": way})
    maps = torch.randn((work.recipe.batch_size, channels, height, width), device=setup.device)
    maps = maps.contiguous(memory_format=setup.memory_format).requires_grad_()
    return training_step(model, maps, lambda out: out.square().sum(), setup.fabric.autocast)
