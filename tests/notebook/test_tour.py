"""What a notebook shows: the tour, run in a kernel where there is one and by hand elsewhere."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from blocklab.errors import InputError
from blocklab.notebook import in_notebook, table_html
from blocklab.report.notebook_page import Page
from blocklab.results.notebook_table import MOST_ROWS, rows_html
from blocklab.results.row_result import RowResult

TOUR = Path(__file__).parent.parent.parent / "examples" / "tour.ipynb"


def cells() -> list[str]:
    """The tour's code, a cell each."""
    found = json.loads(TOUR.read_text())["cells"]
    assert all(cell.get("outputs", []) == [] for cell in found), "outputs are not committed"
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]


def last_value(code: str, names: dict[str, Any]) -> Any:
    """Run a cell as a notebook does: the value of its last line is what is shown."""
    import ast

    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return (
        None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    )  # type: ignore[attr-defined]


def test_the_tour_runs_and_each_thing_shows_itself() -> None:
    names: dict[str, Any] = {}
    shown = [last_value(code, names) for code in cells()]
    html = {type(one).__name__: one._repr_html_() for one in shown if hasattr(one, "_repr_html_")}
    assert {"Study", "StudyResults", "DataFrame", "FinishedRun", "Drawn", "Page"} == {*html}
    assert "plain (baseline)" in html["Study"] and "Is the attention worth it?" in html["Study"]
    assert html["StudyResults"].count("<tr>") == 3 and "verdict" in html["StudyResults"]
    assert "test_top1_percent" in html["FinishedRun"]
    assert html["Drawn"].count("<svg") == 1
    assert html["Page"].startswith("<iframe srcdoc=") and "<script" not in html["Page"]
    assert len(names["results"].to_frame()) == 4


def test_the_tour_runs_in_a_kernel(tmp_path: Path) -> None:
    """The progress of the study is one output, which is replaced while it runs."""
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient").NotebookClient
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(TOUR, as_version=4)
    client(notebook, timeout=240, kernel_name="python3", resources={}).execute(cwd=str(tmp_path))
    outputs = [one for cell in notebook.cells for one in cell.get("outputs", [])]
    assert not [one for one in outputs if one["output_type"] == "error"]
    pages = [one["data"].get("text/html", "") for one in outputs if "data" in one]
    (progress,) = (one for one in pages if one.startswith("<pre>"))
    assert "4 of 4 runs" in progress and progress.count("done") == 4
    assert not [one for one in outputs if "ipywidgets" in str(one)]


def test_what_is_no_notebook_is_told_from_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not in_notebook()
    shell = type("Shell", (), {})()  # IPython in a terminal: it has no kernel
    module = type("Module", (), {"get_ipython": staticmethod(lambda: shell)})
    monkeypatch.setitem(sys.modules, "IPython", module)  # type: ignore[arg-type]
    assert not in_notebook()
    shell.kernel = object()
    assert in_notebook()


def test_what_others_wrote_is_no_markup() -> None:
    assert "<img" not in table_html(["<img src=x>"], [["<img src=x>"]])
    row = RowResult("<script>", {}, 1, 1, 32, (), (0,))
    shown = rows_html("<b>", [row] * (MOST_ROWS + 2), "<script>", {}, [("r", "<i>")])
    assert "<script>" not in shown and "<i>" not in shown and "2 more rows" in shown
    assert shown.count("baseline") == MOST_ROWS


def test_a_folder_without_a_page_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`blocklab report"):
        Page(tmp_path)._repr_html_()
