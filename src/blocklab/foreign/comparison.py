"""Runs that were trained elsewhere become a study's results: the same tables, page and claims."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, stdev
from typing import Any

from blocklab.errors import InputError, did_you_mean
from blocklab.foreign.costs import RowCosts, is_count, sorted_costs
from blocklab.foreign.foreign_run import EPOCH, ForeignRun, ForeignRuns
from blocklab.foreign.settings import mixed_settings
from blocklab.results.ended_run import EndedRun
from blocklab.results.row_result import RowResult
from blocklab.results.study_results import StudyResults
from blocklab.study.claims import parse_claim
from blocklab.study.metric import Metric
from blocklab.study.schema import in_list
from blocklab.training.run_files import DIVERGED, FINISHED

# A figure of one of these names is a share of the images, in percent or as a fraction of one.
_SHARE = re.compile(
    r"acc(?!el|um|ess)|top[-_@]?[15]\b|precision|recall|f1|iou|auc|dice|\bm?ap\d*\b", re.I
)
# Of these less is better, unless it is said otherwise.
_LOWER = re.compile(
    r"loss(?!less)|perplexity|latency|cross_?entropy|misclassified|seconds|duration|(?<![a-z])"
    r"(top\d?)?(err(ors?)?|ppl|nll|ece|brier|b?ce|xent|eer|f[pn]r|bpd|lpips|kid|hausdorff)(?![a-z])",
    re.IGNORECASE,
)
# Of these too, unless the name also says that it is a share: mae_top1 is of a method called MAE.
_LOWER_ALONE = re.compile(
    r"(?<![a-z])(r?mse|s?map?e|fid|wer|cer|(run)?time|ms|hours?|memory)(?![a-z])", re.IGNORECASE
)
# Names of these words alone are of the share of images that are told wrongly.
_ERROR_WORDS = {"err", "error", "errors", "misclassified", "top1err", "top5err"}
_OF_ERRORS = {*"val valid validation test eval train top top1 top5 1 5 rate percent".split()}
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_MOST_DECIMALS = 6
_LARGEST = 1e100


@dataclass(frozen=True)
class Asked:
    """How to compare: None of what is to be seen from the runs themselves."""

    baseline: str | None = None
    higher_is_better: bool | None = None
    unit: str | None = None
    gain: float | None = None
    best_epoch: bool = False
    claims: tuple[str, ...] = ()
    command: str | None = None


def compare_runs(
    found: ForeignRuns, asked: Asked = Asked(), costs: Mapping[str, RowCosts] | None = None
) -> StudyResults:
    """Return the results of runs that were trained elsewhere.

    `costs` are what rows cost, where a table of its own says so.

    Raises:
        InputError: if percentages and fractions are mixed, the baseline or a claim's row is not
            there, or the best epoch is asked for of runs without epochs.
    """
    names = list(dict.fromkeys(run.row for run in found.runs))
    baseline = asked.baseline or names[0]
    if baseline not in names:
        raise InputError(
            f"there is no row '{baseline}' to be the baseline{did_you_mean(baseline, names) or '.'}"
            f" Rows: {', '.join(map(in_list, names))}"
        )
    better = asked.higher_is_better
    higher = _is_better_higher(found.metric) if better is None else better
    if asked.best_epoch and all(len(run.figures) < 2 for run in found.runs):
        raise InputError(
            f"--best-epoch: the runs of {found.origin} have one {found.metric} each, so there is "
            "no epoch to choose; leave it out, or give their figures after each epoch"
        )
    found = _with_ends(found)
    factor, unit = _factor_and_unit(found, asked.unit, higher)
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
    metric = _metric(found.metric, unit, higher, asked, by_row, by_row[baseline], found.by)
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
            *_too_small(metric, by_row),
            *_notes(found, asked, factor, metric, rows, baseline),
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


def _is_better_higher(metric: str) -> bool:
    name = _CAMEL.sub("_", metric)
    if _LOWER.search(name):
        return False
    return bool(_SHARE.search(name)) or not _LOWER_ALONE.search(name)


def _score(run: ForeignRun, best: bool, higher: bool) -> tuple[float | None, float]:
    """Return the epoch that counts and its figure: the last, or the best where that is asked."""
    if not run.figures:
        return None, math.nan
    if best and math.isfinite(run.figures[-1][1]):  # one that diverged has no best epoch
        finite = [pair for pair in run.figures if math.isfinite(pair[1])]
        return (max if higher else min)(finite, key=lambda pair: pair[1])
    return run.figures[-1]


def _factor_and_unit(found: ForeignRuns, unit: str | None, higher: bool) -> tuple[float, str]:
    """Return what figures are multiplied by, and their unit.

    Where less is better, figures below 1 may be fractions or percentages: they stay as they are.

    Raises:
        InputError: if some are percentages and others fractions, or none can be what is said.
    """
    if unit is None and found.signed == "none":
        _check_errors(found)
    is_share = found.signed != "none" or _SHARE.search(found.metric)
    if unit not in (None, "%") or (unit is None and not is_share):
        return 1.0, unit or ""
    told = [(run, value) for run in found.runs for _, value in run.figures if math.isfinite(value)]
    if not told:
        return 1.0, "%"
    low, high = min(told, key=lambda one: one[1]), max(told, key=lambda one: one[1])
    if not 0 <= low[1] <= high[1] <= 100:
        run, value = low if low[1] < 0 else high
        if unit is None:  # its name only sounds like a share
            return 1.0, ""
        raise InputError(f"{run.source}: {found.metric} is {value:g}, which is no percentage")
    last = [(run, run.figures[-1][1]) for run in found.runs if run.figures]
    fractions = [one for one in last if math.isfinite(one[1]) and one[1] <= 1]
    if high[1] <= 1 and found.signed == "none":
        if not higher:
            return 1.0, unit or ""
        if unit:
            raise InputError(
                f"--unit %, and no {found.metric} is above 1: if they are fractions, leave --unit "
                "out, and they are shown as percentages"
            )
        return 100.0, "%"
    if fractions and unit is None and found.signed != "all":
        raise InputError(
            f"{found.metric}: percentages and fractions are mixed ({fractions[0][1]:g} in "
            f"{fractions[0][0].source}, {high[1]:g} in {high[0].source}); write all in one, or add "
            "--unit % if all are percentages"
        )
    return 1.0, "%"


def _check_errors(found: ForeignRuns) -> None:
    """Refuse errors of which some rows' look like fractions and others' like percentages.

    Both may lie below 1 (MNIST's errors in percent do), but no row errs 20 times as often.
    """
    words = {*re.findall(r"[a-z0-9]+", _CAMEL.sub("_", found.metric).lower())}
    if not (words & _ERROR_WORDS and words <= _ERROR_WORDS | _OF_ERRORS):
        return
    of_rows: dict[str, list[float]] = {}
    for run in found.runs:
        of_rows.setdefault(run.row, []).extend(
            value for _, value in run.figures[-1:] if math.isfinite(value)
        )
    small = {row: max(values) for row, values in of_rows.items() if values and max(values) <= 1}
    large = {row: min(values) for row, values in of_rows.items() if values and min(values) > 1}
    if small and large and min(large.values()) >= 20 * max(small.values()) > 0:
        one, other = max(small, key=lambda row: small[row]), min(large, key=lambda row: large[row])
        raise InputError(
            f"{found.metric}: percentages and fractions seem mixed ({small[one]:g} in {one}, "
            f"{large[other]:g} in {other}); write all in one, or say with --unit what they are"
        )


def _metric(
    name: str,
    unit: str,
    higher: bool,
    asked: Asked,
    by_row: Mapping[str, Sequence[float]],
    baseline: Sequence[float],
    by: str,
) -> Metric:
    percent = unit == "%"
    gain = asked.gain
    if gain is None:
        size = abs(median(baseline)) / 100 if baseline else 0.0
        gain = 0.5 if percent else float(f"{size:.0e}") or 0.01
    title = f"{name} of the best {by} (optimistic)" if asked.best_epoch else name
    return Metric(
        name=name,
        figure=name,
        title=title,
        unit=unit,
        higher_is_better=higher,
        bounds=(0.0, 100.0) if percent else (-math.inf, math.inf),
        decimals=2 if percent else _decimals(by_row),
        gain=gain,
    )


def _decimals(by_row: Mapping[str, Sequence[float]]) -> int:
    """Return how many decimals show two digits of the spread between seeds."""
    spreads = [stdev(values) for values in by_row.values() if len(values) > 1]
    values = [value for row in by_row.values() for value in row]
    spread = median([one for one in spreads if one] or [abs(one) / 100 for one in values] or [0])
    if not spread:
        return 2
    return min(max(1 - math.floor(math.log10(spread)), 0), _MOST_DECIMALS)


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


def _too_small(metric: Metric, by_row: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    largest = max((abs(value) for values in by_row.values() for value in values), default=0.0)
    if not 0 < largest < 10.0 ** (1 - metric.decimals):
        return ()
    return (
        f"{metric.name} is too small for the {metric.decimals} decimals that are shown; give it in "
        "thousandths, millionths or less of its unit",
    )


def _notes(
    found: ForeignRuns,
    asked: Asked,
    factor: float,
    metric: Metric,
    rows: Sequence[RowResult],
    baseline: str,
) -> tuple[str, ...]:
    mixed = mixed_settings((run.row, run.seed, run.settings) for run in found.runs)
    notes = [*found.notes, *mixed, *_unlike_ends(found)]
    if asked.best_epoch:
        notes.append(
            f"each run stands at the {found.by} of its {metric.best} {metric.name}: where that was "
            f"measured on test images, they chose the {found.by}, and the figure is optimistic"
        )
    shown = [value for run in found.runs for _, value in run.figures if math.isfinite(value)]
    within = all(0 <= value <= 1 for value in shown)
    if not (metric.unit or asked.unit) and _SHARE.search(found.metric) and within:
        notes.append(
            f"{metric.name} is below 1 and shown as it was given: fractions, or percentages, which "
            "--unit % says"
        )
    elif not (metric.unit or asked.unit) and _SHARE.search(found.metric):
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
