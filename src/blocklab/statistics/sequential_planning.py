"""What a study with looks costs, and shows, before it is trained: simulated by its own rule."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from blocklab.statistics.family import BETTER
from blocklab.statistics.sequential import Looks, LookTaken, Seen, take_looks
from blocklab.statistics.spread import Array

_ROWS = 400  # of all simulated studies: some seconds, whether of many rows or of few
_SEED = 1986


@dataclass(frozen=True)
class SequentialCost:
    """What a study with looks comes to.

    `power` is the share of rows that are shown where every row gains, `runs` how many runs such a
    study takes on average, the baseline's among them, and `runs_of_none` one in which none does.
    """

    looks: tuple[int, ...]
    power: float
    runs: float
    runs_of_none: float


def sequential_cost(
    sd: float, rows: int, looks: Looks, gain: float, paired: bool = False
) -> SequentialCost:
    """Simulate studies of normal seeds with `looks`: every row gains `gain`, or none anything.

    Args:
        sd: of one run; of a paired study, of what seeds leave.
        rows: how many are compared with the baseline.
        looks: the design.
        gain: of every row that gains, in the units of `sd`.
        paired: whether seeds are blocks.
    """
    rng = np.random.default_rng(_SEED)
    shape = (max(20, min(100, _ROWS // rows)), rows + 1, looks.of_baseline(-1))
    found = []
    for true in (gain, 0.0):
        values = sd * rng.normal(size=shape)
        values[:, 1:] += true
        studies = []
        for one in values:
            taken, runs = follow_looks(one, looks, paired)
            shown = sum(c.word == BETTER for c in taken[-1].family.comparisons.values())
            studies.append((shown / rows, runs))
        found.append(np.mean(studies, axis=0))
    (power, runs), (_, runs_of_none) = np.asarray(found).tolist()
    return SequentialCost(looks.seeds, power, runs, runs_of_none)


def follow_looks(values: Array, looks: Looks, paired: bool = False) -> tuple[list[LookTaken], int]:
    """Run one made-up study until it is decided; return its looks and how many runs it took.

    Args:
        values: all seeds that may be needed, the baseline's first: (rows + 1, seeds). Rows are
            called by their number.
        looks: the design.
        paired: whether seeds are blocks.
    """
    names = [str(i) for i in range(len(values))]
    by_seed = {name: dict(enumerate(row.tolist())) for name, row in zip(names, values, strict=True)}
    sizes, taken = dict.fromkeys(names, 0), list[LookTaken]()

    def seen() -> Iterator[Seen]:
        for look, size in enumerate(looks.seeds):
            going = taken[-1].going if taken else names[1:]
            if not going:
                return
            sizes.update(dict.fromkeys(going, size))
            sizes[names[0]] = looks.of_baseline(look)
            yield Seen({name: range(count) for name, count in sizes.items()})

    for look in take_looks(by_seed, names[0], looks, seen(), paired=paired):
        taken.append(look)
    return taken, sum(sizes.values())
