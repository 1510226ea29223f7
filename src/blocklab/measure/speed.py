"""Speed and memory of a network on this machine: layouts, precisions, deployed or not.

All ways are timed in turn, round after round, so that a machine whose speed drifts does not favour
one of them; the median and the spread over the rounds are given. Each layout has a copy of the
network of its own: the network that is handed in stays as it is, and no conversion is timed.
"""

import copy
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from blocklab.backbones.base import check_count
from blocklab.measure.alone import alone_on_device
from blocklab.measure.cost import Cost, cost
from blocklab.measure.device import LAYOUTS, PRECISIONS, device_name, probe_device, wait
from blocklab.measure.footprint import check_memory, footprint
from blocklab.measure.memory import (
    current_memory,
    keep_freed_memory,
    peak_memory,
    release_freed_memory,
    reset_peak_memory,
)
from blocklab.measure.timing import Step, shortest_times, time_in_turn, training_step
from blocklab.models.deploy import deploy
from blocklab.models.factory import create_model
from blocklab.models.probe import ImageSize, check_input_size, noise_images, plain_size, size_text
from blocklab.models.spec import model_spec

BENCH_COPIES = 12  # of the weights: a network a kind of work and layout, with its gradients
PEAK_SIDE = 2048  # of the square matrices whose product stands for the machine's best


@dataclass(frozen=True)
class Speed:
    """One way to run a network.

    `images_per_second` is the median over rounds, `slowest` and `fastest` its spread.
    `memory_bytes` is what a batch takes besides the weights: activations, and in training
    gradients.
    `peak_percent` is the share of the matrix-product peak measured here in the same precision:
    MACs of the forward pass, three times that for a training step.
    """

    work: str
    layout: str
    precision: str
    images_per_second: float
    slowest: float
    fastest: float
    memory_bytes: int
    peak_percent: float


@dataclass(frozen=True)
class SpeedReport:
    """Every way that was timed, and on what."""

    model: str
    input_size: ImageSize
    batch_size: int
    threads: int
    device: str
    torch: str
    rounds: int
    cost: Cost
    peaks: Mapping[str, float]  # precision -> MACs a second of a large matrix product
    speeds: tuple[Speed, ...]

    headings = (
        *("work", "layout", "precision", "images/s", "slowest to fastest", "ms a batch"),
        *("memory of a batch (MB)", "of the matrix peak (%)"),
    )

    @property
    def title(self) -> str:
        """One line for above the table."""
        peaks = ", ".join(f"{p} {peak / 1e9:,.0f} G MACs/s" for p, peak in self.peaks.items())
        return (
            f"{self.model} at {size_text(self.input_size)}, batch {self.batch_size}, on "
            f"{self.device} ({self.threads} threads, PyTorch {self.torch}); matrix peak: {peaks}; "
            f"median of {self.rounds} rounds"
        )

    def cells(self) -> list[tuple[str, ...]]:
        """Return the table's cells as text, a line a way."""
        return [
            (
                one.work,
                one.layout,
                one.precision,
                f"{one.images_per_second:,.1f}",
                f"{one.slowest:,.1f} to {one.fastest:,.1f}",
                f"{1000 * self.batch_size / one.images_per_second:,.1f}",
                f"{one.memory_bytes / 1e6:,.0f}",
                f"{one.peak_percent:.1f}",
            )
            for one in self.speeds
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        report = asdict(self)
        report["peaks_macs_per_second"] = dict(report.pop("peaks"))
        return report


@alone_on_device()
def bench(
    model_or_name: nn.Module | str | Mapping[str, Any],
    input_size: ImageSize = 32,
    batch_size: int = 64,
    rounds: int = 5,
    num_classes: int = 100,
) -> SpeedReport:
    """Time training steps and inference of a network, in each layout and precision.

    Raises:
        InputError: for an unknown model, or sizes that are not positive or that it cannot take.
    """
    input_size = check_input_size(input_size)
    for name, value, least in (("batch_size", batch_size, 2), ("rounds", rounds, 1)):
        check_count(name, value, least)
    counted = cost(model_or_name, input_size, num_classes)
    keep_freed_memory()  # as training does
    given = isinstance(model_or_name, nn.Module)
    device = probe_device()
    if not given:
        taken = footprint(model_spec(model_or_name).build_meta(num_classes).train(), input_size)
        needed = taken.training_bytes(batch_size, copies=BENCH_COPIES)
        check_memory(needed, f"training steps with batches of {batch_size:,}")
    model = model_or_name if given else create_model(model_or_name, num_classes=num_classes)
    networks = {
        "training": copy.deepcopy(model).to(device).train(),
        "inference": copy.deepcopy(model).to(device).eval(),
        "inference, deployed": deploy(model, input_size).to(device),
    }
    ways: dict[tuple[str, str, str], Step] = {}
    for work, network in networks.items():
        for layout, memory_format in LAYOUTS.items():
            own = copy.deepcopy(network).to(memory_format=memory_format)  # type: ignore[call-overload]
            for precision in PRECISIONS:
                ways[work, layout, precision] = _way(
                    own, work, layout, precision, input_size, batch_size
                )
    memory = {way: _memory_of(run, device) for way, run in ways.items()}  # also warms up
    peaks = {name: 0.0 for name in PRECISIONS}
    seconds: dict[tuple[str, str, str], list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for name, peak in _matrix_peaks(device).items():
            peaks[name] = max(peaks[name], peak)
        for way, times in time_in_turn(ways, 1, warm_up=False).items():
            seconds[way] += times
    speeds = []
    for (work, layout, precision), times in seconds.items():
        median = statistics.median(times)
        macs = counted.macs * batch_size * (3 if work == "training" else 1)
        speeds.append(
            Speed(
                work,
                layout,
                precision,
                batch_size / median,
                batch_size / max(times),
                batch_size / min(times),
                memory[work, layout, precision],
                100 * macs / median / peaks[precision],
            )
        )
    return SpeedReport(
        model=type(model).__name__ if given else str(model_or_name),
        input_size=plain_size(input_size),
        batch_size=batch_size,
        threads=torch.get_num_threads(),
        device=device_name(device),
        torch=torch.__version__,
        rounds=rounds,
        cost=counted,
        peaks=peaks,
        speeds=tuple(speeds),
    )


def _way(
    network: nn.Module, work: str, layout: str, precision: str, size: ImageSize, batch: int
) -> Step:
    """Return one batch of the work."""
    images = noise_images(network, size, batch).contiguous(memory_format=LAYOUTS[layout])
    labels = torch.zeros(batch, dtype=torch.long, device=images.device)
    bf16 = precision == "bf16"
    autocast = partial(torch.autocast, images.device.type, torch.bfloat16, enabled=bf16)

    def infer() -> None:
        with torch.inference_mode(), autocast():
            network(images)

    if work != "training":
        return infer
    return training_step(network, images, lambda logits: F.cross_entropy(logits, labels), autocast)


def _memory_of(run: Step, device: torch.device) -> int:
    run()
    wait(device)
    release_freed_memory()
    reset_peak_memory()
    before = current_memory(device)
    run()
    wait(device)
    return max(0, peak_memory(device) - before)


def _matrix_peaks(device: torch.device) -> dict[str, float]:
    """Return MACs a second of the best of a few large matrix products, a precision each."""
    products: dict[str, Step] = {}
    for name, dtype in PRECISIONS.items():
        matrix = torch.randn(PEAK_SIDE, PEAK_SIDE, device=device, dtype=dtype)
        products[name] = partial(torch.mm, matrix, matrix)
    times = shortest_times(products)
    return {name: PEAK_SIDE**3 / seconds for name, seconds in times.items()}
