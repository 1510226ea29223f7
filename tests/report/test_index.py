"""The page over several studies: links, states, and names that stay text."""

import re
from collections.abc import Callable
from pathlib import Path

from blocklab.report.index import test_sets as sets_read
from blocklab.report.index import write_index
from blocklab.results.study_results import StudyResults

MakeResults = Callable[..., StudyResults]


def test_each_study_has_a_line_with_its_link(make_results: MakeResults, tmp_path: Path) -> None:
    whole = make_results(
        {"base": [46.0, 47.0, 48.0], "other": [50.0, 51.1, 51.9]},
        title="Whole",
        claims=("other > base", "base > other"),
    )
    part = make_results({"base": [46.0, None, "missing"]}, title="Part", failed={"base": ("no",)})
    none = make_results({"base": ["missing"], "other": ["missing"]}, title="None yet")
    page = write_index(tmp_path, [("one", whole), ("two", part), ("three", none)], "All of them")
    assert page == tmp_path / "index.html"
    lines = re.findall(r"<tr><th.*?</tr>", page.read_text().split("<h2>")[0])[1:]
    cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", line) for line in lines]
    assert [line[0] for line in cells] == [
        f'<a href="../{name}/report.html">{name}</a>' for name in ("one", "two", "three")
    ]
    assert cells[0][1:] == [
        "Whole",
        "finished",
        "other: 51.00 \u00b1 0.95",
        "1 better",
        "1 supported, 1 contradicted",
    ]
    assert cells[1][2] == "1 of 3 runs finished, 1 diverged, 1 failed"
    assert cells[2][1:] == ["None yet", "0 of 2 runs finished", "\u2013", "\u2013", "\u2013"]
    assert "3 studies, 7 finished runs in all." in page.read_text()


def test_a_changed_studys_name_stands_above_its_changes(
    make_results: MakeResults, tmp_path: Path
) -> None:
    results = make_results({"base": [46.0, 47.0], "other": [50.0, 51.1]})
    page = write_index(tmp_path, [("mine+rows=a,b+seeds=2", results)], "Changed").read_text()
    assert '<a href="../mine%2Brows%3Da%2Cb%2Bseeds%3D2/report.html">mine</a>' in page
    assert '<div class="soft">rows=a,b seeds=2</div>' in page


def test_claims_are_corrected_for_all_studies(make_results: MakeResults, tmp_path: Path) -> None:
    made = make_results(
        {"base": [46.0, 47.0, 48.0], "other": [48.5, 50.2, 51.6]}, claims=("other > base",)
    )
    alone, *_ = made.judgements
    assert alone.p is not None and 0.005 < alone.p < 0.05
    page = write_index(tmp_path, [(f"s{i}", made) for i in range(10)]).read_text()
    claims = page.split("<h2>Claims</h2>")[1]
    assert "The 10 claims of single studies" in claims
    line = re.findall(r"<tr><th.*?</tr>", claims)[1]
    cells = re.findall(r"<t[hd].*?>(.*?)</t[hd]>", line)
    assert cells == [
        "s0",
        "other &gt; base",
        '<span class="better">supported</span>',
        f"{alone.p:.3f}",
        '<span class="open">undecided</span>',
        f"{10 * alone.p:.3f}",
        alone.numbers,
    ]
    none = make_results({"base": [46.0]})
    assert "<h2>Claims</h2>" not in write_index(tmp_path, [("a", none)]).read_text()


def test_a_run_of_two_studies_counts_once(make_results: MakeResults, tmp_path: Path) -> None:
    one = make_results({"base": [46.0]})
    page = write_index(tmp_path, [("a", one), ("b", one)]).read_text()
    assert "2 studies, 1 finished run in all." in page


def test_test_sets_are_counted_by_who_read_them(make_results: MakeResults, tmp_path: Path) -> None:
    one = make_results({"base": [46.0, 47.0], "other": [48.0, None, "missing"]})
    two = make_results({"base": [46.0, 47.0], "third": [49.0, 50.0]})
    for _, run in two.runs[2:]:
        run.run["test_images"] = 97  # chosen otherwise, so another test set
        run.run["test_images_left_out"] = 3
    counted = sets_read([("a", one), ("b", two), ("c", one)])
    assert [line[2:] for line in counted] == [(3, 5), (1, 2)]
    page = write_index(tmp_path, [("a", one), ("b", two)]).read_text()
    table = page.split("<h2>Test sets</h2>")[1].split("</table>")[0]
    assert "<td>97</td><td>1</td><td>2</td>" in table
    none = make_results({"base": ["missing"]})
    assert "Test sets" not in write_index(tmp_path, [("a", none)]).read_text()


def test_names_are_text_and_nothing_is_fetched(make_results: MakeResults, tmp_path: Path) -> None:
    attack = "<script>alert(1)</script>"
    results = make_results({attack: [46.0, 47.0]}, title=attack, claims=(attack,))
    page = write_index(tmp_path, [(attack, results)], attack).read_text()
    assert "<script>alert" not in page and page.count("<script>") == 1
    assert "&lt;script&gt;" in page
    assert 'href="../%3Cscript%3Ealert%281%29%3C/script%3E/report.html"' in page
    assert "http" not in page.replace("http-equiv", "")
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
