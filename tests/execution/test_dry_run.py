"""What a dry run lists: what is left of each row, and about how long it will take."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from blocklab.execution import dry_run
from blocklab.execution.dry_run import PLAN_HEADINGS, plan_cells, plan_lines, plan_total
from blocklab.execution.train_studies import train_studies
from blocklab.measure.amounts import rough_time
from blocklab.study.study import Study
from blocklab.training.workload import Workload

TINY = {"backbone": "resnet20", "widths": [4, 8, 8], "depths": [1, 1, 1]}
SECONDS = {"plain": 1.0, "se": 5.0, "eca": 2.0}  # of a step


def study(**changes: Any) -> Study:
    fields = {
        "title": "Tiny",
        "data": {"source": "digits", "train_images": 60, "test_images": 50},
        "recipe": {"base": "quick", "epochs": 2, "batch_size": 20},
        "seeds": 2,
        "varies": ["attention", "recipe.lr"],
        "rows": {"plain": TINY, "se": {**TINY, "attention": "se"}},
    }
    return Study.parse({**fields, **changes}, "tiny")


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Steps take SECONDS by their attention; counts which were timed."""
    found: Counter[str] = Counter()

    def times(steps: Mapping[str, Workload], rounds: int, *, threads: int) -> dict[str, float]:
        attention = steps["step"].spec.to_dict()["attention"]
        name = attention[0]["type"] if attention else "plain"
        found[name] += 1
        return {"step": SECONDS[name]}

    monkeypatch.setattr(dry_run, "make_step", lambda work, setup, few: work)
    monkeypatch.setattr(dry_run, "shortest_times", times)
    return found


def test_what_is_left_is_listed_and_nothing_is_begun(tmp_path: Path) -> None:
    train_studies((study(),), tmp_path, 2)
    more = study(seeds=3)
    lines = plan_lines((more,), tmp_path)
    assert [(line["row"], line["runs"], line["finished"]) for line in lines] == [
        ("plain", 3, 2),
        ("se", 3, 2),
    ]
    assert all(line["seconds_left"] > 0 for line in lines)
    assert len(plan_cells(lines[0])) == len(PLAN_HEADINGS)
    assert not (tmp_path / list(more.plan())[-1].definition.hash).exists()
    lines = [{**line, "seconds_left": 3600.0, "runs_at_a_time": 2} for line in lines]
    assert plan_total(lines) == "about 2.0 h in all, 2 at a time: by a training step of each row"
    assert plan_total([{**line, "seconds_left": 0.0} for line in lines]).startswith("nothing is")
    assert "too large" in plan_total([*lines, {**lines[0], "seconds_left": None}])


def test_each_network_is_timed_once_whatever_its_macs(tmp_path: Path, timed: Counter[str]) -> None:
    slow = {**TINY, "attention": "se"}
    rows = {"plain": TINY, "se": slow, "se, slowly": {"model": slow, "recipe": {"lr": 0.01}}}
    lines = plan_lines((study(rows=rows),), tmp_path, workers=1, threads=1)
    assert timed == {"plain": 1, "se": 1}
    steps = 60 / 20 * 2 * 2  # of two epochs and two seeds
    assert [line["seconds_left"] for line in lines] == pytest.approx(
        [steps * SECONDS["plain"], steps * SECONDS["se"], steps * SECONDS["se"]]
    )
    assert all(line["timed"] for line in lines)
    assert plan_total(lines).endswith("by a training step of each row")


def test_what_there_is_no_time_to_time_goes_by_macs_and_says_so(
    tmp_path: Path, timed: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The networks of most work are timed first."""
    monkeypatch.setattr(dry_run, "TIMED_SECONDS", 0.0)
    wide = {**TINY, "widths": [8, 16, 16], "attention": "eca"}
    rows = {"plain": TINY, "wide": wide, "se": {**TINY, "attention": "se"}}
    made = study(rows=rows, varies=["attention", "widths"])
    plain, eca, se = plan_lines((made,), tmp_path, workers=1, threads=1)
    assert timed == {"eca": 1} and [one["timed"] for one in (plain, eca, se)] == [
        False,
        True,
        False,
    ]
    rate = eca["macs"] / eca["seconds_left"]
    assert plain["seconds_left"] == pytest.approx(plain["macs"] / rate)
    assert se["seconds_left"] == pytest.approx(se["macs"] / rate)
    said = plan_total([plain, eca, se])
    assert said.endswith("of 1 of 3 rows and the MACs of the others, whose time may be another")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        *((7.4, "7 s"), (99, "99 s"), (100, "2 min"), (5_900, "98 min"), (6_000, "1.7 h")),
        *((36_000, "10 h"), (36_797, "10 h"), (400_000, "5 days"), (9e7, "1,042 days")),
    ],
)
def test_times_are_said_as_roughly_as_they_are_known(seconds: float, said: str) -> None:
    assert rough_time(seconds) == said
