"""The tables as columns, of which each format and the page make theirs."""

from collections.abc import Callable, Sequence

from blocklab.measure.amounts import counted
from blocklab.report.cell_text import (
    ABSENT,
    chance,
    difference,
    interval,
    mean_and_sd,
    plain,
    signed,
    signed_ends,
    signed_interval,
    square,
)
from blocklab.report.columns import ACCURACY, COST, Column, Table
from blocklab.report.reported_columns import reported_columns
from blocklab.results.row_result import RowResult
from blocklab.results.study_results import AT_ONCE, StudyResults
from blocklab.statistics.family import AS_GOOD, BETTER, SAME, WORSE

VERDICT_LOOKS = {BETTER: "better", WORSE: "worse", SAME: "same", AS_GOOD: "same"}
CLAIM_HEADINGS = ("claim", "judgement", "p (Holm)", "numbers (left minus right)", "in words")


def tables(results: StudyResults) -> tuple[Table, ...]:
    """Return the tables that these results can fill, the main one first."""
    found = [main_table(results)]
    compared = tuple(row for row in results.rows if row.name in results.comparisons)
    if any(row.difference for row in compared):
        found.append(Table("verdicts", "Verdicts", _verdict_columns(results), compared))
    if any(row.over_images for row in results.rows):
        shown = _uncertainty_columns(results)
        found.append(Table("uncertainty", "Two uncertainties", shown, results.rows))
    reported = tuple(row for row in results.rows if row.reported)
    if shown := reported_columns(reported):
        found.append(Table("reported", "Reported against measured", shown, reported))
    return tuple(found)


def main_table(results: StudyResults) -> Table:
    """Return the table of costs and accuracies."""
    return Table("table", "Results", columns(results), results.rows)


def claim_lines(results: StudyResults) -> list[tuple[str, ...]]:
    """Return each claim, its judgement, p, numbers and sentence, under CLAIM_HEADINGS."""
    return [
        (
            one.claim,
            one.word,
            chance(one.p_holm),
            one.numbers,
            results.claim_notes.get(one.claim, ""),
        )
        for one in results.judgements
    ]


def columns(results: StudyResults) -> tuple[Column, ...]:
    """Return the main table's columns that these results can fill, from left to right."""
    metric = results.metric
    found = [
        Column("row", lambda row: row.name),
        *_cost_columns(results),
        Column("seeds", _seeds),
        Column(metric.column, lambda row: mean_and_sd(row.score, metric), metric.group),
        Column("95 % interval", lambda row: interval(row.score, metric), metric.group),
    ]
    if results.shows_top5:
        found.append(Column("top-5", lambda row: mean_and_sd(row.top5), ACCURACY))
    if results.scatters:  # where seeds do, a mean says less
        found += _scatter_columns(results)
    if any(row.tuned and "lr" in row.tuned for row in results.rows):
        found.insert(found.index(_named(found, "seeds")), Column("tuned lr", _tuned_rate))
    if any(row.best_top1 for row in results.rows):
        found.append(Column("top-1, best test epoch (optimistic)", _best, ACCURACY))
    if any(row.zeros_percent for row in results.rows):
        found.append(Column("zeros after the last block (%)", _zeros))
    if results.comparisons:
        assert results.baseline is not None  # what the comparisons are with
        heading = metric.minus(results.baseline)
        found.append(Column(heading, lambda row: difference(row, results.baseline)))
        found.append(
            Column("verdict", lambda row: verdict(results, row), look=_look_of(results), left=True)
        )
    if why := results.dominated:
        found.append(Column("dominated", lambda row: why.get(row.name, ABSENT), left=True))
    return tuple(found)


def _scatter_columns(results: StudyResults) -> list[Column]:
    metric = results.metric
    return [
        Column(f"{metric.title}, median", _median, metric.group),
        Column(f"{metric.title}, worst seed", _worst, metric.group),
    ]


def scatter_table(results: StudyResults) -> Table | None:
    """Return the table of medians and worst seeds; None where seeds of all rows scatter alike."""
    if not results.scatters:
        return None
    shown = (Column("row", lambda row: row.name), *_scatter_columns(results))
    return Table("scatter", "Medians and worst seeds", shown, results.rows)


def _cost_columns(results: StudyResults) -> list[Column]:
    """Return the columns of what rows cost, as far as anybody counted it."""
    rows, found = results.rows, list[Column]()
    sizes = {row.input_size for row in rows if row.macs is not None}
    if sizes:
        one = None if len(sizes) > 1 else next(iter(sizes))
        at = f" at {square(one)}" if one else ""
        found.append(Column(f"MACs (G){at}", lambda row: _in(row.macs, 1e9), COST))
        if len(sizes) > 1:
            size = Column("counted at", lambda row: square(row.input_size or 0), COST)
            found.append(size)
    if any(row.params is not None for row in rows):
        found.append(Column("params (M)", lambda row: _in(row.params, 1e6), COST))
    for name in dict.fromkeys(name for row in rows for name in row.costs):
        found.append(Column(name, _other_cost(name), COST))
    return found


def _in(count: float | None, unit: float) -> str:
    return ABSENT if count is None else counted(count / unit)


def _other_cost(name: str) -> Callable[[RowResult], str]:
    def cell(row: RowResult) -> str:
        value = row.costs.get(name)
        if value is None:
            return ABSENT
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"

    return cell


def _verdict_columns(results: StudyResults) -> tuple[Column, ...]:
    compared = results.comparisons
    unit = results.metric.difference_unit or "difference"
    points = f" ({results.metric.difference_unit})" if results.metric.difference_unit else ""
    found = [
        Column("row", lambda row: row.name),
        Column("seeds", _compared_seeds),
        Column(f"{unit} [95 % interval of all]", lambda row: difference(row, results.baseline)),
        Column("p", lambda row: chance(compared[row.name].p)),
        Column("p, uncorrected", _alone),
        Column(f"expected when trained again{points}", _expected_gain(results)),
        Column("the best of all: probability", _probability_best(results)),
        Column("verdict", lambda row: verdict(results, row), look=_look_of(results), left=True),
        Column("because", lambda row: compared[row.name].reason or ABSENT, left=True),
    ]
    if not any(one.reason for one in compared.values()):
        found.pop()
    return tuple(found)


def _compared_seeds(row: RowResult) -> str:
    gap = row.difference
    return ABSENT if gap is None else f"{gap.n} and {gap.n_baseline}"


def _expected_gain(results: StudyResults) -> Callable[[RowResult], str]:
    def shown(row: RowResult) -> str:
        one = results.expected.get(row.name)
        return ABSENT if one is None or one.gain is None else signed(one.gain, results.metric)

    return shown


def _probability_best(results: StudyResults) -> Callable[[RowResult], str]:
    def shown(row: RowResult) -> str:
        one = results.expected.get(row.name)
        return ABSENT if one is None else f"{one.probability_best:.2f}"

    return shown


def _alone(row: RowResult) -> str:
    return chance(row.difference.p_alone if row.difference else None)


def _uncertainty_columns(results: StudyResults) -> tuple[Column, ...]:
    top1 = "top-1 (%), 95 % interval"
    found = [
        Column("row", lambda row: row.name),
        Column("other seeds", lambda row: interval(row.top1), top1),
        Column("other test images", lambda row: interval(row.over_images), top1),
    ]
    if any(row.difference_over_images for row in results.rows):
        held = _held(results)
        gap = f"top-1 minus {results.baseline} (points), 95 % {held}"
        found += [
            Column("other seeds", lambda row: signed_interval(row.difference), gap),
            Column(
                "other test images", lambda row: signed_interval(row.difference_over_images), gap
            ),
            Column("both", lambda row: _both(row), gap),
        ]
    return tuple(found)


def _held(results: StudyResults) -> str:
    rows = {row.at_once for row in results.rows if row.name != results.baseline}
    if rows == {1}:
        return "interval"
    if results.held_for == AT_ONCE:
        return f"intervals for all {rows.pop()} rows at once"
    return f"intervals for {results.held_for}"


def verdict(results: StudyResults, row: RowResult) -> str:
    """Show the word for a row, and what one that is as good costs; the baseline has none."""
    comparison = results.comparisons.get(row.name)
    return ABSENT if comparison is None else results.verdicts[row.name]


def _seeds(row: RowResult) -> str:
    finished, planned = len(row.finished), len(row.planned_seeds)
    count = str(finished) if finished == planned else f"{finished} of {planned}"
    return f"{count}, {len(row.diverged)} diverged" if row.diverged else count


def _median(row: RowResult) -> str:
    return plain(row.score.median if row.score else None, row.metric)


def _worst(row: RowResult) -> str:
    worst = min(row.score.values, key=row.metric.rank) if row.score else None
    return plain(worst, row.metric)


def _best(row: RowResult) -> str:
    return mean_and_sd(row.best_top1)


def _named(found: Sequence[Column], heading: str) -> Column:
    return next(column for column in found if column.heading == heading)


def _tuned_rate(row: RowResult) -> str:
    return f"{row.tuned['lr']:g}" if row.tuned and "lr" in row.tuned else ABSENT


def _zeros(row: RowResult) -> str:
    return ABSENT if row.zeros_percent is None else mean_and_sd(row.zeros_percent)


def _look_of(results: StudyResults) -> Callable[[RowResult], str]:
    words = {name: one.word for name, one in results.comparisons.items()}
    return lambda row: VERDICT_LOOKS.get(words.get(row.name, ""), "open")


def _both(row: RowResult) -> str:
    gap = row.difference_over_images
    return ABSENT if gap is None else signed_ends(gap.both_low, gap.both_high)
