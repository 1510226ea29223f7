"""``blocklab plan``: seeds and hours for a gain, from runs, from an SD, and what it refuses."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from blocklab.execution import seed_planning
from blocklab.execution.seed_planning import Pilot, read_pilot
from blocklab.measure.cost import cost
from blocklab.results.study_folder import read_study_folder
from blocklab.statistics.planning import power, seeds_needed
from blocklab.study.study import Study

Blocklab = Any


def test_a_pilot_is_planned_from_its_runs(
    blocklab: Blocklab, study_file: Path, tmp_path: Path, make_run: Any
) -> None:
    out = tmp_path / "runs"
    for number, run in enumerate(Study.load(study_file).plan()):
        ended = {"train_seconds": 60.0 + number}
        made_up = {"definition": run.definition.to_dict(), "epochs": 2, "result": ended}
        made_up["run"] = {"class_names": list("0123456789")}
        make_run(out, run.row.name, run.definition.seed, 50.0 + number**2, **made_up)
    assert blocklab("study", study_file, "--out", out).status == 0  # trains nothing
    folder = out / "tiny"
    said = blocklab("plan", folder, "--gain", 2, "--json")
    assert said.status == 0, said.err
    plan = json.loads(said.out)
    results = read_study_folder(folder)
    seconds = [row.over_seeds("train_seconds") for row in results.rows]
    assert plan["rows"] == 1
    assert plan["sd"] == pytest.approx(results.family.sd)
    assert plan["hours_a_seed"] == pytest.approx(sum(one.mean for one in seconds if one) / 3600)
    ends = [plan["sd"] * (2 / stats.chi2.ppf(q, 2)) ** 0.5 for q in (0.975, 0.025)]
    assert [plan["sd_low"], plan["sd_high"]] == pytest.approx(ends)
    assert plan["seeds"] == seeds_needed(plan["sd"], 2.0)
    assert plan["seeds_low"] <= plan["seeds"]
    assert plan["seeds_high"] is None or plan["seeds_high"] > plan["seeds"]
    # the same by the study's file, and in words
    by_file = blocklab("plan", study_file, "--gain", 2, "--out", out)
    assert by_file.status == 0
    assert "2 degrees of freedom know that SD as" in by_file.out
    assert "hours: as long as the finished runs took" in by_file.out
    # rows that the file has besides, or has no more, are in its hours, too
    before, text = json.loads(said.out)["hours_a_seed"], study_file.read_text()
    study_file.write_text(f"{text}  eca: {{base: resnet20, attention: eca}}\n")
    asked = blocklab("plan", study_file, "--gain", 2, "--out", out, "--json")
    assert asked.status == 0, asked.err
    more = json.loads(asked.out)
    eca = Study.load(study_file).rows[2].model
    share = cost(eca, results.rows[0].input_size or 0, 10).macs / sum(
        row.macs or 0 for row in results.rows
    )
    assert more["rows"] == 2
    assert more["hours_a_seed"] == pytest.approx(before * (1 + share))
    study_file.write_text(text)
    # a row without a spread is left out of it, and named
    study = json.loads((folder / "study.json").read_text())
    runs = next(row for row in study["rows"] if row["name"] == "se")["runs"]
    (out / runs["1"]).rename(tmp_path / "gone")
    found = read_pilot(str(folder), out, None, {})
    assert "se: left out of the spread, one seed has finished" in found.lines
    assert found.df == 1


@pytest.mark.parametrize("scatter", [(0.05, 0.6), (0.4, 0.3)])  # uneven and even spreads
def test_plan_asks_for_the_seeds_that_the_page_does(
    blocklab: Blocklab,
    study_file: Path,
    tmp_path: Path,
    make_run: Any,
    scatter: tuple[float, float],
) -> None:
    out = tmp_path / "runs"
    spread: dict[str, float] = dict(zip(("plain", "se"), scatter, strict=True))
    asked = ("--seeds", 4, "--out", out)
    for run in Study.load(study_file, seeds=4).plan():
        score = 50 + spread[run.row.name] * (-1, 1, 0.5, -0.8)[run.definition.seed]
        made_up = {"definition": run.definition.to_dict(), "epochs": 2}
        make_run(out, run.row.name, run.definition.seed, score, **made_up)
    assert blocklab("study", study_file, *asked).status == 0
    folder = next(path.parent for path in out.glob("*/study.json"))
    results = read_study_folder(folder)
    planned = results.planning
    assert planned is not None and (planned.stretch > 1.05) == (scatter == (0.05, 0.6))
    plan = json.loads(blocklab("plan", folder, "--gain", 0.5, "--json").out)
    assert plan["seeds"] == planned.seeds_among_all
    assert (plan["sd"], plan["stretch"]) == (planned.sd, planned.stretch)
    powers = {one["seeds"]: one["power"] for one in plan["powers"]}
    assert powers[plan["seeds"]] >= 0.8
    said = " ".join(plan["lines"])
    assert ("judged as the finished runs are" in said) == (planned.stretch > 1)
    assert f"{planned.seeds_among_all} seeds a row" in said


def test_the_folder_of_a_study_with_looks_is_planned_with_its_own(
    blocklab: Blocklab, study_file: Path, tmp_path: Path, make_run: Any
) -> None:
    out, text = tmp_path / "runs", study_file.read_text()
    assert "seeds: 2" in text
    study_file.write_text(text.replace("seeds: 2", "seeds: {until_decided: {looks: [2, 4, 7]}}"))
    for number, run in enumerate(Study.load(study_file, seeds=14).plan()):
        made_up = {"definition": run.definition.to_dict(), "epochs": 2}
        top1 = 50.0 + (run.row.name == "se") * 0.3 + number % 3
        make_run(out, run.row.name, run.definition.seed, top1, **made_up)
    assert blocklab("study", study_file, "--out", out).status == 0  # trains nothing
    for asked in (out / "tiny", study_file):
        said = blocklab("plan", asked, "--gain", 1, "--out", out)
        assert said.status == 0, said.err
        assert "seeds until decided, looks at 2, 4, 7" in said.out


def test_of_rows_with_looks_of_their_own_the_plan_says_whose_spread_it_has(
    blocklab: Blocklab,
) -> None:
    kept = Path(__file__).parents[2] / "results" / "blocks_c100"
    said = blocklab("plan", kept, "--gain", "0.5")
    assert said.status == 0, said.err
    assert re.search(
        r"11 rows are to be compared; the spread, .* the \d of the last look", said.out
    )
    assert "so far" not in said.out


def test_short_times_are_minutes_and_seconds() -> None:
    shown = [Pilot(1, 0.33, None, taken, "points", ()).plan(1) for taken in (1.5, 100.0, 3000.0)]
    times = [dict((line[0], line[2]) for line in plan.cells())["6"] for plan in shown]
    assert times == ["9 s", "10 min", "5.0 h"]
    assert "min)" in shown[1].lines[0]


def test_an_sd_that_is_known_gives_one_number(
    blocklab: Blocklab, study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lines(*_: object, **__: object) -> list[Mapping[str, Any]]:
        return [{"seconds_left": 20.0, "runs": 2, "finished": 0} for _ in range(2)]

    monkeypatch.setattr(seed_planning, "plan_lines", lines)
    said = blocklab("plan", study_file, "--gain", 1, "--sd", 0.25, "--out", tmp_path, "--json")
    plan = json.loads(said.out)
    assert plan["seeds"] == seeds_needed(0.25, 1.0)
    assert (plan["seeds_low"], plan["sd_low"]) == (None, None)
    assert plan["hours"] == pytest.approx(plan["seeds"] * 20 / 3600)
    assert {one["seeds"]: one["power"] for one in plan["powers"]}[3] == pytest.approx(
        power(0.25, 1.0, 3)
    )
    assert any("estimated from a training step" in line for line in plan["lines"])


def test_three_seeds_say_a_wide_range() -> None:
    plan = Pilot(1, 0.33, 4, None, "points", ()).plan(0.5)
    assert "seeds until decided, looks at 3, 5, 8, 12" in plan.lines[2]
    assert plan.seeds is not None and plan.seeds_low is not None and plan.seeds_high is not None
    assert plan.seeds_low < plan.seeds < plan.seeds_high
    assert plan.hours(3) is None
    far = Pilot(4, 900.0, 4, 60.0, "points", ()).plan(0.5)
    assert far.seeds is None
    assert far.lines[0].startswith("more than 10,000 seeds")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--gain", 0), "--gain is a number above 0"),
        (("--gain", "nan"), "--gain is a number above 0"),
        (("--gain", 1, "--power", 1), "--power is between 0.05 and 1"),
        (("--gain", 1, "--sd", 0), "--sd is a number above 0"),
        (("--gain", 1), "give the SD of one run, such as --sd 0.25"),
    ],
)
def test_what_cannot_be_planned_is_one_line(
    blocklab: Blocklab,
    study_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[object, ...],
    complaint: str,
) -> None:
    monkeypatch.setattr(seed_planning, "_estimated_seconds", lambda *_: None)
    sd = ("--sd", 0.3) if "--sd" not in options and options != ("--gain", 1) else ()
    said = blocklab("plan", study_file, "--out", tmp_path, *options, *sd)
    assert said.status == 2
    assert complaint in said.err
    assert said.err.count("\n") == 1


def test_one_row_and_several_studies_are_not_planned(blocklab: Blocklab, tmp_path: Path) -> None:
    alone = tmp_path / "alone.yaml"
    alone.write_text(
        "title: One\ndata: digits\nrecipe: quick\nseeds: 2\nvaries: []\nrows: {plain: resnet20}\n"
    )
    assert "has one row" in blocklab("plan", alone, "--gain", 1, "--sd", 1).err
    assert "several studies" in blocklab("plan", "report_all", "--gain", 1, "--sd", 1).err
