"""Runs that were trained elsewhere become a study's results: the same tables, page and claims."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from blocklab.errors import InputError, did_you_mean
from blocklab.foreign.costs import RowCosts, is_count, sorted_costs
from blocklab.foreign.foreign_run import EPOCH, ForeignRun, ForeignRuns
from blocklab.foreign.metric import Asked, factor_and_unit, is_better_higher, metric_of
from blocklab.foreign.notes import notes_of, too_small
from blocklab.results.ended_run import EndedRun
from blocklab.results.row_result import RowResult
from blocklab.results.study_results import StudyResults
from blocklab.study.claims import parse_claim
from blocklab.study.metric import Metric
from blocklab.study.schema import in_list
from blocklab.training.run_files import DIVERGED, FINISHED

_LARGEST = 1e100


def compare_runs(
    found: ForeignRuns, asked: Asked | None = None, costs: Mapping[str, RowCosts] | None = None
) -> StudyResults:
    """Return the results of runs that were trained elsewhere.

    `costs` are what rows cost, where a table of its own says so.

    Raises:
        InputError: if percentages and fractions are mixed, the baseline or a claim's row is not
            there, or the best epoch is asked for of runs without epochs.
    """
    asked = asked or Asked()
    names = list(dict.fromkeys(run.row for run in found.runs))
    baseline = asked.baseline or names[0]
    if baseline not in names:
        raise InputError(
            f"there is no row '{baseline}' to be the baseline{did_you_mean(baseline, names) or '.'}"
            f" Rows: {', '.join(map(in_list, names))}"
        )
    better = asked.higher_is_better
    higher = is_better_higher(found.metric) if better is None else better
    if asked.best_epoch and all(len(run.figures) < 2 for run in found.runs):
        raise InputError(
            f"--best-epoch: the runs of {found.origin} have one {found.metric} each, so there is "
            "no epoch to choose; leave it out, or give their figures after each epoch"
        )
    found = _with_ends(found)
    factor, unit = factor_and_unit(found, asked.unit, higher)
    scores = {(run.row, run.seed): _score(run, asked.best_epoch, higher) for run in found.runs}
    by_row: dict[str, list[float]] = {name: [] for name in names}
    for (name, _), (_, value) in scores.items():
        if abs(value) > _LARGEST and math.isfinite(value):
            raise InputError(
                f"{found.metric} of {name} is {value:g}, whose squares no number holds; give it in "
                "a larger unit"
            )
        if math.isfinite(value):
            by_row[name].append(factor * value)
    metric = metric_of(found.metric, unit, higher, asked, by_row, by_row[baseline], found.by)
    for claim in asked.claims:
        parse_claim(claim, names, baseline, metric)
    means, mixed = _mean_costs(found)
    known = costs or sorted_costs(means, found.origin)
    rows = []
    for name in names:
        mine = [run for run in found.runs if run.row == name]
        cost = known.get(name, RowCosts())
        ended = tuple(
            _ended(run, scores[name, run.seed], factor, metric, found.by)
            for run in mine
            if run.figures
        )
        rows.append(
            RowResult(
                name=name,
                model={},
                macs=cost.macs,
                params=cost.params,
                input_size=None,
                runs=ended,
                planned_seeds=tuple(run.seed for run in mine),
                failed=tuple(f"seed {run.seed}: {run.trouble}" for run in mine if run.trouble),
                costs=cost.others,
            )
        )
    seeds = tuple(sorted({run.seed for run in found.runs}))
    return StudyResults(
        title=f"{metric.title} of {', '.join(map(in_list, names))}"
        if len(names) < 4
        else f"{len(names)} rows",
        description="",
        data={},
        recipe={},
        recipe_name="",
        seeds=seeds,
        varies=(),
        baseline=baseline,
        rows=tuple(rows),
        notes=(
            *too_small(metric, by_row),
            *notes_of(found, asked, factor, metric, rows, baseline),
            *(() if costs else mixed),
        ),
        command=asked.command,
        claims=asked.claims,
        claim_notes=dict.fromkeys(asked.claims, "stated after the runs"),
        metric=metric,
        origin=found.origin,
        axis=found.by,
    )


def _with_ends(found: ForeignRuns) -> ForeignRuns:
    """Let runs end in NaN that tell of a later epoch without a figure, where others have one.

    NaN is an empty cell in the tables of some, and null in their lines.
    """
    known = {epoch for run in found.runs for epoch, _ in run.figures}
    runs = [
        replace(run, figures=(*run.figures, (lost[-1], math.nan)))
        if (lost := [epoch for epoch in run.empty if epoch in known])
        else run
        for run in found.runs
    ]
    return replace(found, runs=tuple(runs))


def _score(run: ForeignRun, best: bool, higher: bool) -> tuple[float | None, float]:
    """Return the epoch that counts and its figure: the last, or the best where that is asked."""
    if not run.figures:
        return None, math.nan
    if best and math.isfinite(run.figures[-1][1]):  # one that diverged has no best epoch
        finite = [pair for pair in run.figures if math.isfinite(pair[1])]
        return (max if higher else min)(finite, key=lambda pair: pair[1])
    return run.figures[-1]


def _mean_costs(found: ForeignRuns) -> tuple[dict[str, dict[str, float]], tuple[str, ...]]:
    """Return each row's costs, means over its runs, since seconds vary between them, and notes.

    Operations and parameters do not vary: runs that differ in them are of several networks, which
    have no mean.
    """
    told: dict[str, dict[str, list[float]]] = {}
    for run in found.runs:
        for name, value in run.costs.items():
            told.setdefault(run.row, {}).setdefault(name, []).append(value)
    means: dict[str, dict[str, float]] = {row: {} for row in told}
    mixed = []
    for row, costs in told.items():
        for name, values in costs.items():
            if is_count(name) and (count := len(set(values))) > 1:
                mixed.append(
                    f"the runs of {row} have {count} different {name}, from {min(values):,.10g} to "
                    f"{max(values):,.10g}: they are of several networks, and it has no {name} here"
                )
            else:
                means[row][name] = math.fsum(values) / len(values)
    return means, tuple(mixed)


def _ended(
    run: ForeignRun, score: tuple[float | None, float], factor: float, metric: Metric, by: str
) -> EndedRun:
    epochs, (_, value) = [epoch for epoch, _ in run.figures], score
    log = [
        {"epoch": round(epoch), metric.figure: factor * figure}
        for epoch, figure in run.figures
        if epoch is not None and len(run.figures) > 1 and math.isfinite(figure)
    ]
    result: dict[str, Any] = {"status": FINISHED if math.isfinite(value) else DIVERGED}
    if math.isfinite(value):
        result[metric.figure] = factor * value
    if by == EPOCH and epochs[-1] is not None and len(epochs) > 1:
        result["epochs"] = round(epochs[-1]) + (epochs[0] == 0)  # some count them from 0
    return EndedRun(run.source, run.seed, Path(run.source), {}, log, result)
