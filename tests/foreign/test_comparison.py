"""Runs from elsewhere as results: the metric, what is mixed up, costs, notes, tables and claims."""

import csv as csv_format
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from statistics import stdev

import pytest
from statsmodels.stats.power import TTestIndPower

from blocklab.errors import InputError
from blocklab.foreign.comparison import compare_runs
from blocklab.foreign.costs import RowCosts, sorted_costs
from blocklab.foreign.foreign_run import ForeignRun, ForeignRuns, Wanted, counted_by
from blocklab.foreign.metric import Asked
from blocklab.foreign.runs import read_runs
from blocklab.report.figures import figures
from blocklab.report.page import html
from blocklab.report.table_files import csv, latex, markdown_of_all
from blocklab.report.tables import main_table, tables
from blocklab.results.study_results import StudyResults

pytestmark = pytest.mark.usefixtures("undrawn")

TOP1 = {
    "plain": [76.1, 76.4, 76.2, 76.3],
    "se": [77.1, 77.5, 77.2, 77.4],
    "eca": [76.4, 75.9, 76.6, 76.1],
}
LOSS = {"plain": [0.921, 0.924, 0.919], "se": [0.801, 0.799, 0.804], "eca": [1.102, 1.09, 1.11]}


def runs_of(
    values: dict[str, list[float]], metric: str = "top1", first_seed: int = 0
) -> ForeignRuns:
    runs = [
        ForeignRun(row, seed, f"{row}, line {seed}", ((None, value),))
        for row, of_row in values.items()
        for seed, value in enumerate(of_row, first_seed)
    ]
    return ForeignRuns(tuple(runs), metric, "results.csv")


def words(results: StudyResults) -> dict[str, str]:
    return {name: one.word for name, one in results.comparisons.items()}


def test_a_percentage_is_compared_as_top1_is() -> None:
    results = compare_runs(runs_of(TOP1), Asked(claims=("se > plain by 0.5", "eca == plain")))
    assert words(results) == {"se": "better", "eca": "no difference shown"}
    assert [row.name for row in results.rows if row.baseline is None] == ["plain"]
    table = main_table(results)
    assert table.headings == [
        *("row", "seeds", "top1 (%)", "95 % interval", "top1, median", "top1, worst seed"),
        *("top1 minus plain (points)", "verdict"),
    ]
    assert table.texts[1][:3] == ["se", "4", "77.30 \u00b1 0.18"]
    assert [one.word for one in results.judgements] == ["supported", "supported"]
    assert "points, 4 seeds" in results.judgements[0].numbers


def test_lower_is_better_turns_verdicts_and_the_best_around() -> None:
    results = compare_runs(runs_of(LOSS, "val_loss"), Asked(claims=("se best of all",)))
    assert words(results) == {"se": "better", "eca": "worse"}
    assert results.judgements[0].word == "supported"
    page = html(results)
    assert "lowest mean val_loss" in page and "lower is better" in page
    told = compare_runs(runs_of(LOSS, "val_loss"), Asked(higher_is_better=True))
    assert words(told) == {"se": "worse", "eca": "better"}
    # A name that says nothing: higher is better.
    assert words(compare_runs(runs_of(LOSS, "score"))) == {"se": "worse", "eca": "better"}


@pytest.mark.parametrize(
    ("metric", "lower"),
    [
        *(
            ("answer_accuracy", False),
            ("accel_ms", True),
            ("fidelity", False),
            ("terrain_acc", False),
            ("lifetime", False),
        ),
        *(
            ("WER", True),
            ("val_err", True),
            ("valErr", True),
            ("top1err", True),
            ("test_loss", True),
        ),
        *(("RMSE", True), ("error_rate", True), ("wall_time", True), ("runtime", True)),
        *(("val_cross_entropy", True), ("categoricalCrossentropy", True), ("val_ce", True)),
        *(("mape", True), ("eer", True), ("bpd", True), ("train_seconds", True), ("step_ms", True)),
        *(("peak_memory_mb", True), ("gpu_hours", True), ("misclassified", True)),
        *(("mae_top1", False), ("wer_acc", False), ("lossless_f1", False), ("surface", False)),
    ],
)
def test_less_is_better_where_a_word_of_the_name_says_so(metric: str, lower: bool) -> None:
    halves = {row: [value / 2 for value in of_row] for row, of_row in LOSS.items()}  # no percentage
    results = compare_runs(runs_of(halves, metric))
    assert words(results)["se"] == ("better" if lower else "worse")


def test_decimals_follow_the_spread_of_seeds_and_no_bound_cuts() -> None:
    results = compare_runs(runs_of(LOSS, "val_loss"), Asked(unit="nats"))
    texts = {row[0]: row for row in main_table(results).texts}
    assert texts["se"][2:7] == [
        "0.8013 \u00b1 0.0025",
        "[0.7951, 0.8076]",
        *("0.8010", "0.8040"),
        "\u22120.1200 [\u22120.1432, \u22120.0968]",
    ]
    assert main_table(results).headings[6] == "val_loss minus plain (nats)"
    assert results.metric.gain == 0.009  # a hundredth of the baseline's, to one digit
    wide = compare_runs(runs_of({"a": [1.0, 9000.0], "b": [2.0, 5.0]}, "score"))
    low = wide.rows[0].score.low if wide.rows[0].score else None
    assert low is not None and low < 0


ERRORS = {"plain": [0.45, 0.52, 0.48], "se": [0.40, 0.41, 0.46]}


@pytest.mark.parametrize(
    ("percent", "unit", "shown"), [(True, None, "%"), (False, "%", "%"), (False, None, "")]
)
def test_an_error_below_one_is_not_taken_for_a_fraction(
    percent: bool, unit: str | None, shown: str
) -> None:
    """MNIST's are: 0.45 % would read 45 %."""
    found = replace(runs_of(ERRORS, "top-1 error"), signed="all" if percent else "none")
    results = compare_runs(found, Asked(unit=unit))
    assert results.rows[0].score and results.rows[0].score.mean == pytest.approx(29 / 60)
    assert results.metric.unit == shown
    assert any("below 1 and shown as it was given" in one for one in results.notes) != bool(shown)


def test_a_percent_sign_speaks_for_no_figure_without_one(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("row,seed,acc\na,0,77.1%\na,1,77.3%\nb,0,0.78\nb,1,78.1%\n")
    with pytest.raises(InputError, match="percentages and fractions are mixed"):
        compare_runs(read_runs([table], Wanted(metric="acc")))
    for metric, other in (("score", 0.771), ("score", "0.5%"), ("val_err", 0.23), ("val_err", 0.3)):
        first = "23.5%" if other != "0.5%" else "0.4"
        table.write_text(f"row,seed,{metric}\na,0,{first}\na,1,{first}\nb,0,{other}\nb,1,{other}\n")
        with pytest.raises(InputError, match="percentages and fractions are mixed"):
            compare_runs(read_runs([table], Wanted(metric=metric)))
    table.write_text("row,seed,acc\na,0,0.71%\na,1,0.73%\nb,0,0.78%\nb,1,0.8%\n")
    results = compare_runs(read_runs([table], Wanted(metric="acc")))
    assert results.rows[0].score and results.rows[0].score.mean == pytest.approx(0.72)


def test_errors_of_two_scales_are_refused() -> None:
    mixed = {"plain": [23.9, 23.7, 24.0], "se": [0.231, 0.229, 0.232]}
    with pytest.raises(InputError, match=r"seem mixed \(0.232 in se, 23.7 in plain\); write all"):
        compare_runs(runs_of(mixed, "val_error"))
    assert compare_runs(runs_of(mixed, "val_error"), Asked(unit="m")).metric.unit == "m"
    near = {"plain": [1.3, 1.2, 1.25], "se": [0.9, 0.95, 1.0]}  # percent, of digits
    assert not compare_runs(runs_of(near, "val_error")).metric.unit
    for other in ("loss", "reconstruction_error", "mean_abs_error"):
        assert not compare_runs(runs_of(mixed, other)).metric.unit


def test_a_gain_is_of_what_is_better() -> None:
    values = {"plain": [8.0, 8.1, 8.05], "se": [7.5, 7.55, 7.6], "eca": [7.9, 7.95, 7.85]}
    asked = Asked(claims=("gain(se) > gain(eca)", "gain(se) > 2 * gain(eca)"))
    for judgement in compare_runs(runs_of(values, "val_err"), asked).judgements:
        assert judgement.word == "supported" and judgement.numbers.startswith("+")


def test_fractions_become_percent_and_a_mixture_is_refused() -> None:
    shares = {row: [value / 100 for value in values] for row, values in TOP1.items()}
    results = compare_runs(runs_of(shares, "metrics/accuracy_top1"))
    assert results.rows[1].score and results.rows[1].score.mean == pytest.approx(77.3)
    (said,) = (note for note in results.notes if "was given in fractions" in note)
    assert said.endswith("--gain and the margins of claims are in points")
    mixed = runs_of(TOP1 | {"eca": shares["eca"]})
    with pytest.raises(InputError, match=r"percentages and fractions are mixed \(0.764 in eca"):
        compare_runs(mixed)
    # One per cent among others can be: a network that never learned a hundred classes.
    assert compare_runs(mixed, Asked(unit="%")).rows[2].score
    with pytest.raises(InputError, match=r"--unit %, and no top1 is above 1"):
        compare_runs(runs_of(shares), Asked(unit="%"))
    with pytest.raises(InputError, match=r"line 1: top1 is 101, which is no percentage"):
        compare_runs(runs_of({"a": [100.0, 101.0]}), Asked(unit="%"))
    # Without a unit it only sounds like a share, which is said.
    outside = compare_runs(runs_of({"a": [0.8, 1.0], "b": [150.0, 160.0]}))
    assert not outside.metric.unit
    assert any("top1 is not taken for a percentage" in note for note in outside.notes)
    assert not any("percentage" in note for note in results.notes)
    # Of a loss both sides of 1 are what they are.
    assert not compare_runs(runs_of({"a": [0.9, 1.1]}, "loss")).metric.unit


def test_a_run_that_diverged_or_has_no_figure_is_named_and_not_averaged() -> None:
    found = runs_of({"plain": [76.0, 76.2], "se": [77.0, math.nan]})
    lost = ForeignRun("se", 2, "line 9", trouble="no top1 in line 9")
    results = compare_runs(replace(found, runs=(*found.runs, lost)))
    row = results.rows[1]
    assert row.score and row.score.values == (77.0,)
    assert results.troubles == (
        ("se", "seed 2: no top1 in line 9"),
        ("se", "seed 1 diverged (run se, line 1)"),
        ("se", "no result from seed 2"),
    )


def test_runs_that_end_early_are_said_and_rows_that_trained_longer() -> None:
    def run(row: str, seed: int, epochs: int) -> ForeignRun:
        figures = tuple((float(epoch), 50.0 + epoch + seed / 10) for epoch in range(1, epochs + 1))
        return ForeignRun(row, seed, f"{row}{seed}", figures)

    runs = [run("plain", seed, 10) for seed in range(3)]
    runs += [run("se", seed, epochs) for seed, epochs in enumerate((10, 10, 3))]
    notes = compare_runs(ForeignRuns(tuple(runs), "top1", "x")).notes
    said = "runs of se end earlier than its last at epoch 10 (seed 2 at epoch 3) and count as"
    assert any(note.startswith(said) for note in notes)
    assert not any("equally long" in note for note in notes)
    long = [run("big", seed, 100) for seed in range(3)]
    notes = compare_runs(ForeignRuns((*runs[:3], *long), "top1", "x")).notes
    assert "rows were not trained equally long: to epoch plain 10, big 100" in notes
    same = compare_runs(ForeignRuns(tuple(runs[:3]), "top1", "x")).notes
    assert not any("epoch" in note for note in same)


def test_a_nan_that_was_written_as_nothing_is_one_where_others_have_a_figure(
    tmp_path: Path,
) -> None:
    """An empty cell of a table, and null in lines; not of an epoch that nobody measured."""
    lines = []
    for row in ("plain", "se"):
        for seed in range(3):
            for epoch in range(1, 5):
                lost = row == "se" and seed == 2 and epoch > 2
                value = "" if lost or epoch == 4 else f"{70 + epoch + seed / 10}"
                lines.append(f"{row},{seed},{epoch},{value}")
    (tmp_path / "r.csv").write_text("model,seed,epoch,top1\n" + "\n".join(lines) + "\n")
    wanted = Wanted(metric="top1", row="model", epoch="epoch")
    results = compare_runs(read_runs([tmp_path / "r.csv"], wanted))
    rows = {row.name: row for row in results.rows}
    assert len(rows["plain"].finished) == 3 and len(rows["se"].finished) == 2
    assert [run.seed for run in rows["se"].diverged] == [2]


def test_one_seed_and_other_seeds_than_the_baselines_are_said() -> None:
    results = compare_runs(runs_of({"plain": [76.0], "se": [77.0]}))
    assert words(results) == {"se": "too few seeds"}
    assert results.advice == (
        "one more seed of plain, se, to see how much seeds differ; three in all are a sensible "
        "start",
    )
    others = runs_of({"se": [77.0, 77.1]}, first_seed=5)
    here = runs_of({"plain": [76.0, 76.1]})
    results = compare_runs(replace(here, runs=here.runs + others.runs))
    assert results.notes == ("se has other seeds (5, 6) than the baseline (0, 1)",)


def test_advice_says_how_many_seeds_would_show_the_gain() -> None:
    results = compare_runs(runs_of(TOP1), Asked(gain=0.3))
    assert results.planning and results.planning.seeds_among_all
    more = results.planning.seeds_among_all - 4
    assert more > 0
    (line,) = results.advice
    assert line.endswith(
        "of eca, and of the baseline, would show a difference of 0.3 points four times in five"
    )
    enough = compare_runs(runs_of(TOP1), Asked(gain=30.0)).advice
    assert enough == (
        "eca: a difference of 30 points would have been shown four times in five; more seeds look "
        "for a smaller one",
    )


def test_advice_on_uneven_rows_goes_by_the_spreads_of_those_it_names() -> None:
    plain, calm = [70.2, 69.9, 70.4, 69.6, 70.1], [70.0, 70.3, 69.7, 70.5, 70.2]
    wild = [95.0, 81.0, 89.0, 99.0, 77.0]
    results = compare_runs(
        runs_of(
            {"plain": plain, "calm": calm, "wild": wild, "other": [60.0, 63.0, 57.0, 62.0, 58.0]}
        ),
        Asked(gain=0.3),
    )
    assert words(results) == {"calm": "no difference shown", "wild": "better", "other": "worse"}
    assert results.family.method == "own" and results.planning
    sd = math.sqrt((stdev(plain) ** 2 + stdev(calm) ** 2) / 2)
    gain = results.metric.gain / sd
    solved = TTestIndPower().solve_power(gain, power=0.8, alpha=0.05 / 3)
    (line,) = results.advice
    calm_needs = math.ceil(solved) - 5
    assert line.startswith(f"{calm_needs} more seeds of calm, and of the baseline, ")
    assert results.planning.seeds_among_all and results.planning.seeds_among_all > 5 * solved
    # A wilder row in doubt does not speak for the calm one.
    rows = {"plain": plain, "calm": calm, "wild": [68.0, 72.4, 65.1, 75.0, 69.9], "other": wild}
    results = compare_runs(runs_of(rows), Asked(gain=0.3))
    (line,) = results.advice
    number = re.match(r"(\d+) more seeds of calm; ([\d,]+) of wild, and \2 of the base", line)
    assert number and int(number[1]) == calm_needs
    assert int(number[2].replace(",", "")) > 50 * calm_needs


def test_few_uneven_seeds_are_not_called_enough() -> None:
    rows = {"plain": [70.0, 70.05, 70.1], "calm": [70.02, 70.07, 70.12], "wild": [65.0, 75.0, 70.0]}
    results = compare_runs(runs_of(rows))
    assert results.family.method == "uneven" and words(results)["calm"] == "no difference shown"
    gap = results.comparisons["calm"].difference
    assert gap and gap.high and gap.high > 5  # half a point could not have been shown
    assert results.advice[0].startswith("two more seeds of calm; ")  # five, judged by their own


def test_advice_names_a_baseline_of_two_seeds_where_three_are_needed() -> None:
    rows = {"plain": [70.0, 70.1], "a": [70.0, 95.0, 60.0], "b": [71.0, 71.1, 71.2]}
    results = compare_runs(runs_of(rows))
    assert set(words(results).values()) == {"too few seeds"}
    assert results.advice[0].startswith("one more seed of plain, to see how much seeds differ; ")
    one = compare_runs(runs_of({"plain": [70.0], "a": [70.0, 71.0]}))
    assert one.advice[0].startswith("one more seed of plain, to see")


def test_even_rows_beside_one_apart_are_counted_by_the_spread_that_judges_them() -> None:
    scatter = [(0.0, 0.4, -0.4), (0.3, -0.2, 0.0), (-0.5, 0.2, 0.3), (0.1, 0.1, -0.3)]
    rows = {"plain": [70.2, 69.9, 70.4]} | {
        name: [70.1 + gap for gap in gaps] for name, gaps in zip("abcd", scatter, strict=True)
    }
    results = compare_runs(runs_of({**rows, "wild": [95.0, 40.0, 70.0]}), Asked(gain=0.3))
    assert results.family.apart == ("wild",) and results.planning
    assert results.planning.stretch != 1
    needed = results.planning.seeds_among_all
    assert needed and results.advice == (
        "wild: judged by its own spread once it and the baseline have five seeds",
        f"{needed - 3} more seeds of a, b, c, d, and of the baseline, would show a difference of "
        "0.3 points four times in five",
    )


def test_the_last_epoch_counts_unless_the_best_is_asked_for() -> None:
    curve = ((0.0, 70.0), (1.0, 78.0), (2.0, 76.0))
    found = ForeignRuns(
        tuple(ForeignRun("plain", seed, f"line {seed}", curve) for seed in (0, 1)), "top1", "logs"
    )
    last = compare_runs(found)
    assert last.rows[0].score and last.rows[0].score.mean == 76.0
    assert [line["top1"] for line in last.runs[0][1].log] == [70.0, 78.0, 76.0]
    assert last.rows[0].runs[0].epochs == 3
    assert "best" not in " ".join(main_table(last).headings)
    best = compare_runs(found, Asked(best_epoch=True))
    assert best.rows[0].score and best.rows[0].score.mean == 78.0
    assert main_table(best).headings[2] == "top1 of the best epoch (optimistic) (%)"
    assert "they chose the epoch, and the figure is optimistic" in html(best)
    lowest = compare_runs(replace(found, metric="loss"), Asked(best_epoch=True))
    assert lowest.rows[0].score and lowest.rows[0].score.mean == 70.0
    with pytest.raises(InputError, match="there is no epoch to choose"):
        compare_runs(runs_of(TOP1), Asked(best_epoch=True))


def test_what_is_not_there_is_refused_with_what_is() -> None:
    with pytest.raises(InputError, match=r"no row 'plan' to be the baseline; did you mean 'plain'"):
        compare_runs(runs_of(TOP1), Asked(baseline="plan"))
    with pytest.raises(InputError, match="names no row 'sse'"):
        compare_runs(runs_of(TOP1), Asked(claims=("sse > plain",)))
    with pytest.raises(InputError, match=r"has no metric 'top5'.* Metrics: top1, macs, params"):
        compare_runs(runs_of(TOP1), Asked(claims=("se > plain in top5",)))
    with pytest.raises(InputError, match="add 'within' and a margin"):
        compare_runs(runs_of(LOSS, "loss"), Asked(claims=("se == plain",)))


def test_costs_are_told_by_their_names_and_nothing_is_a_column_of_dashes() -> None:
    costs = sorted_costs(
        {"plain": {"macs_g": 4.1, "params": 25e6, "ms": 3.5}, "se": {"macs_g": 4.2, "ms": 4.0}}, "c"
    )
    assert costs["plain"] == RowCosts(4_100_000_000, 25_000_000, {"ms": 3.5})
    claims = ("plain < se in macs", "eca < se in macs")
    results = compare_runs(runs_of(TOP1), Asked(claims=claims), costs)
    assert main_table(results).headings[:4] == ["row", "MACs (G)", "params (M)", "ms"]
    assert [line[1:4] for line in main_table(results).texts] == [
        *(["4.100", "25.000", "3.5"], ["4.200", "\u2013", "4"], ["\u2013", "\u2013", "\u2013"])
    ]
    first, second = results.judgements
    assert first.word == "supported"
    assert (second.word, second.numbers) == ("undecided", "the macs of eca are not known")
    for plain in (main_table(compare_runs(runs_of(TOP1))), *tables(compare_runs(runs_of(TOP1)))):
        for column in zip(*plain.texts, strict=True):
            assert any(text != "\u2013" for text in column)
    with pytest.raises(
        InputError, match=r"'params' are plain counts, and the largest is 25.6; call"
    ):
        sorted_costs({"plain": {"params": 25.6}}, "costs.csv")
    # timm counts param_count in millions, others count parameters under that name.
    assert sorted_costs({"plain": {"param_count": 25.6}}, "c")["plain"].params == 25_600_000
    assert sorted_costs({"plain": {"param_count": 11220132}}, "c")["plain"].params == 11_220_132


def test_a_notebook_shows_the_figure_that_rows_are_compared_by() -> None:
    told = compare_runs(runs_of(LOSS, "val_loss"))._repr_html_()
    assert "val_loss" in told and "top-1" not in told and "points" not in told
    found = compare_runs(runs_of(LOSS, "val_loss")).rows[1]
    assert found.score and found.difference
    decimals = found.metric.decimals
    assert f"{found.score.mean:.{decimals}f}" in told
    assert f"{found.difference.mean:+.{decimals}f}" in told and decimals > 2


def test_small_figures_and_costs_keep_their_digits_in_the_table() -> None:
    small = {"plain": [0.00120, 0.00125, 0.00123], "se": [0.00109, 0.00111, 0.00110]}
    costs = sorted_costs({"plain": {"kwh": 0.000414}, "se": {"kwh": 0.000512}}, "c")
    results = compare_runs(runs_of(small, "mse"), Asked(), costs)
    _, se = csv_format.DictReader(io.StringIO(csv(results)))
    assert float(se["kwh"]) == 0.000512
    assert float(se["expected_mse"]) == pytest.approx(0.0011, rel=0.01)
    assert float(se["expected_gain_mse"]) == pytest.approx(-0.000127, rel=0.05)


def test_files_of_tables_name_the_metric_and_have_no_empty_columns() -> None:
    results = compare_runs(runs_of(LOSS, "val_loss"), Asked(), {"se": RowCosts(None, 9, {"ms": 4})})
    head, *lines = csv(results).splitlines()
    names = head.split(",")
    assert "val_loss_mean" in names and "difference_val_loss_mean" in names and "ms" in names
    assert not [name for name in names if "top1" in name]
    assert len(lines) == 3 and ",0.8013," in lines[1]
    told = markdown_of_all(results, tables(results)) + latex(main_table(results))
    assert "top-1" not in told and "points" not in told
    frame = results.to_frame()
    assert list(frame["val_loss"]) == [v for values in LOSS.values() for v in values]
    assert results.summary_frame()["val_loss_sd"].notna().all()


@pytest.mark.parametrize("metric", ["val_loss", "top1"])
def test_the_page_of_runs_from_elsewhere_says_where_they_are_from(metric: str) -> None:
    results = compare_runs(runs_of(LOSS if metric == "val_loss" else TOP1, metric))
    page = html(results)
    assert "trained elsewhere: results.csv; the baseline is plain" in page
    for ours in ("Recipe and data", "training (s)", "Multiply-accumulate", "top-5"):
        assert ours not in page
    assert not [figure for figure in figures(results) if "learning_rate" in figure.name]
    assert f"{metric} minus plain" in page


def test_figures_by_step_are_not_called_epochs() -> None:
    curve = ((10.0, 60.0), (500.0, 76.0))
    runs = tuple(
        ForeignRun(row, seed, f"{row}{seed}", curve) for row in ("a", "b") for seed in (0, 1)
    )
    by_step = compare_runs(ForeignRuns(runs, "acc", "events", by="step"))
    by_epoch = compare_runs(ForeignRuns(runs, "acc", "events"))
    assert [run.epochs for _, run in by_step.runs] == [None] * 4
    assert [run.epochs for _, run in by_epoch.runs] == [500] * 4
    for results, axis in ((by_step, "Step"), (by_epoch, "Epoch")):
        (drawn,) = (one for one in figures(results) if "over_epochs" in one.name)
        assert f'"title": "{axis}"' in json.dumps(drawn.specification)
        assert drawn.title == f"acc by {axis.lower()}"
        page = html(results)
        assert f"Each run stands at its last {axis.lower()}" in page
        assert ("Curves over epochs" in page) is (axis == "Epoch")
    best = compare_runs(ForeignRuns(runs, "acc", "events", by="step"), Asked(best_epoch=True))
    assert best.metric.title == "acc of the best step (optimistic)"


def test_a_row_of_two_networks_has_no_mean_of_their_parameters() -> None:
    runs = tuple(
        ForeignRun(
            *(row, seed, f"{row}{seed}", ((None, 76.0),)),
            {"params": count, "total_flops": 2.0 * count, "seconds": 9.0 + seed},
        )
        for row, counts in (("one", (11174000, 11174000)), ("two", (11174000, 11173999)))
        for seed, count in enumerate(counts)
    )
    results = compare_runs(ForeignRuns(runs, "acc", "results.csv"))
    assert [row.params for row in results.rows] == [11174000, None]
    one, two = (dict(row.costs) for row in results.rows)
    assert one == {"seconds": 9.5, "total_flops": 22348000.0} and two == {"seconds": 9.5}
    assert results.notes == tuple(
        f"the runs of two have 2 different {name}, from {low} to {high}: they are of several "
        f"networks, and it has no {name} here"
        for name, low, high in (
            ("params", "11,173,999", "11,174,000"),
            ("total_flops", "22,347,998", "22,348,000"),
        )
    )


@pytest.mark.parametrize(
    ("column", "by"),
    [
        *((None, "epoch"), ("epoch", "epoch"), ("Epochs", "epoch"), ("step", "step")),
        *(("global_step", "step"), ("iteration", "step"), ("train/iter", "step")),
        *(("criterion", "criterion"), ("samples", "samples")),
    ],
)
def test_what_figures_are_counted_by_is_what_the_column_says(column: str | None, by: str) -> None:
    assert counted_by(column) == by
