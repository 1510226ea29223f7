"""Speed and memory of a network on this machine: layouts, precisions, deployed or not.

All ways are timed in turn, round after round, so that a machine whose speed drifts does not favour
one of them; the median and the spread over the rounds are given. Each layout has a copy of the
network of its own: the network that is handed in stays as it is, and no conversion is timed.
"""

import copy
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab.errors import InputError
from blocklab.measure.cost import Cost, check_input_size, cost
from blocklab.measure.memory import (
    current_memory,
    keep_freed_memory,
    peak_memory,
    release_freed_memory,
    reset_peak_memory,
)
from blocklab.models.deploy import deploy
from blocklab.models.factory import create_model

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}
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
    input_size: int
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
            f"{self.model} at {self.input_size}x{self.input_size}, batch {self.batch_size}, on "
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


def bench(
    model_or_name: nn.Module | str | Mapping[str, Any],
    input_size: int = 32,
    batch_size: int = 64,
    rounds: int = 5,
    num_classes: int = 100,
) -> SpeedReport:
    """Time training steps and inference of a network, in each layout and precision.

    Raises:
        InputError: for an unknown model, or sizes that are not positive or that it cannot take.
    """
    check_input_size(input_size)
    for name, value, least in (("batch_size", batch_size, 2), ("rounds", rounds, 1)):
        if value < least:
            raise InputError(f"{name} is {least} or more, not {value}")
    counted = cost(model_or_name, input_size, num_classes)
    keep_freed_memory()  # as training does
    given = isinstance(model_or_name, nn.Module)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model_or_name if given else create_model(model_or_name, num_classes=num_classes)
    networks = {
        "training": copy.deepcopy(model).to(device).train(),
        "inference": copy.deepcopy(model).to(device).eval(),
        "inference, deployed": deploy(model, input_size).to(device),
    }
    ways: dict[tuple[str, str, str], Callable[[], None]] = {}
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
        for name, dtype in PRECISIONS.items():
            peaks[name] = max(peaks[name], _matrix_peak(dtype, device))
        for way, run in ways.items():
            seconds[way].append(_seconds(run, device))
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
        input_size=input_size,
        batch_size=batch_size,
        threads=torch.get_num_threads(),
        device=_device_name(device),
        torch=torch.__version__,
        rounds=rounds,
        cost=counted,
        peaks=peaks,
        speeds=tuple(speeds),
    )


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        line = next(line for line in lines if line.startswith("model name"))
        return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _way(
    network: nn.Module, work: str, layout: str, precision: str, size: int, batch: int
) -> Callable[[], None]:
    """Return one batch of the work."""
    reference = next(network.parameters())
    channels = getattr(network, "in_chans", 3)
    images = torch.randn(batch, channels, size, size, device=reference.device)
    images = images.contiguous(memory_format=LAYOUTS[layout])
    labels = torch.zeros(batch, dtype=torch.long, device=reference.device)
    dtype = PRECISIONS[precision]

    def forward() -> Tensor:
        kind = reference.device.type
        with torch.autocast(kind, dtype or torch.bfloat16, enabled=dtype is not None):
            return network(images)

    def train() -> None:
        F.cross_entropy(forward().float(), labels).backward()
        network.zero_grad()

    def infer() -> None:
        with torch.inference_mode():
            forward()

    return train if work == "training" else infer


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    began = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - began


def _memory_of(run: Callable[[], None], device: torch.device) -> int:
    run()
    _wait(device)
    release_freed_memory()
    reset_peak_memory()
    before = current_memory(device)
    run()
    _wait(device)
    return max(0, peak_memory(device) - before)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _matrix_peak(dtype: torch.dtype | None, device: torch.device) -> float:
    """Return MACs a second of the best of a few large matrix products."""
    matrix = torch.randn(PEAK_SIDE, PEAK_SIDE, device=device, dtype=dtype or torch.float32)
    times = [_seconds(lambda: torch.mm(matrix, matrix), device) for _ in range(4)]
    return PEAK_SIDE**3 / min(times)
