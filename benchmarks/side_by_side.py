"""Timing rivals in one process, in turn, and printing what was seen as Markdown."""

import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import torch
from torch import Tensor
from torch.nn import functional as F

from blocklab import create_model

Step = Callable[[], object]
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Seconds:
    """What a rival took, round by round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def __str__(self) -> str:
        """Median and spread in milliseconds."""
        low, high = 1000 * min(self.rounds), 1000 * max(self.rounds)
        return f"{1000 * self.median:,.2f} ({low:,.2f} to {high:,.2f})"


def alternate(rivals: Mapping[str, Step], rounds: int, least: float = 0.02) -> dict[str, Seconds]:
    """Time every rival once a round, in turn, after one call that warms up.

    A round of a short one is as many calls as fill `least` seconds, so that the clock does not
    matter.
    """
    calls = {}
    for name, step in rivals.items():
        step()
        began = time.perf_counter()
        step()
        calls[name] = max(1, round(least / max(1e-6, time.perf_counter() - began)))
    taken: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, step in rivals.items():
            began = time.perf_counter()
            for _ in range(calls[name]):
                step()
            taken[name].append((time.perf_counter() - began) / calls[name])
    return {name: Seconds(tuple(times)) for name, times in taken.items()}


def ratio(plain: Seconds, ours: Seconds) -> str:
    """How many times as fast ours is: the median over rounds, each against its own rival."""
    return f"{statistics.median(p / o for p, o in zip(plain.rounds, ours.rounds, strict=True)):.2f}"


def difference(ours: Tensor, plain: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return ((ours - plain).abs().max() / plain.abs().max()).item()


def training_step(model: str, stem: str, batch: int) -> Step:
    """A step of a named model on made-up images of 32x32: bf16, channels_last, SGD.

    `stem` '' is the model's own.
    """
    slots = {"stem": stem} if stem else {}
    network = create_model(model, num_classes=100, **slots).train()
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, fused=True)
    images = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(100, (batch,))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def surroundings() -> str:
    """One line: machine, threads, versions, date."""
    return (
        f"{_processor()}, {torch.get_num_threads()} threads, Python {platform.python_version()}, "
        f"PyTorch {torch.__version__}, {date.today().isoformat()}"
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


class Table:
    """A Markdown table under a title and the surroundings, whose lines are printed as they come."""

    def __init__(self, title: str, headings: Sequence[str]) -> None:
        print(f"\n{title}\n\n{surroundings()}\n")
        self.add(headings)
        print("|" + "---|" * len(headings), flush=True)

    def add(self, cells: Sequence[object]) -> None:
        print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)


def parse_sizes(text: str) -> list[tuple[int, int, int, int]]:
    """Read ``64x256x32x32,64x512x8x8``."""
    sizes = []
    for item in text.split(","):
        numbers = tuple(int(number) for number in item.split("x"))
        if len(numbers) != 4 or min(numbers) < 1:
            raise SystemExit(f"a size is BATCHxCHANNELSxHEIGHTxWIDTH, not '{item}'")
        sizes.append((numbers[0], numbers[1], numbers[2], numbers[3]))
    return sizes
