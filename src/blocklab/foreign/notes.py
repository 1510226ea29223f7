"""What a page of runs that were trained elsewhere says besides: what is odd about them."""

import math
from collections.abc import Mapping, Sequence

from blocklab.foreign.foreign_run import ForeignRuns
from blocklab.foreign.metric import SHARE, Asked
from blocklab.foreign.settings import mixed_settings
from blocklab.results.row_result import RowResult
from blocklab.study.metric import Metric
from blocklab.study.schema import in_list


def too_small(metric: Metric, by_row: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    """Say so of figures that the decimals do not show."""
    largest = max((abs(value) for values in by_row.values() for value in values), default=0.0)
    if not 0 < largest < 10.0 ** (1 - metric.decimals):
        return ()
    return (
        f"{metric.name} is too small for the {metric.decimals} decimals that are shown; give it in "
        "thousandths, millionths or less of its unit",
    )


def notes_of(
    found: ForeignRuns,
    asked: Asked,
    factor: float,
    metric: Metric,
    rows: Sequence[RowResult],
    baseline: str,
) -> tuple[str, ...]:
    """Return the notes: settings that differ, unlike ends, what the figure was taken for, seeds."""
    mixed = mixed_settings((run.row, run.seed, run.settings) for run in found.runs)
    notes = [*found.notes, *mixed, *_unlike_ends(found)]
    if asked.best_epoch:
        notes.append(
            f"each run stands at the {found.by} of its {metric.best} {metric.name}: where that was "
            f"measured on test images, they chose the {found.by}, and the figure is optimistic"
        )
    shown = [value for run in found.runs for _, value in run.figures if math.isfinite(value)]
    within = all(0 <= value <= 1 for value in shown)
    if not (metric.unit or asked.unit) and SHARE.search(found.metric) and within:
        notes.append(
            f"{metric.name} is below 1 and shown as it was given: fractions, or percentages, which "
            "--unit % says"
        )
    elif not (metric.unit or asked.unit) and SHARE.search(found.metric):
        notes.append(
            f"{metric.name} is not taken for a percentage, as its name sounds, since some of it "
            "lies outside 0 to 100; --unit % has such a figure refused"
        )
    if factor != 1:
        notes.append(
            f"{metric.name} was given in fractions and is shown in percent: --gain and the margins "
            "of claims are in points"
        )
    seeds = {row.name: set(row.planned_seeds) for row in rows}
    for name, mine in seeds.items():
        if mine != seeds[baseline]:
            notes.append(
                f"{name} has other seeds ({_listed(mine)}) than the baseline "
                f"({_listed(seeds[baseline])})"
            )
    return tuple(notes)


def _listed(seeds: set[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


def _unlike_ends(found: ForeignRuns) -> list[str]:
    """Say which rows have runs that end earlier than others of it: killed, or stopped early."""
    notes, ends = [], dict[str, dict[int, float]]()
    for run in found.runs:
        if run.figures and run.figures[-1][0] is not None:
            ends.setdefault(run.row, {})[run.seed] = run.figures[-1][0]
    for row, by_seed in ends.items():
        last = max(by_seed.values())
        if early := {seed: at for seed, at in by_seed.items() if at < last}:
            told = ", ".join(f"seed {seed} at {found.by} {at:g}" for seed, at in early.items())
            notes.append(
                f"runs of {row} end earlier than its last at {found.by} {last:g} ({told}) and "
                "count as finished: leave out what was killed"
            )
    longest = {row: max(by_seed.values()) for row, by_seed in ends.items()}
    if len(set(longest.values())) > 1:
        told = ", ".join(f"{in_list(row)} {at:g}" for row, at in longest.items())
        notes.append(f"rows were not trained equally long: to {found.by} {told}")
    return notes
