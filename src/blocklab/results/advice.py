"""What to do next: which rows want more seeds, and how many."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev, variance

from blocklab.results.row_result import RowResult
from blocklab.statistics.family import NOT_SHOWN, TOO_FEW, Comparison, Family
from blocklab.statistics.judging import FEWEST_FOR_WELCH, FEWEST_SEEDS, FEWEST_WHERE_UNEVEN
from blocklab.statistics.planning import Planning, seeds_needed
from blocklab.study.metric import Metric
from blocklab.study.schema import in_list

MOST_NAMED = 8
ALONE = 1e6  # a stretch that leaves Welch's test alone: of a row that is set apart
_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def more_seeds(
    rows: Sequence[RowResult],
    comparisons: Mapping[str, Comparison],
    plan: Planning | None,
    metric: Metric,
    family: Family,
    has_looks: bool = False,
) -> tuple[str, ...]:
    """Return a line for rows whose runs failed, for those with a seed or none, for those in doubt.

    How many seeds are needed is what `plan` has from the spread of all rows, or, of a row that they
    do not judge by it, what its own and the baseline's ask for; a difference of the metric's gain
    is to be shown four times in five. Where seeds are blocks, the row that wants most speaks for
    all. A study that `has_looks` says itself which seeds come next.
    """
    of = {word: [r for r in rows if _word(r, comparisons) == word] for word in (TOO_FEW, NOT_SHOWN)}
    lines = []
    failing = [row for row in of[TOO_FEW] if row.failed or (row.diverged and not row.finished)]
    if failing:
        lines.append(f"{_names(failing)}: see why runs failed, before more seeds")
    if has_looks:
        return tuple(lines)
    few = [row for row in of[TOO_FEW] if row not in failing]
    if some := [row for row in few if row.name not in family.apart]:
        lines.append(
            f"{_more_of(some)}, to see how much seeds differ; three in all are a sensible start"
        )
    if wild := [row for row in few if row.name in family.apart]:
        own = "its own spread" if len(wild) == 1 else "their own spreads"
        what = "all rows share" if family.paired else "they and the baseline have"
        if len(wild) == 1 and not family.paired:
            what = "it and the baseline have"
        lines.append(f"{_names(wild)}: judged by {own} once {what} five seeds")
    if plan and (doubtful := of[NOT_SHOWN]):
        needed = {row.name: _needed(row, plan, metric, family) for row in doubtful}
        if family.paired:  # rows are judged by the seeds that all of them share
            most = max(needed.values(), key=_beyond)
            needed = dict.fromkeys(needed, most)
        lines += _of_doubtful(doubtful, needed, metric)
    return tuple(lines)


def _more_of(rows: Sequence[RowResult]) -> str:
    """Say how many seeds rows and their baseline want until a spread is known of each.

    Two show one, three where the spreads that are known differ.
    """
    tested = any(_seeds(row) >= FEWEST_SEEDS for row in rows)
    fewest = FEWEST_WHERE_UNEVEN if tested else FEWEST_SEEDS
    baseline = rows[0].baseline
    all_rows = [*([baseline] if baseline else []), *rows]
    short = [row for row in all_rows if len(row.finished) < fewest] or rows
    more = [max(fewest - len(row.finished), 1) for row in short]
    return f"{'up to ' if len({*more}) > 1 else ''}{_count(max(more))} of {_names(short)}"


def _seeds(row: RowResult) -> int:
    """Return how many a row is compared by: its own or the baseline's, whichever are fewer."""
    gap = row.difference
    return min(gap.n, gap.n_baseline) if gap else 0


def _needed(row: RowResult, plan: Planning, metric: Metric, family: Family) -> int | None:
    """Return how many seeds show the gain, by the spread that the row's test goes by."""
    apart, of_all = row.name in family.apart, plan.seeds_among_all
    if not apart and (family.method == "pooled" or plan.stretch <= 1):
        return of_all
    sd, stretch = _own_sd(row, metric) or plan.sd, ALONE if apart else plan.stretch
    needed = seeds_needed(sd, metric.gain, rows=plan.rows, stretch=stretch, paired=plan.paired)
    if apart or family.method == "own":
        return needed
    # It is judged by the spread of all rows so far, and by its own from five seeds on, or never.
    own = None if needed is None else max(needed, FEWEST_FOR_WELCH)
    return of_all if _seeds(row) >= _beyond(own) else min(own, of_all, key=_beyond)


def _of_doubtful(
    rows: Sequence[RowResult], needed: Mapping[str, int | None], metric: Metric
) -> list[str]:
    """Say what rows want that are in doubt; those that want as many together, fewest first."""
    by_number: dict[float, list[RowResult]] = {}
    for row in rows:
        more = max(_beyond(needed[row.name]) - _seeds(row), 0)
        by_number.setdefault(more, []).append(row)
    shows, lines = f"a difference of {metric.gain_text}", []
    if enough := by_number.pop(0, []):
        lines.append(
            f"{_names(enough)}: {shows} would have been shown four times in five; more seeds look "
            "for a smaller one"
        )
    beyond = by_number.pop(math.inf, [])
    if by_number:
        numbers = [int(more) for more in sorted(by_number)]
        said = [f"{_count(more)} of {_names(by_number[more])}" for more in numbers[:1]]
        said += [f"{more:,} of {_names(by_number[more])}" for more in numbers[1:]]
        also = f"{numbers[-1]:,} of the baseline" if len(numbers) > 1 else "of the baseline"
        lines.append(f"{'; '.join(said)}, and {also}, would show {shows} four times in five")
    if beyond:
        lines.append(f"{_names(beyond)}: more than 10,000 seeds would be needed to show {shows}")
    return lines


def _beyond(seeds: int | None) -> float:
    return math.inf if seeds is None else seeds


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
