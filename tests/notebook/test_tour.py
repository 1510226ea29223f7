"""What a notebook shows: the tour, run in a kernel where there is one and by hand elsewhere."""

import ast
import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blocklab.errors import InputError
from blocklab.notebook import in_notebook, table_html
from blocklab.report.notebook_page import Page
from blocklab.results.notebook_table import MOST_ROWS, rows_html
from blocklab.results.row_result import RowResult

TOUR = Path(__file__).parent.parent.parent / "examples" / "tour.ipynb"
KERNEL = all(map(importlib.util.find_spec, ("nbformat", "nbclient", "ipykernel")))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """The HTML that each cell of code shows."""
    if KERNEL:
        return in_a_kernel(tmp_path_factory.mktemp("tour"))
    names: dict[str, Any] = {}
    values = [last_value(code, names) for code in cells()]
    return [[one._repr_html_()] if hasattr(one, "_repr_html_") else [] for one in values]


def in_a_kernel(folder: Path) -> list[list[str]]:
    import nbformat  # pyright: ignore[reportMissingImports]
    from nbclient import NotebookClient  # pyright: ignore[reportMissingImports]

    notebook = nbformat.read(TOUR, as_version=4)
    limits = {"timeout": 900, "startup_timeout": 300}  # seconds, on a busy machine
    client = NotebookClient(notebook, kernel_name="python3", **limits)  # raises a cell's error
    client.execute(cwd=str(folder))
    given = [cell["outputs"] for cell in notebook.cells if cell["cell_type"] == "code"]
    said = [one.get("text", "") for cell in given for one in cell]
    assert not [text for text in said if "for Jupyter support" in text], "rich asks for a package"
    html = [[one.get("data", {}).get("text/html", "") for one in cell] for cell in given]
    return [[one for one in cell if one] for cell in html]


def cells() -> list[str]:
    """The tour's code, a cell each."""
    found = json.loads(TOUR.read_text())["cells"]
    assert all(cell.get("outputs", []) == [] for cell in found), "outputs are not committed"
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]


def last_value(code: str, names: dict[str, Any]) -> Any:
    """Run a cell as a notebook does: the value of its last line is what is shown."""
    tree = ast.parse(code)
    last = tree.body.pop()
    assert isinstance(last, ast.Expr), "a cell ends with what it shows"
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_each_thing_of_the_tour_shows_itself(outputs: list[list[str]]) -> None:
    shown = [cell[-1] for cell in outputs if cell]
    study, results, frame, run, drawn, page = shown
    assert "plain (baseline)" in study and "Is the attention worth it?" in study
    assert results.count("<tr>") == 3 and "verdict" in results and "minus plain" in results
    assert frame.count("<tr") == 5 and "test_top1_percent" in frame
    assert "test_top1_percent" in run and "folder" in run
    assert drawn.count("<svg") == 1 and "test image" in drawn
    assert page.startswith("<iframe srcdoc=") and "<script" not in page


@pytest.mark.skipif(not KERNEL, reason="nbclient and ipykernel are not installed")
def test_progress_is_one_output_that_is_replaced(outputs: list[list[str]]) -> None:
    (progress,) = (one for cell in outputs for one in cell if one.startswith("<pre>"))
    assert "4 of 4 runs" in progress and progress.count("done") == 4


def test_what_is_no_notebook_is_told_from_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not in_notebook()
    shell = SimpleNamespace()  # IPython in a terminal: it has no kernel
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
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
    with pytest.raises(InputError, match="`blocklab report 'my study'` writes it"):
        Page("my study")._repr_html_()
