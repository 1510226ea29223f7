"""The table to the letter in each format, and text that tries to be more than text."""

import csv as csv_format
import io
from collections.abc import Callable
from dataclasses import replace

import pytest

from blocklab.measure.amounts import counted
from blocklab.report.cell_text import chance, interval, signed, signed_ends, signed_interval
from blocklab.report.columns import Table
from blocklab.report.figures import figures
from blocklab.report.page import html
from blocklab.report.reported_columns import explanation
from blocklab.report.table_files import csv, csv_text, markdown_of_all
from blocklab.report.table_files import latex as latex_of
from blocklab.report.table_files import markdown as markdown_of
from blocklab.report.tables import columns, main_table, tables
from blocklab.results.ended_run import EndedRun
from blocklab.results.study_results import StudyResults
from blocklab.study.reported import CostAt, Reported

MakeResults = Callable[..., StudyResults]


def markdown(results: StudyResults) -> str:
    return markdown_of(tables(results)[0])


def latex(results: StudyResults) -> str:
    return latex_of(tables(results)[0])


def of_five_classes(run: EndedRun) -> EndedRun:
    return replace(run, run=run.run | {"class_names": [*"abcde"]})


def named(results: StudyResults, name: str) -> Table:
    return next(table for table in tables(results) if table.name == name)


def cells(table: Table, row: str) -> dict[str, str]:
    one = next(one for one in table.rows if one.name == row)
    return {column.full_heading: column.text(one) for column in table.columns}


def test_markdown_to_the_letter(make_results: MakeResults) -> None:
    results = make_results({"res2net50": [46.0, 47.0, 48.0], "cCD_ST": [60.0, 61.0, "missing"]})
    assert markdown(results) == (
        "| row | MACs (G) at 224\u00d7224 | params (M) | seeds | top-1 | 95 % interval | top-5 "
        "| top-1 minus res2net50 (points) | verdict |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| res2net50 | 2.500 | 16.360 | 3 | 47.00 \u00b1 1.00 | [44.52, 49.48] "
        "| 72.00 \u00b1 1.00 | baseline | \u2013 |\n"
        "| cCD_ST | 2.650 | 16.371 | 2 of 3 | 60.50 \u00b1 0.71 | [54.15, 66.85] "
        "| 85.50 \u00b1 0.71 | +13.50 [+10.85, +16.15] | better |\n"
    )


def test_latex_to_the_letter(make_results: MakeResults) -> None:
    results = make_results({"a_b": [46.0, 47.0], "50% & {more}": [45.0, 46.5]})
    assert latex(results) == (
        "% needs \\usepackage{booktabs}\n"
        "\\begin{tabular}{lrrrrrrrr}\n"
        "\\toprule\n"
        "row & MACs (G) at 224$\\times$224 & params (M) & seeds & top-1 & 95 \\% interval & top-5 "
        "& top-1 minus a\\_b (points) & verdict \\\\\n"
        "\\midrule\n"
        "a\\_b & 2.500 & 16.360 & 2 & 46.50 $\\pm$ 0.71 & [40.15, 52.85] & 71.50 $\\pm$ 0.71 "
        "& baseline & -- \\\\\n"
        "50\\% \\& \\{more\\} & 2.650 & 16.371 & 2 & 45.75 $\\pm$ 1.06 & [36.22, 55.28] "
        "& 70.75 $\\pm$ 1.06 & $-$0.75 [$-$4.63, +3.13] & no difference shown \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
    )


def test_latex_escapes_every_special_character(make_results: MakeResults) -> None:
    text = latex(make_results({"\\ ~ ^ # $ < > |": [1.0], "[x]": [1.0], "*": [1.0]}))
    assert (
        "\\textbackslash{} \\textasciitilde{} \\textasciicircum{} \\# \\$ "
        "\\textless{} \\textgreater{} \\textbar{} & 2.500"
    ) in text
    # after \\ a bracket or a star would be an option of it
    assert "\n{}[x] &" in text
    assert "\n{}* &" in text


def test_control_characters_are_written_out_in_files(make_results: MakeResults) -> None:
    results = make_results({"a": [46.0]}, notes=("1 \u202e2\x07",))
    results = replace(results, rows=(replace(results.rows[0], name="1 \u202e2\x07"),))
    assert latex(results).count("1 \\textbackslash{}u202e2\\textbackslash{}x07") == 1
    whole = markdown_of_all(results, tables(results))
    assert whole.count("1 \\\\u202e2\\\\x07") == 2


def test_markdown_keeps_a_cell_a_cell(make_results: MakeResults) -> None:
    text = markdown(make_results({"a|b\nc": [1.0], "<b>*x* _y_ [l](u)": [1.0]}))
    lines = text.splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| a\\|b c | ")
    assert lines[3].startswith("| &lt;b>\\*x\\* \\_y\\_ [l]\\(u) | ")


def test_one_seed_has_no_spread(make_results: MakeResults) -> None:
    last = markdown(make_results({"base": [46.0], "other": [46.5]})).splitlines()[-1]
    assert last == "| other | 2.650 | 16.371 | 1 | 46.50 | \u2013 | 71.50 | +0.50 | too few seeds |"


def test_no_finished_run_is_dashes(make_results: MakeResults) -> None:
    last = markdown(make_results({"base": ["missing"], "other": ["missing"]})).splitlines()[-1]
    assert last == "| other | 2.650 | 16.371 | 0 of 1 " + "| \u2013 " * 4 + "| too few seeds |"


def test_optimistic_column_is_there_when_there_is_something(make_results: MakeResults) -> None:
    plain = make_results({"base": [46.0]})
    headings = [column.full_heading for column in columns(plain)]
    assert not [heading for heading in headings if "reported" in heading or "optim" in heading]
    assert [table.name for table in tables(plain)] == ["table"]
    rich = make_results({"first": [46.0], "second": [47.0]}, reads_test_set=True)
    shown = cells(tables(rich)[0], "first")
    assert shown["top-1, best test epoch (optimistic)"] == "46.75"


def test_tuned_rates_and_dead_neurons_have_columns_when_there_are_some(
    make_results: MakeResults,
) -> None:
    results = make_results(
        {"base": [46.0], "other": [47.0]}, rows_with={"other": {"tuned": {"lr": 0.05}}}
    )
    base, other = results.rows
    diagnosis = {"last_block": {"zero_percent": 81.5}}
    diagnosed = replace(other, runs=(replace(other.runs[0], diagnosis=diagnosis),))
    results = replace(results, rows=(base, diagnosed))
    shown = tables(results)[0]
    assert cells(shown, "base")["tuned lr"] == "\u2013"
    assert cells(shown, "other")["tuned lr"] == "0.05"
    assert cells(shown, "other")["zeros after the last block (%)"] == "81.50"
    assert cells(shown, "base")["zeros after the last block (%)"] == "\u2013"


@pytest.mark.parametrize("second", [None, {"first_batch": 2}])
def test_a_run_diagnosed_by_hand_speaks_for_no_row(
    make_results: MakeResults, second: dict[str, int] | None
) -> None:
    results = make_results({"base": [46.0, 46.5], "other": [47.0, 47.5]})
    base, other = results.rows
    diagnosis = {"last_block": {"zero_percent": 81.5}} | dict.fromkeys(
        ("first_batch", "last_batch", "images"), 1
    )
    each = diagnosis, None if second is None else diagnosis | second
    runs = tuple(replace(run, diagnosis=own) for run, own in zip(other.runs, each, strict=True))
    shown = tables(replace(results, rows=(base, replace(other, runs=runs))))[0]
    assert "zeros after the last block (%)" not in cells(shown, "other")


@pytest.mark.parametrize(
    ("p", "shown"), [(0.04999, "0.0499"), (0.0496, "0.0496"), (0.05, "0.050"), (0.0494, "0.049")]
)
def test_a_p_just_below_the_level_is_not_shown_as_the_level(p: float, shown: str) -> None:
    assert chance(p) == shown


def test_verdicts_say_p_seeds_and_why(make_results: MakeResults) -> None:
    results = make_results(
        {"base": [46.0, 47.0, 48.0], "up": [48.2, 49.8, 50.1], "one": [50.0, "missing", "missing"]}
    )
    shown = cells(named(results, "verdicts"), "up")
    gap = results.comparisons["up"].difference
    assert gap is not None and gap.p is not None and 0.01 < gap.p < 0.05
    assert shown["p"] == shown["p, uncorrected"] == chance(gap.p)  # only it can be tested
    assert shown["seeds"] == "3 and 3"
    assert shown["verdict"] == "better"
    assert cells(named(results, "verdicts"), "one") == {
        "row": "one",
        "seeds": "1 and 3",
        "points [95 % interval of all]": "+3.00",
        "p": "\u2013",
        "p, uncorrected": "\u2013",
        "expected when trained again (points)": signed(results.expected["one"].gain or 0.0),
        "the best of all: probability": f"{results.expected['one'].probability_best:.2f}",
        "verdict": "too few seeds",
        "because": "one seed of the row has no spread to test against",
    }


def test_two_uncertainties_are_side_by_side(make_results: MakeResults) -> None:
    results = make_results({"base": [46.0, 47.0], "up": [50.0, 51.0]}, images=500)
    shown = cells(named(results, "uncertainty"), "up")
    images = results.rows[1].difference_over_images
    assert images is not None and images.both_low is not None
    gap = "top-1 minus base (points), 95 % interval"  # one row: for all at once is for it
    assert shown[f"{gap}: other test images"] == f"[{signed(images.low)}, {signed(images.high)}]"
    assert shown[f"{gap}: both"].startswith(f"[{signed(images.both_low)}, ")
    assert cells(named(results, "uncertainty"), "base")[f"{gap}: both"] == "\u2013"
    more = make_results({"base": [46.0, 47.0], "up": [50.0, 51.0], "c": [50.0, 50.8]}, images=500)
    assert f"{gap}s for all 2 rows at once: both" in cells(named(more, "uncertainty"), "up")
    assert "uncertainty" not in [table.name for table in tables(make_results({"a": [1.0]}))]


def test_reported_stands_beside_ours_at_its_own_size(make_results: MakeResults) -> None:
    errata = ("4: BatchNorm left out.",)
    results = make_results(
        {"near": [46.0, 47.0], "far": [50.0, 51.0], "odd": [48.0, 49.0], "plain": [1.0, 2.0]},
        reads_test_set=True,
        reported={
            "near": Reported(macs_g=2.63, params_m=16.36, top1=46.05, top5=74.41),
            "far": Reported(macs_g=2.63, params_m=6.36, top1=57.23, errata=errata),
            "odd": Reported(macs_g=3.0, params_m=16.36),
        },
        rows_with={name: {"reported_cost": OURS} for name in ("near", "far", "odd")},
    )
    shown = named(results, "reported")
    assert [row.name for row in shown.rows] == ["near", "far", "odd"]
    near, far, odd = (cells(shown, name) for name in ("near", "far", "odd"))
    assert (near["MACs (G): reported"], near["MACs (G): ours"]) == ("2.630", "2.586")
    assert near["MACs (G): gap (%)"] == "\u22121.7"
    assert near["cost explained by"] == "within 3 %"
    assert near["top-1 (%): reported"] == "46.05"
    assert near["top-1 (%): ours"] == "46.50 \u00b1 0.71"
    assert near["top-1 (%): ours, best test epoch"] == "47.25 \u00b1 0.71"
    assert far["params (M): gap (%)"] == "+157.2"
    assert far["cost explained by"] == "erratum 4"
    assert far["top-5 (%): reported"] == "\u2013"
    assert odd["cost explained by"] == "unexplained"
    assert "erratum 4: BatchNorm left out." in results.remarks


def test_a_reported_figure_says_its_epoch_and_what_else_is_known(
    make_results: MakeResults,
) -> None:
    see = ("9: best and last are mixed.", "12: the log disagrees.")
    results = make_results(
        {"some": [46.0], "last": [47.0], "best": [48.0], "count": [49.0]},
        reported={
            "some": Reported(top1=46.05, see=see),
            "last": Reported(top5=80.0, top1=47.0, epoch="last"),
            "best": Reported(top1=48.0, epoch="best", see=see[:1]),
            "count": Reported(zeros=4_138_107),
        },
        notes=("Erratum 12: the log disagrees.",),
    )
    shown = named(results, "reported")
    of = {row.name: cells(shown, row.name) for row in shown.rows}
    assert [of[name]["reported epoch"] for name in ("some", "last", "best", "count")] == [
        "best or last: unknown",
        "last",
        "best",
        "\u2013",
    ]
    assert [of[name]["see"] for name in ("some", "last", "best")] == [
        "errata 9, 12",
        "\u2013",
        "erratum 9",
    ]
    assert "erratum 9: best and last are mixed." in results.remarks
    assert sum("the log disagrees" in remark for remark in results.remarks) == 1


def test_zeros_stand_beside_the_reported_ones(make_results: MakeResults) -> None:
    results = make_results(
        {"relu": [46.0, 47.0], "celu": [50.0, "missing"]},
        reported={"relu": Reported(zeros=4_138_107), "celu": Reported(zeros=2)},
    )
    for row, zeros in ((results.rows[0], (4_000_000, 4_200_000)), (results.rows[1], (3,))):
        for run, count in zip(row.runs, zeros, strict=True):
            last = {"zero_percent": 50.0, "zeros": count}
            over = {"first_batch": 30, "last_batch": 40, "images": 2576}
            object.__setattr__(run, "diagnosis", over | {"last_block": last})
    shown = named(results, "reported")
    group = "zeros after the last block"
    relu, celu = cells(shown, "relu"), cells(shown, "celu")
    assert relu[f"{group}: reported"] == "4,138,107"
    assert relu[f"{group}: ours"] == "4,100,000 \u00b1 141,421"
    assert (celu[f"{group}: reported"], celu[f"{group}: ours"]) == ("2", "3")
    assert "zeros: over test batches 30 to 40 (2,576 images)" in results.remarks


OURS = CostAt(2_586_000_000, 16_360_000, 224)


def test_explanations(make_results: MakeResults) -> None:
    def said(*errata: str) -> str:
        reported = Reported(params_m=6.36, errata=errata)
        made = make_results(
            {"a": [1.0]}, reported={"a": reported}, rows_with={"a": {"reported_cost": OURS}}
        )
        return explanation(made.rows[0])

    assert said() == "unexplained"
    assert said("1: a", "11: b") == "errata 1, 11"
    assert said("a misprint of 16.36") == "a misprint of 16.36"
    assert explanation(make_results({"a": [1.0]}).rows[0]) == "\u2013"


def test_all_tables_are_one_markdown_file(make_results: MakeResults) -> None:
    results = make_results({"base": [46.0, 47.0], "up": [50.0, 51.5]}, images=200, title="T")
    text = markdown_of_all(results, tables(results))
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## Verdicts", "## Two uncertainties"]
    widths = {line.count("|") for line in text.split("## ")[1].splitlines() if "|" in line}
    assert len(widths) == 1


def test_markdown_has_claims_and_remarks(make_results: MakeResults) -> None:
    results = make_results(
        {"base": [46.0, 47.0], "up": [50.0, 51.5]},
        claims=("up > base", "base | up"),
        claim_notes={"up > base": "Up gains. (erratum 9)"},
    )
    results = replace(results, notes=("look at |this|",))
    text = markdown_of_all(results, tables(results))
    claims = text.split("## Claims\n\n")[1].split("\n\n")[0].splitlines()
    heading = "| claim | judgement | p (Holm) | numbers (left minus right) | in words |"
    assert claims[0] == heading
    assert claims[2].startswith("| up > base | supported | 0.042 |")
    assert claims[3].startswith(r"| base \| up | undecided |")
    assert claims[2].endswith(" | Up gains. (erratum 9) |")
    assert {line.count("|") - line.count(r"\|") for line in claims} == {6}
    assert r"- look at \|this\|" in text.split("## Remarks\n\n")[1]


def test_csv_has_numbers_as_numbers(make_results: MakeResults) -> None:
    results = make_results({"base": [46.0, 47.0], "worse": [45.0, 46.004]})
    first, second = csv_format.DictReader(io.StringIO(csv(results)))
    assert first["macs"] == "2500000000"
    assert first["test_top1_percent_mean"] == "46.5"
    assert first["difference_top1_points_mean"] == ""
    assert second["difference_top1_points_mean"] == "-1.0"  # a number may start with a minus
    assert second["test_top1_percent_sd"] == "0.71"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_csv_text_never_starts_a_formula(start: str) -> None:
    text = csv_text([{"row": f"{start}cmd", "gap": -1.5, "note": "a=b"}])
    cells = list(csv_format.reader(io.StringIO(text, newline="")))[1]
    kept = " " if start == "\r" else start  # a bare CR would end the line for some readers
    assert cells == [f"'{kept}cmd", "-1.5", "a=b"]


def test_small_models_do_not_cost_zero() -> None:
    told = {4.1886: "4.189", 25.557032: "25.557", 0.0123: "0.0123", 0.004124: "0.004124"}
    told |= {0.041223424: "0.04122", 0.041249792: "0.04125", 0.000003: "0.000003", 0.0: "0"}
    assert [counted(value) for value in told] == list(told.values())
    assert counted(2372.3491) == "2,372.349"


def test_signs() -> None:
    assert [signed(value) for value in (1.234, -1.234, -0.001)] == ["+1.23", "\u22121.23", "0.00"]


def test_an_interval_says_whether_zero_is_in_it() -> None:
    """Also where an end rounds to zero: whoever is better or worse has one that leaves it out."""
    assert signed_ends(-2.33, -0.0041) == "[\u22122.33, \u22120.00]"
    assert signed_ends(-3.07, 0.0032) == "[\u22123.07, +0.00]"
    assert signed_ends(0.0, 1e-17) == "[0.00, 0.00]"


def test_an_interval_that_was_cut_says_so(make_results: MakeResults) -> None:
    low, high = make_results({"a": [1.0, 3.0], "b": [99.0, 97.0]}).rows
    assert interval(low.top1) == "[\u2265 0.00, 14.71]"  # 2 +- 12.706 * sqrt(2) / sqrt(2)
    assert interval(high.top1) == "[85.29, \u2264 100.00]"
    gap = make_results({"a": [2.0, 90.0], "b": [90.0, 3.0]}).rows[1].difference
    assert signed_interval(gap) == "[\u2265 \u2212100.00, \u2264 +100.00]"


def test_equal_values_say_that_no_spread_was_seen(make_results: MakeResults) -> None:
    results = make_results({"a": [50.0, 50.0], "b": [51.0, 51.0]})
    cells = main_table(results).texts[1]
    assert cells[main_table(results).headings.index("95 % interval")] == "no spread seen"
    assert "+1.00" in cells
    assert "no spread" in results.comparisons["b"].reason
    assert results.summary_lines[1]["test_top1_percent_low"] is None


def test_top5_of_five_classes_is_left_out(make_results: MakeResults) -> None:
    results = make_results({"a": [50.0, 52.0]})
    assert "top-5" in main_table(results).headings
    few = replace(results.rows[0], runs=tuple(map(of_five_classes, results.rows[0].runs)))
    results = replace(results, rows=(few,))
    assert "top-5" not in main_table(results).headings
    assert not [figure for figure in figures(results) if "top5" in figure.name]
    assert "top-5" not in html(results)


def test_sizes_that_differ_get_a_column(make_results: MakeResults) -> None:
    results = make_results({"a": [1.0], "b": [1.0]})
    results = replace(results, rows=(results.rows[0], replace(results.rows[1], input_size=32)))
    cells = {column.full_heading: column.text(results.rows[1]) for column in columns(results)}
    assert cells["counted at"] == "32\u00d732"
    assert "MACs (G)" in cells
