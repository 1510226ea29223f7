"""What to do next: which rows want more seeds, and how many."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev, variance

from blocklab.results.row_result import RowResult
from blocklab.statistics.family import NOT_SHOWN, TOO_FEW, Comparison
from blocklab.statistics.judging import FEWEST_SEEDS
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
) -> tuple[str, ...]:
    """Return a line for rows whose runs failed, for those with a seed or none, for those in doubt.

    How many seeds are needed is what `plan` has from the spread of all rows, or, where these are
    uneven, what each row's own and the baseline's ask for, the most of them; a difference of the
    metric's gain is to be shown four times in five. A study that `has_looks` says itself which
    seeds come next.
    """
    of = {word: [r for r in rows if _word(r, comparisons) == word] for word in (TOO_FEW, NOT_SHOWN)}
    lines = []
    failing = [row for row in of[TOO_FEW] if row.failed or (row.diverged and not row.finished)]
    if failing:
        lines.append(f"{_names(failing)}: see why runs failed, before more seeds")
    if has_looks:
        return tuple(lines)
    if few := [row for row in of[TOO_FEW] if row not in failing]:
        baseline = few[0].baseline
        some = [*([baseline] if baseline and len(baseline.finished) < FEWEST_SEEDS else []), *few]
        least = min(len(row.finished) for row in some)
        more = max(FEWEST_SEEDS - least, 1)
        lines.append(
            f"{_count(more)} of {_names(some)}, to see how much seeds differ; three in all are a "
            "sensible start"
        )
    if plan and (doubtful := of[NOT_SHOWN]):
        lines.append(_of_doubtful(doubtful, plan, metric))
    return tuple(lines)


def _of_doubtful(rows: Sequence[RowResult], plan: Planning, metric: Metric) -> str:
    needed = plan.seeds_among_all if plan.stretch <= 1 else _of_uneven(rows, plan, metric)
    shows = f"a difference of {metric.gain_text}"
    if needed is None:
        return f"{_names(rows)}: more than 10,000 seeds would be needed to show {shows}"
    gaps = [row.difference for row in rows]
    have = min(min(gap.n, gap.n_baseline) if gap else 0 for gap in gaps)
    if needed <= have:
        return (
            f"{_names(rows)}: {shows} would have been shown four times in five; more seeds look "
            "for a smaller one"
        )
    return (
        f"{_count(needed - have)} of {_names(rows)}, and of the baseline, would show {shows} four "
        "times in five"
    )


def _of_uneven(rows: Sequence[RowResult], plan: Planning, metric: Metric) -> int | None:
    """Return what the one that needs most does, by its own spread and the baseline's."""
    needed = [
        seeds_needed(
            _own_sd(row, metric) or plan.sd,
            metric.gain,
            rows=plan.rows,
            stretch=plan.stretch,
            paired=plan.paired,
        )
        for row in rows
    ]
    return None if None in needed else max(one for one in needed if one is not None)


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
