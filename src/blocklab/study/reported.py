"""What a publication printed for a row, and our count of what it counted."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reported:
    """What a publication printed for a row: G, M, %, %, a count, and what is known about them.

    `zeros` are those after the last block. `epoch` says of which epoch the accuracies are: ``best``
    (on the test set), ``last`` or ``unknown``. `errata` explain a cost that is not ours, `see` says
    what else is known, each as ``number: text`` or as text alone.
    """

    macs_g: float | None = None
    params_m: float | None = None
    top1: float | None = None
    top5: float | None = None
    zeros: int | None = None
    epoch: str = "unknown"
    note: str | None = None
    errata: tuple[str, ...] = ()
    see: tuple[str, ...] = ()


@dataclass(frozen=True)
class CostAt:
    """MACs of one image of `input_size` pixels a side, and parameters; both are counts."""

    macs: int
    params: int
    input_size: int
