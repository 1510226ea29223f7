"""What a terminal shows: figures whole at any width, in any encoding, and names as plain text."""

import io
import re
import signal
import sys

import pytest
from rich.console import Console

from blocklab.cli import app, output
from blocklab.cli.bar import TrainingBar
from blocklab.cli.output import output_console, print_faults, print_table
from blocklab.errors import InputError

HEADINGS = (
    "row",
    "MACs (G) at 224\u00d7224",
    "top-1",
    "95 % interval",
    "top-1 minus plain (points)",
)
ROWS = [
    (
        "res2net50_celu_cd_st",
        "4.170",
        "57.23 ± 1.25",
        "[44.52, 69.48]",
        "+11.18 [\u221236.21, +58.02]",
    ),
    ("plain", "4.121", "46.05 ± 0.31", "[43.27, 48.83]", "baseline"),
]
FIGURES = [cell for row in ROWS for cell in row]


def shown_at(
    width: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    left: bool = False,
) -> str:
    def terminal() -> Console:
        return Console(width=width, force_terminal=True, color_system=None)

    monkeypatch.setattr(output, "output_console", terminal)
    print_table(HEADINGS, ROWS, "A [/red] title", left=left)
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [10, 40, 60, 80, 120])
def test_no_figure_is_cut_or_broken_on_a_narrow_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = shown_at(width, monkeypatch, capsys)
    assert "…" not in shown and "[/red]" in shown
    for figure in FIGURES:
        assert figure in shown
    if width >= 50:
        assert max(len(line.rstrip()) for line in shown.splitlines()) <= width
    parts = shown.count("res2net50_celu_cd_st")
    assert parts == {10: 4, 40: 4, 60: 3, 80: 2, 120: 1}[width]


def test_words_break_between_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = shown_at(60, monkeypatch, capsys, left=True)
    assert "…" not in shown
    for word in " ".join(FIGURES).split():
        assert word in shown


def test_a_pipe_gets_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([f"column {number}" for number in range(40)], [["123,456.78"] * 40])
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.count("123,456.78") == 40 for line in lines) == 1


def test_what_a_run_says_is_whole_lines_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    text = "goes on from runs/0123456789abcdef, " * 6
    TrainingBar(output_console(stderr=True), "resnet20", 3).note(text)
    assert capsys.readouterr().err.count("\n") == 1


def test_names_control_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("class", "%"), [("\x1b[31mcat\x07\u202e", "12.3"), ("[bold]x[/]", "1")], "\x1b[2J")
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\x07" not in shown and "\u202e" not in shown
    assert r"\x1b[31mcat\x07\u202e" in shown and "[bold]x[/]" in shown


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1"])
def test_an_output_of_few_letters_gets_signs_that_it_has(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shows(_: list[str]) -> int:
        print_table(HEADINGS, ROWS, "Study \u5b9e\u9a8c")
        return 0

    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    monkeypatch.setattr(app, "run", shows)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        app.main()
    sys.stdout.flush()
    shown = written.getvalue().decode(encoding)
    assert ended.value.code == 0
    assert "[-36.21, +58.02]" in shown and r"\u5b9e\u9a8c" in shown
    assert re.search(r"57\.23 (±|\+-) 1\.25", shown)


def test_of_many_faults_the_first_are_said_and_the_rest_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_faults([InputError(f"image {number} is broken") for number in range(1005)])
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error: image 0 is broken" and len(lines) == 6
    assert lines[-1] == "error: and 1,000 more that cannot be read"
    print_faults([InputError("one")])
    assert capsys.readouterr().err == "error: one\n"
