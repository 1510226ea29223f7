"""Speed and memory of a network on this machine: layouts, precisions, deployed or not.

All ways are timed in turn, round after round, so that a machine whose speed drifts does not favour
one of them; the median and the spread over the rounds are given. Each layout has a copy of the
network of its own: the network that is handed in stays as it is, and no conversion is timed. On a
GPU the fastest layout and precision of each kind of work is timed as one CUDA graph too, and but
for the deployed form through `torch.compile`; what cannot be so run is named with the reason.
"""

import copy
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from blocklab.backbones.base import check_count
from blocklab.blocks.protocol import mixed_by
from blocklab.errors import error_line
from blocklab.measure.alone import alone_on_device
from blocklab.measure.cost import Cost, cost
from blocklab.measure.device import LAYOUTS, device_name, probe_device, wait
from blocklab.measure.footprint import check_memory, footprint
from blocklab.measure.memory import (
    current_memory,
    keep_freed_memory,
    peak_memory,
    release_freed_memory,
    release_memory,
    reset_peak_memory,
)
from blocklab.measure.numerics import arithmetic
from blocklab.measure.timing import Step, time_in_turn
from blocklab.measure.ways import (
    COMPILED,
    DEPLOYED,
    GRAPH,
    INFERENCE,
    TRAINING,
    Way,
    best_of_matrices,
    make_step,
    onnxruntime_latency,
    precisions,
)
from blocklab.models.deploy import deploy
from blocklab.models.probe import ImageSize, check_input_size, plain_size, size_text
from blocklab.models.spec import model_spec

BENCH_COPIES = 12  # of the weights: a network a kind of work and layout, with its gradients
# Of the square matrices whose product stands for the machine's best: a GPU needs large ones.
PEAK_SIDES = {"cuda": 8192, "mps": 4096, "cpu": 2048}


@dataclass(frozen=True)
class Speed:
    """One way to run a network.

    `images_per_second` is the median over rounds, `slowest` and `fastest` its spread.
    `memory_bytes` is what a batch takes besides the weights: activations, and in training
    gradients; None of a graph, which keeps its memory.
    `latency_ms` is the median time of a single image, of inference alone; None of a network that
    mixes the images of a batch.
    `peak_percent` is the share of the matrix-product peak measured here in the same precision:
    MACs of the forward pass, deployed of the merged network's; of a training step three times that.
    Before it is deployed those are of whole kernels, also where only some taps meet the map and
    are computed.
    """

    work: str
    layout: str
    precision: str
    mode: str
    images_per_second: float
    slowest: float
    fastest: float
    latency_ms: float | None
    memory_bytes: int | None
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
    onnxruntime_ms: float | None  # of one image on the processor, deployed
    onnxruntime_note: str
    notes: tuple[str, ...] = ()  # what could not be timed

    headings = (
        *("work", "layout", "precision", "mode", "images/s", "slowest to fastest", "ms a batch"),
        *("ms of one image", "memory of a batch (MB)", "of the matrix peak (%)"),
    )

    @property
    def title(self) -> str:
        """One line for above the table."""
        onnx = self.onnxruntime_note
        if self.onnxruntime_ms is not None:
            onnx += f" on the CPU, deployed: {self.onnxruntime_ms:,.2f} ms of one image"
        else:
            onnx = f"ONNX Runtime {onnx}"
        peaks = ", ".join(f"{p} {peak / 1e9:,.0f} G MACs/s" for p, peak in self.peaks.items())
        return (
            f"{self.model} at {size_text(self.input_size)}, batch {self.batch_size}, on "
            f"{self.device} ({self.threads} threads, PyTorch {self.torch}); matrix peak: {peaks}; "
            f"median of {self.rounds} rounds; {'; '.join((onnx, *self.notes))}"
        )

    def cells(self) -> list[tuple[str, ...]]:
        """Return the table's cells as text, a line a way."""
        return [
            (
                one.work,
                one.layout,
                one.precision,
                one.mode,
                f"{one.images_per_second:,.1f}",
                f"{one.slowest:,.1f} to {one.fastest:,.1f}",
                f"{1000 * self.batch_size / one.images_per_second:,.1f}",
                "" if one.latency_ms is None else f"{one.latency_ms:,.2f}",
                "" if one.memory_bytes is None else f"{one.memory_bytes / 1e6:,.0f}",
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
    compiled: bool | None = None,
) -> SpeedReport:
    """Time training steps and inference of a network, in each layout and precision.

    `compiled` also times it through `torch.compile`, which takes minutes; None does so on a GPU.

    Raises:
        InputError: for an unknown model, or sizes that are not positive or that it cannot take.
    """
    input_size = check_input_size(input_size)
    for name, value, least in (("batch_size", batch_size, 2), ("rounds", rounds, 1)):
        check_count(name, value, least)
    counted = cost(model_or_name, input_size, num_classes)
    keep_freed_memory()  # as training does
    device = probe_device()
    if isinstance(model_or_name, nn.Module):
        model = model_or_name
    else:
        spec = model_spec(model_or_name)
        meta = spec.build_meta(num_classes, input_size=input_size)
        taken = footprint(meta.train(), input_size)
        needed = taken.training_bytes(batch_size, copies=BENCH_COPIES)
        check_memory(needed, f"training steps with batches of {batch_size:,}")
        model = spec.build(num_classes, input_size=input_size)
    deployed = deploy(model, input_size)
    networks = {TRAINING: model, INFERENCE: model, DEPLOYED: deployed}
    macs = {TRAINING: 3 * counted.macs, INFERENCE: counted.macs}
    macs[DEPLOYED] = cost(deployed, input_size).macs  # of merged branches, one
    more = [GRAPH] * (device.type == "cuda")
    more += [COMPILED] * (device.type == "cuda" if compiled is None else compiled)
    try:
        timed = _time(networks, more, input_size, batch_size, rounds, macs)
    finally:
        release_memory()
    onnx_ms, onnx_note = onnxruntime_latency(deployed.cpu(), input_size, rounds)
    return SpeedReport(
        model=type(model).__name__ if isinstance(model_or_name, nn.Module) else str(model_or_name),
        input_size=plain_size(input_size),
        batch_size=batch_size,
        threads=torch.get_num_threads(),
        device=device_name(device),
        torch=torch.__version__,
        rounds=rounds,
        cost=counted,
        peaks=timed.peaks,
        speeds=timed.speeds,
        onnxruntime_ms=onnx_ms,
        onnxruntime_note=onnx_note,
        notes=timed.notes,
    )


@dataclass(frozen=True)
class _Found:
    speeds: tuple[Speed, ...]
    peaks: Mapping[str, float]
    notes: tuple[str, ...]


def _time(
    networks: Mapping[str, nn.Module],
    modes: Sequence[str],
    size: ImageSize,
    batch: int,
    rounds: int,
    macs: Mapping[str, int],
) -> _Found:
    """Time copies of each work's network; nothing on the device is referred to afterwards.

    `macs` are an image's, of each work.
    """
    device = probe_device()
    own = {
        work: copy.deepcopy(network).to(device).train(work == TRAINING)
        for work, network in networks.items()
    }
    with arithmetic(device, deterministic=False):
        timed = _Timed(size, batch, device)
        for work, network in own.items():
            for layout in LAYOUTS:
                in_layout = _in_layout(network, layout)
                for precision in precisions(device):
                    timed.add(in_layout, Way(work, layout, precision))
        notes = timed.add_modes(own, modes)
        peaks = timed.measure(rounds)
    speeds = tuple(timed.speed(way, macs[way.work], peaks) for way in timed.steps)
    return _Found(speeds, peaks, tuple(notes))


class _Timed:
    """The ways that are timed, and their times so far."""

    def __init__(self, size: ImageSize, batch: int, device: torch.device) -> None:
        self.size, self.batch, self.device = size, batch, device
        self.steps: dict[Way, Step] = {}
        self.of_one: dict[Way, Step] = {}  # inference of a single image
        self.memory: dict[Way, int | None] = {}
        self.seconds: dict[Way, list[float]] = {}
        self.seconds_of_one: dict[Way, list[float]] = {}

    def add(self, network: nn.Module, way: Way) -> None:
        """Add a way, and warm it up."""
        step = make_step(network, way, self.size, self.batch)
        memory = _memory_of(step, self.device)
        if way.work != TRAINING and not mixed_by(network):
            one = make_step(network, way, self.size, 1)
            one()
            self.of_one[way] = one  # a way that failed is not among those that are timed
        self.memory[way] = None if way.mode == GRAPH else memory
        self.steps[way] = step

    def add_modes(self, networks: Mapping[str, nn.Module], modes: Sequence[str]) -> list[str]:
        """Add these modes of each work's fastest way so far; return why one is left out."""
        notes = []
        first = time_in_turn(self.steps, 1, warm_up=False) if modes else {}
        for work, network in networks.items():
            for mode in modes:
                if mode == COMPILED and work == DEPLOYED:
                    continue
                best = min((way for way in first if way.work == work), key=lambda way: first[way])
                try:
                    self.add(_in_layout(network, best.layout), replace(best, mode=mode))
                except Exception as error:  # whatever a block does that no graph or compiler takes
                    notes.append(f"{work}, {mode}: left out ({error_line(error)})")
        return notes

    def measure(self, rounds: int) -> dict[str, float]:
        """Time all ways in turn; return the matrix peaks, a precision each."""
        peaks: dict[str, float] = {}
        for _ in range(rounds):
            for name, peak in best_of_matrices(PEAK_SIDES[self.device.type]).items():
                peaks[name] = max(peaks.get(name, 0.0), peak)
            for steps, found in ((self.steps, self.seconds), (self.of_one, self.seconds_of_one)):
                for way, times in time_in_turn(steps, 1, warm_up=False).items():
                    found.setdefault(way, []).extend(times)
        return peaks

    def speed(self, way: Way, macs: int, peaks: Mapping[str, float]) -> Speed:
        """Return what came of a way, whose work is so many MACs an image."""
        times, of_one = self.seconds[way], self.seconds_of_one.get(way)
        median = statistics.median(times)
        return Speed(
            **asdict(way),
            images_per_second=self.batch / median,
            slowest=self.batch / max(times),
            fastest=self.batch / min(times),
            latency_ms=None if of_one is None else 1000 * statistics.median(of_one),
            memory_bytes=self.memory[way],
            peak_percent=100 * macs * self.batch / median / peaks[way.precision],
        )


def _in_layout(network: nn.Module, layout: str) -> nn.Module:
    return copy.deepcopy(network).to(memory_format=LAYOUTS[layout])  # type: ignore[call-overload]


def _memory_of(run: Step, device: torch.device) -> int:
    run()
    wait(device)
    release_freed_memory()
    reset_peak_memory()
    before = current_memory(device)
    run()
    wait(device)
    return max(0, peak_memory(device) - before)
