"""One row of a study: a model, what it costs, and what its runs over seeds came to."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from blocklab.errors import InputError
from blocklab.results.ended_run import EndedRun
from blocklab.results.image_intervals import ImageInterval, over_images
from blocklab.results.undertrained import why_undertrained
from blocklab.statistics.family import Difference
from blocklab.statistics.summary import PERCENT, UNBOUNDED, Summary, summarise
from blocklab.study.metric import TOP1, Metric
from blocklab.study.reported import CostAt, Reported
from blocklab.training.recipe import Recipe

COST_TOLERANCE_PERCENT = 3.0  # tools that count differ by less; beyond it, something else differs


@dataclass(frozen=True)
class RowResult:
    """One row of a study: a model, what it costs, and the runs of it that have ended.

    `macs` and `params` are plain counts, `macs` for one image of `input_size` pixels a side; None
    of a row that was trained elsewhere and whose costs nobody gave. `costs` are others, by name.
    `runs` holds one record a seed. `failed` holds a message a run that ended in an error.
    `reported_cost` is our count at the size (and with the classes) that `reported` was counted at.
    `tuned` holds what was chosen for this row on validation data, such as ``{"lr": 0.05}``.
    `metric`, `baseline`, `difference` (its score minus the baseline's, of top-1 in points),
    `at_once` (how many rows are compared together) and `by_looks` (whether looks said when it had
    seeds enough) are filled in by `StudyResults`.
    """

    name: str
    model: dict[str, Any]
    macs: int | None
    params: int | None
    input_size: int | None
    runs: tuple[EndedRun, ...]
    planned_seeds: tuple[int, ...]
    failed: tuple[str, ...] = ()
    reported: Reported | None = None
    reported_cost: CostAt | None = None
    tuned: dict[str, Any] | None = None
    costs: Mapping[str, float] = field(default_factory=dict)
    metric: Metric = TOP1
    baseline: "RowResult | None" = None
    difference: Difference | None = None
    at_once: int = 1
    by_looks: bool = False

    def __repr__(self) -> str:
        """Name it; the whole would fill many screens."""
        return f"<row {self.name}: {len(self.runs)} of {len(self.planned_seeds)} runs>"

    @cached_property
    def finished(self) -> tuple[EndedRun, ...]:
        """The runs that count: ended, and not diverged."""
        return tuple(run for run in self.runs if not run.diverged)

    @cached_property
    def diverged(self) -> tuple[EndedRun, ...]:
        """The runs whose loss stopped being a number."""
        return tuple(run for run in self.runs if run.diverged)

    @cached_property
    def at_chance(self) -> bool:
        """Whether none of its finished runs has learned anything."""
        return bool(self.finished) and all(run.at_chance for run in self.finished)

    @cached_property
    def undertrained(self) -> str | None:
        """Why its accuracy is not its best; None where its training had come to rest."""
        return why_undertrained(self.finished)

    @cached_property
    def missing_seeds(self) -> tuple[int, ...]:
        """Planned seeds that have no result, failed ones included."""
        ended = {run.seed for run in self.runs}
        return tuple(seed for seed in self.planned_seeds if seed not in ended)

    def by_seed(self, name: str) -> dict[int, float]:
        """Return a number of result.json for each finished seed that has it."""
        found = {run.seed: run.figure(name) for run in self.finished}
        return {seed: value for seed, value in found.items() if value is not None}

    def over_seeds(self, name: str) -> Summary | None:
        """Summarise a number of result.json over finished seeds; None where none has it."""
        values = self.by_seed(name)
        if not values:
            return None
        bounds = PERCENT if name.endswith("_percent") else UNBOUNDED
        if name == self.metric.figure:
            bounds = self.metric.bounds
        return summarise(tuple(values.values()), bounds=bounds)

    @cached_property
    def score(self) -> Summary | None:
        """What rows are compared by, `metric`, after the last epoch: in most studies top-1."""
        return self.over_seeds(self.metric.figure)

    @cached_property
    def top1(self) -> Summary | None:
        """Test top-1 in %, after the last epoch."""
        return self.over_seeds("test_top1_percent")

    @cached_property
    def top5(self) -> Summary | None:
        """Test top-5 in %, after the last epoch."""
        return self.over_seeds("test_top5_percent")

    @cached_property
    def best_top1(self) -> Summary | None:
        """Test top-1 in % at the epoch that was best on the test set: optimistic."""
        return self.over_seeds("best_test_top1_percent")

    @cached_property
    def best_top5(self) -> Summary | None:
        """Test top-5 in % at that same epoch."""
        return self.over_seeds("best_test_top5_percent")

    @cached_property
    def over_images(self) -> ImageInterval | None:
        """Test top-1 in %, with its interval over other test images; None without predictions."""
        read = [run.per_image for run in self.finished]
        return over_images([one for one in read if one]) if all(read) else None

    @cached_property
    def difference_over_images(self) -> ImageInterval | None:
        """The difference to the baseline, with its interval over other test images.

        It holds for all rows at once, as that over seeds does. The one over both is None where that
        over seeds is.
        """
        if self.baseline is None:
            return None
        pairs = [(a.per_image, b.per_image) for _, a, b in shared_runs(self, self.baseline)]
        ours, theirs = [a for a, b in pairs if a and b], [b for a, b in pairs if a and b]
        if len(ours) < len(pairs):
            return None
        gap = self.difference
        if gap is None or gap.low is None or gap.high is None or self.metric != TOP1:
            found = over_images(ours, theirs, at_once=self.at_once)
            return found and replace(found, both_low=None, both_high=None)
        half = max(gap.high - gap.mean, gap.mean - gap.low)  # either may be cut
        return over_images(ours, theirs, at_once=self.at_once, of_seeds=(gap.mean, half))

    @cached_property
    def zeros_percent(self) -> Summary | None:
        """Zeros after the last block, in % of its outputs, over the row's runs.

        None unless all of them were diagnosed, over the same images: one that was diagnosed by hand
        says nothing of the row.
        """
        shares = [run.zeros_percent for run in self.finished if run.zeros_percent is not None]
        over = {run.zeros_over for run in self.finished}
        alike = shares and len(shares) == len(self.finished) and len(over) == 1
        return summarise(shares, bounds=PERCENT) if alike else None

    @cached_property
    def cost_gaps_percent(self) -> dict[str, float]:
        """How far our `reported_cost` is from the reported MACs and params, where there are any."""
        if self.reported is None or self.reported_cost is None:
            return {}
        pairs = {
            "macs": (self.reported_cost.macs / 1e9, self.reported.macs_g),
            "params": (self.reported_cost.params / 1e6, self.reported.params_m),
        }
        return {
            name: 100 * (ours / printed - 1) for name, (ours, printed) in pairs.items() if printed
        }

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know before comparing this row with another."""
        notes = []
        if len(self.finished) < len(self.planned_seeds):
            notes.append(f"{len(self.finished)} of {len(self.planned_seeds)} seeds finished")
        if self.diverged:
            notes.append(f"diverged, so not averaged: {_seeds(self.diverged)}")
        if learned_nothing := tuple(run for run in self.finished if run.at_chance):
            notes.append(
                "at chance: no better on its own training images than the commonest class, "
                f"{_seeds(learned_nothing)}"
            )
        epochs = self._epochs()
        if len(epochs) > 1:
            notes.append(f"its runs differ in epochs: {' and '.join(map(str, epochs))}")
        elif self.baseline and epochs and (others := self.baseline._epochs()) not in ([], epochs):
            notes.append(f"{epochs[0]} epochs, the baseline {' and '.join(map(str, others))}")
        layouts = sorted({str(run.run.get("memory_format")) for run in self.finished})
        if len(layouts) > 1:  # as of a run that goes on from a shorter one, which measured none
            notes.append(f"its runs differ in memory format: {' and '.join(layouts)}")
        notes += dict.fromkeys(note for run in self.finished if (note := _recipe_warning(run)))
        if self.difference and self.difference.n < len(self.finished):
            used, n = self.difference.n, len(self.finished)
            which = ", those that all rows have" if self.difference.values else ""  # paired
            notes.append(f"compared over {used} of its {n} seeds{which}")
        elif self.compared_early:
            assert self.difference and self.baseline
            used, n = self.difference.n_baseline, len(self.baseline.finished)
            notes.append(
                f"its difference is to {used} of the {n} seeds of {self.baseline.name}: those of "
                "the look at which it ended"
            )
        return tuple(notes)

    @property
    def compared_early(self) -> bool:
        """Whether the baseline has had more seeds since it was compared for the last time."""
        if not self.by_looks or self.difference is None or self.baseline is None:
            return False
        if self.difference.values:
            return False
        return self.difference.n_baseline < len(self.baseline.finished)

    @cached_property
    def troubles(self) -> tuple[str, ...]:
        """What went wrong with its runs, a line each; and which have no result."""
        lines = [*self.failed]
        for run in self.runs:
            if run.diverged:
                epochs = f"{run.epochs} epoch{'' if run.epochs == 1 else 's'}"
                after = f" after {epochs}" if run.epochs else ""
                lines.append(f"seed {run.seed} diverged{after} (run {run.hash})")
            lines += [f"seed {run.seed}: {note}" for note in run.notes]
        if seeds := self.missing_seeds:
            word = f"seed{'s' if len(seeds) > 1 else ''}"
            lines.append(f"no result from {word} {', '.join(map(str, seeds))}")
        return tuple(lines)

    def _epochs(self) -> list[int]:
        return sorted({run.epochs for run in self.finished if run.epochs is not None})


def _recipe_warning(run: EndedRun) -> str | None:
    try:
        recipe = Recipe.parse(run.run["definition"]["recipe"])
        return recipe.warning(int(run.run["train_images"]))
    except (InputError, KeyError, TypeError, ValueError):  # of another version, or not whole
        return None


def identical_seeds(one: RowResult, other: RowResult) -> tuple[int, ...]:
    """Return the seeds that two rows share, if from each they gave the same bits, else ().

    The same bits are the same five classes and the same loss on every test image.
    """
    shared = shared_runs(one, other)
    for _, ours, theirs in shared:
        a, b = ours.per_image, theirs.per_image
        if a is None or b is None or a.bits != b.bits:
            return ()
    return tuple(seed for seed, _, _ in shared)


def shared_runs(one: RowResult, other: RowResult) -> list[tuple[int, EndedRun, EndedRun]]:
    """Return seed and both runs for each seed that both rows have finished, in the seeds' order."""
    theirs = {run.seed: run for run in other.finished}
    pairs = [(run.seed, run, theirs[run.seed]) for run in one.finished if run.seed in theirs]
    return sorted(pairs, key=lambda pair: pair[0])


def _seeds(runs: tuple[EndedRun, ...]) -> str:
    numbers = ", ".join(str(run.seed) for run in runs)
    return f"seed{'s' if len(runs) > 1 else ''} {numbers}"
