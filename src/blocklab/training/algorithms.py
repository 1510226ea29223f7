"""Which way each large depth-wise kernel of a network is fastest here, by measurement."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from blocklab.kernels.depthwise import ALGORITHMS, DepthwiseConv2d, apply_algorithms
from blocklab.training.device import choose_setup
from blocklab.training.stopwatch import CLEAR_GAIN, Seconds, alternate, remembered
from blocklab.training.workload import Workload

SMALLEST = 11  # taps a side that meet the map; below it there is little to gain

Kernel = tuple[int, int, int, int, int]  # channels, taps a side, dilation, height and width


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
            steps = {way: _step(work, precision, layout, kernel, way) for way in ALGORITHMS}
            return alternate(steps, work.threads)

        seconds = remembered(key, ALGORITHMS, measure)
        fastest = min(ALGORITHMS, key=seconds.__getitem__)
        if seconds[fastest] < (1 - CLEAR_GAIN) * seconds[ALGORITHMS[0]]:
            found[name] = fastest
    return found


def _large_kernels(work: Workload) -> dict[str, Kernel]:
    """Return the depth-wise convolutions that many taps of meet their maps, by name."""
    model = work.spec.build_meta(work.num_classes).eval()
    found: dict[str, Kernel] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor]) -> None:
            assert isinstance(module, DepthwiseConv2d)
            height, width = inputs[0].shape[-2:]
            taps, dilation = module.kernel_size[0], module.dilation[0]
            live = min(taps, 2 * ((max(height, width) - 1) // dilation) + 1)
            if live >= SMALLEST:
                found[name] = (module.in_channels, taps, dilation, height, width)

        return hook

    for name, module in model.named_modules():
        if isinstance(module, DepthwiseConv2d):
            module.register_forward_pre_hook(note(name))
    with torch.no_grad():
        model(torch.empty((2, 3, work.image_size, work.image_size), device="meta"))
    return found


def _step(
    work: Workload, precision: str, layout: str, kernel: Kernel, way: str
) -> Callable[[], None]:
    channels, taps, dilation, height, width = kernel
    setup = choose_setup(work.recipe, precision, layout, False)
    model = nn.Sequential(DepthwiseConv2d(channels, taps, dilation)).to(setup.device)
    apply_algorithms(model, {"0": way})
    shape = (work.recipe.batch_size, channels, height, width)
    images = torch.randn(shape, device=setup.device)
    images = images.contiguous(memory_format=setup.memory_format).requires_grad_()

    def step() -> None:
        with setup.fabric.autocast():
            model(images).float().square().sum().backward()
        if setup.device.type == "cuda":
            torch.cuda.synchronize(setup.device)

    return step
