"""The table to the letter in each format, and text that tries to be more than text."""

import csv as csv_format
import io
from collections.abc import Callable
from dataclasses import replace

import pytest

from blocklab.report.tables import columns, counted, csv, csv_text, latex, markdown, signed
from blocklab.study.results import Reported, StudyResults

MakeResults = Callable[..., StudyResults]


def test_markdown_to_the_letter(make_results: MakeResults) -> None:
    results = make_results({"res2net50": [46.0, 47.0, 48.0], "cCD_ST": [60.0, 61.0, "missing"]})
    assert markdown(results) == (
        "| row | MACs (G) at 224\u00d7224 | params (M) | seeds | top-1 | 95 % interval | top-5 "
        "| top-1 minus res2net50 (points) |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| res2net50 | 2.500 | 16.360 | 3 | 47.00 \u00b1 1.00 | [44.52, 49.48] "
        "| 72.00 \u00b1 1.00 | baseline |\n"
        "| cCD_ST | 2.650 | 16.371 | 2 of 3 | 60.50 \u00b1 0.71 | [54.15, 66.85] "
        "| 85.50 \u00b1 0.71 | +14.00 [+14.00, +14.00] |\n"
    )


def test_latex_to_the_letter(make_results: MakeResults) -> None:
    results = make_results({"a_b": [46.0, 47.0], "50% & {more}": [45.0, 46.5]})
    assert latex(results) == (
        "% needs \\usepackage{booktabs}\n"
        "\\begin{tabular}{lrrrrrrr}\n"
        "\\toprule\n"
        "row & MACs (G) at 224$\\times$224 & params (M) & seeds & top-1 & 95 \\% interval & top-5 "
        "& top-1 minus a\\_b (points) \\\\\n"
        "\\midrule\n"
        "a\\_b & 2.500 & 16.360 & 2 & 46.50 $\\pm$ 0.71 & [40.15, 52.85] & 71.50 $\\pm$ 0.71 "
        "& baseline \\\\\n"
        "50\\% \\& \\{more\\} & 2.650 & 16.371 & 2 & 45.75 $\\pm$ 1.06 & [36.22, 55.28] "
        "& 70.75 $\\pm$ 1.06 & $-$0.75 [$-$3.93, +2.43] \\\\\n"
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


def test_markdown_keeps_a_cell_a_cell(make_results: MakeResults) -> None:
    text = markdown(make_results({"a|b\nc": [1.0], "<b>*x* _y_ [l](u)": [1.0]}))
    lines = text.splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| a\\|b c | ")
    assert lines[3].startswith("| &lt;b>\\*x\\* \\_y\\_ [l]\\(u) | ")


def test_one_seed_has_no_spread(make_results: MakeResults) -> None:
    last = markdown(make_results({"base": [46.0], "other": [46.5]})).splitlines()[-1]
    assert last == "| other | 2.650 | 16.371 | 1 | 46.50 | \u2013 | 71.50 | +0.50 |"


def test_no_finished_run_is_dashes(make_results: MakeResults) -> None:
    last = markdown(make_results({"base": ["missing"], "other": ["missing"]})).splitlines()[-1]
    assert last == "| other | 2.650 | 16.371 | 0 of 1 " + "| \u2013 " * 4 + "|"


def test_reported_and_optimistic_columns_appear_when_there_is_something(
    make_results: MakeResults,
) -> None:
    plain = make_results({"base": [46.0]})
    headings = [column.full_heading for column in columns(plain)]
    assert not [heading for heading in headings if "reported" in heading or "optim" in heading]
    rich = make_results(
        {"first": [46.0], "second": [47.0]},
        reads_test_set=True,
        reported={"first": Reported(macs_g=2.6, top1=46.05)},
    )
    shown = {column.full_heading: column for column in columns(rich)}
    assert shown["reported MACs (G)"].text(rich.rows[0]) == "2.600"
    assert shown["reported top-1 (%)"].text(rich.rows[0]) == "46.05"
    assert shown["reported top-1 (%)"].text(rich.rows[1]) == "\u2013"
    assert "reported params (M)" not in shown  # no row has one
    assert shown["top-1, best test epoch (optimistic)"].text(rich.rows[0]) == "46.75"


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
    assert [counted(value) for value in (4.1886, 0.0123, 0.00412, 0.0, None)] == [
        "4.189",
        "0.012",
        "0.0041",
        "0.000",
        "\u2013",
    ]


def test_signs() -> None:
    assert [signed(value) for value in (1.234, -1.234, -0.001)] == ["+1.23", "\u22121.23", "0.00"]


def test_sizes_that_differ_get_a_column(make_results: MakeResults) -> None:
    results = make_results({"a": [1.0], "b": [1.0]})
    results = replace(results, rows=(results.rows[0], replace(results.rows[1], input_size=32)))
    cells = {column.full_heading: column.text(results.rows[1]) for column in columns(results)}
    assert cells["counted at"] == "32\u00d732"
    assert "MACs (G)" in cells
