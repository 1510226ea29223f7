"""Pages of a study while it runs: when they are written, and what they say is left."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blocklab import live_pages, running
from blocklab.errors import RunError
from blocklab.execution.crew import Silent
from blocklab.live_pages import LivePages
from blocklab.report.page import Live
from blocklab.study.collection import StudyCollection
from blocklab.study.study import Study


def job(name: str, epochs: int = 4, work: float = 8.0) -> Any:
    return SimpleNamespace(name=name, hash=name, epochs=epochs, work=work)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still until a test sets it on."""
    clock = SimpleNamespace(now=100.0, strftime=lambda _: "12:34:56")
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(live_pages, "time", clock)
    return clock


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str | None]:
    """What is said on each page that is written, of the study in `tmp_path`."""
    (tmp_path / "study.json").touch()
    said: list[str | None] = []
    monkeypatch.setattr(live_pages, "read_study_folder", lambda folder: folder)
    monkeypatch.setattr(
        live_pages, "write_report", lambda _, __, live: said.append(live.text if live else None)
    )
    return said


def test_pages_say_what_is_done_and_left(
    tmp_path: Path, clock: SimpleNamespace, written: list[str | None]
) -> None:
    pages = LivePages([tmp_path, tmp_path / "not yet"], Silent())
    one, other = job("plain seed 0"), job("se seed 0")
    pages.planned([one, other], 3, None)  # type: ignore[arg-type]
    assert written == ["3 of 5 runs have finished. As of 12:34:56; this page reads itself again."]
    pages.started(one)
    pages.started(other)
    clock.now += 29
    pages.epoch(one, {"epoch": 1})
    assert len(written) == 1  # too soon
    clock.now += 31
    pages.epoch(one, {"epoch": 2})
    assert str(written[1]).startswith(
        "3 of 5 runs have finished; in training: plain seed 0 at epoch 2 of 4, se seed 0 at epoch "
        "0 of 4. About 3 minutes left. "  # 4 of 16 units of work took a minute
    )
    clock.now += 60
    pages.ended(one, "the disk is full")
    assert "3 of 5 runs have finished, 1 failed; in training: se" in str(written[2])
    assert "About 4 minutes left" in str(written[2])  # 4 of the 12 units that remain took two
    pages.write(None)
    assert written[3:] == [None]


def test_epochs_of_before_are_not_left_to_do(
    tmp_path: Path, clock: SimpleNamespace, written: list[str | None]
) -> None:
    pages, resumed = LivePages([tmp_path], Silent()), job("plain seed 0")
    pages.planned([resumed], 0, None)  # type: ignore[arg-type]
    pages.started(resumed)
    clock.now += 60
    pages.epoch(resumed, {"epoch": 3})  # of 4: the first two were trained before
    assert "at epoch 3 of 4. About 1 minute left" in str(written[1])
    clock.now += 60
    pages.epoch(resumed, {"epoch": 3})  # trained again
    assert "at epoch 3 of 4. About 1 minute left" in str(written[2])


def test_a_page_that_takes_long_is_written_less_often(
    tmp_path: Path, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "study.json").touch()
    said: list[float] = []

    def slow(*_: object) -> None:
        said.append(clock.now)
        clock.now += 20
        raise RunError("the disk is full")  # for the end to say

    monkeypatch.setattr(live_pages, "read_study_folder", lambda folder: folder)
    monkeypatch.setattr(live_pages, "write_report", slow)
    pages = LivePages([tmp_path], Silent())
    pages.planned([job("a", epochs=100)], 0, None)  # type: ignore[arg-type]
    for epoch in range(1, 40):
        clock.now += 10
        pages.epoch(job("a", epochs=100), {"epoch": epoch})
    assert said == [100.0, 320.0]


@pytest.mark.parametrize("live", [True, False])
def test_a_study_that_is_stopped_leaves_no_page_that_waits(
    live: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def stopped(*_: object, watcher: Any, **__: object) -> None:
        seen.append(type(watcher))
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "train_studies", stopped)
    monkeypatch.setattr(LivePages, "write", lambda _, state: seen.append(state))
    file = {"title": "t", "data": "digits", "recipe": "quick", "varies": ["mixer"]}
    study = Study.parse(file | {"baseline": "a", "rows": {"a": "resnet20"}}, "s")
    with pytest.raises(KeyboardInterrupt):
        running.run_collection(StudyCollection.of(study), tmp_path, live=live)
    assert seen == ([LivePages, None] if live else [Silent])


def test_a_live_page_reads_itself_again_with_and_without_scripts(
    make_run: Callable[..., Path],
) -> None:
    from blocklab.report.page import html
    from blocklab.results.study_results import StudyResults

    results = StudyResults("t", "", {}, {}, "r", (), (), None, ())
    page = html(results, live=Live("1 of 2 runs have finished <b>.", 30))
    assert '<noscript><meta http-equiv="refresh" content="30"></noscript>' in page
    assert '<body data-again="30">' in page and "finished &lt;b&gt;." in page
    assert "refresh" not in html(results).partition("<style>")[0]
