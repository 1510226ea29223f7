"""What to do next: which rows want more seeds, and how many."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev, variance
from typing import Any

from blocklab.results.row_result import RowResult
from blocklab.statistics.family import NOT_SHOWN, TOO_FEW, Comparison
from blocklab.statistics.judging import FEWEST_FOR_WELCH, FEWEST_SEEDS, FEWEST_WHERE_UNEVEN
from blocklab.statistics.planning import Planning, seeds_needed
from blocklab.study.metric import Metric
from blocklab.study.schema import in_list

MOST_NAMED = 8
_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def more_seeds(
    rows: Sequence[RowResult],
    comparisons: Mapping[str, Comparison],
    plan: Planning | None,
    metric: Metric,
    has_looks: bool = False,
    apart: Sequence[str] = (),
) -> tuple[str, ...]:
    """Return a line for rows whose runs failed, for those with a seed or none, for those in doubt.

    How many seeds are needed is what `plan` has from the spread of all rows, or, where these are
    uneven, what each row's own and the baseline's ask for; a difference of the metric's gain is to
    be shown four times in five. Rows that are set `apart` need as many as their own test takes. A
    study that `has_looks` says itself which seeds come next.
    """
    of = {word: [r for r in rows if _word(r, comparisons) == word] for word in (TOO_FEW, NOT_SHOWN)}
    lines = []
    failing = [row for row in of[TOO_FEW] if row.failed or (row.diverged and not row.finished)]
    if failing:
        lines.append(f"{_names(failing)}: see why runs failed, before more seeds")
    if has_looks:
        return tuple(lines)
    few = [row for row in of[TOO_FEW] if row not in failing]
    if some := [row for row in few if row.name not in apart]:
        tested = any(row.difference and _seeds(row) >= FEWEST_SEEDS for row in some)
        fewest = FEWEST_WHERE_UNEVEN if tested else FEWEST_SEEDS
        lines.append(
            f"{_more_of(some, fewest)}, to see how much seeds differ; three in all are a sensible "
            "start"
        )
    if wild := [row for row in few if row.name in apart]:
        lines.append(
            f"{_more_of(wild, FEWEST_FOR_WELCH)}: five in all are judged by their own spread"
        )
    if plan and (doubtful := of[NOT_SHOWN]):
        lines += _of_doubtful(doubtful, plan, metric)
    return tuple(lines)


def _more_of(rows: Sequence[RowResult], fewest: int) -> str:
    """Say how many seeds, one at least, rows want for as many as `fewest`, or their baseline."""
    baseline = rows[0].baseline
    also = [baseline] if baseline and len(baseline.finished) < fewest else []
    some = [*also, *rows]
    least = min(len(row.finished) for row in some)
    return f"{_count(max(fewest - least, 1))} of {_names(some)}"


def _seeds(row: RowResult) -> int:
    """Return how many a row is compared by: its own or the baseline's, whichever are fewer."""
    gap = row.difference
    return min(gap.n, gap.n_baseline) if gap else 0


def _of_doubtful(rows: Sequence[RowResult], plan: Planning, metric: Metric) -> list[str]:
    """Say what rows want that are in doubt; those that want as many together, fewest first."""
    by_number: dict[Any, list[RowResult]] = {}  # None where it is beyond all bounds
    for row in rows:
        needed = plan.seeds_among_all if plan.stretch <= 1 else _of_uneven(row, plan, metric)
        more = None if needed is None else max(needed - _seeds(row), 0)
        by_number.setdefault(more, []).append(row)
    shows, lines = f"a difference of {metric.gain_text}", []
    if rows := by_number.pop(0, []):
        lines.append(
            f"{_names(rows)}: {shows} would have been shown four times in five; more seeds look "
            "for a smaller one"
        )
    beyond = by_number.pop(None, [])
    if by_number:
        first, *others = sorted(by_number)
        said = [f"{_count(first)} of {_names(by_number[first])}"]
        said += [f"{more:,} of {_names(by_number[more])}" for more in others]
        also = "as many of the baseline" if others else "of the baseline"
        lines.append(f"{'; '.join(said)}, and {also}, would show {shows} four times in five")
    if beyond:
        lines.append(f"{_names(beyond)}: more than 10,000 seeds would be needed to show {shows}")
    return lines


def _of_uneven(row: RowResult, plan: Planning, metric: Metric) -> int | None:
    """Return how many seeds a row's own spread and the baseline's ask for."""
    sd = _own_sd(row, metric) or plan.sd
    return seeds_needed(sd, metric.gain, rows=plan.rows, stretch=plan.stretch, paired=plan.paired)


def _own_sd(row: RowResult, metric: Metric) -> float | None:
    """Return the SD of one run that a row and its baseline would have if theirs were the same.

    None of a row that is judged by the seeds of another of its function.
    """
    gap = row.difference
    if gap is not None and gap.values:  # of each seed, which two runs share
        return stdev(gap.values) / math.sqrt(2)
    pair = [[*one.by_seed(metric.figure).values()] for one in (row, row.baseline) if one]
    if any(len(values) < FEWEST_SEEDS for values in pair):
        return None
    return math.sqrt(fmean(map(variance, pair)))


def _word(row: RowResult, comparisons: Mapping[str, Comparison]) -> str | None:
    return comparisons[row.name].word if row.name in comparisons else None


def _count(more: int) -> str:
    number = _WORDS[more] if more < len(_WORDS) else f"{more:,}"
    return f"{number} more seed{'' if more == 1 else 's'}"


def _names(rows: Sequence[RowResult]) -> str:
    named = ", ".join(in_list(row.name) for row in rows[:MOST_NAMED])
    return named + (f" and {len(rows) - MOST_NAMED} others" if len(rows) > MOST_NAMED else "")
