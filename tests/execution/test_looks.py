"""Studies that go on until they are decided, and what is on record of any study's looks."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from made_up_crew import (
    FILE,
    LATE,
    TINY,
    MadeUp,
    Told,
    design,
    of_another_file,
    rewrite,
    run,
    undated,
    words,
)

from blocklab.errors import InputError
from blocklab.execution.dry_run import look_lines
from blocklab.execution.study_folder import check_as_it_ran, threads_begun_with
from blocklab.execution.train_studies import train_studies
from blocklab.report.page import write_report
from blocklab.results.design_file import write_design
from blocklab.results.records import keep_records
from blocklab.results.study_folder import read_study_folder
from blocklab.results.study_results import StudyResults
from blocklab.study.study import Study


def planned_runs(file: Path, out: str = "runs") -> tuple[int, int]:
    (line,) = look_lines([Study.load(file)], file.parent / out)
    return line["fewest_runs"], line["most_runs"]


def test_rows_stop_once_they_are_decided_and_the_doubt_goes_on(file: Path) -> None:
    told = Told()
    results = run(file, told)
    looks = design(file).looks
    assert words(results)["se"] == "better" and "se" not in looks[0].going
    assert looks[0].going and len(looks) > 1  # or the means say nothing about going on
    seeds = {row.name: len(row.finished) for row in results.rows}
    assert seeds["se"] == 3 and seeds["plain"] == 2 * max(seeds["eca"], seeds["gct"])
    # What a dry run says: of a study that has not begun, and of this one, which has no more to do.
    assert planned_runs(file, "elsewhere") == (3 * 3 + 6, 3 * 8 + 16)
    assert planned_runs(file) == (sum(seeds.values()),) * 2 == (MadeUp.made,) * 2
    assert told.said[0] == "look 1 of 3: 3 rows at 3 seeds each"
    assert told.said[1].startswith("look 2 of 3: ") and told.said[-1].startswith("decided after")
    gap = results.comparisons["se"].difference
    assert gap and (gap.n, gap.n_baseline) == (3, 6)
    assert {row: one.verdicts[row] for one in looks[-1:] for row in one.verdicts} == words(results)
    notes = "\n".join(results.remarks)
    assert "seeds until decided: looks at 3, 5 and 8 seeds of a row, the baseline with 2" in notes
    assert "look 1 of 3, 20" in notes and "se better" in notes
    keep_records(file.parent / "runs/looks", file.parent / "kept")
    assert words(read_study_folder(file.parent / "kept")) == words(results)
    # A rerun has nothing to do, and changes nothing.
    before, made = (file.parent / "runs/looks/design.json").read_bytes(), MadeUp.made
    assert words(run(file)) == words(results) and MadeUp.made == made
    assert (file.parent / "runs/looks/design.json").read_bytes() == before


@pytest.mark.parametrize("dies_at", [4, 15])
def test_a_study_killed_at_any_run_comes_to_the_same_looks(file: Path, dies_at: int) -> None:
    whole = words(run(file)), undated(file), MadeUp.made
    (file.parent / "runs").rename(file.parent / "before")
    MadeUp.made, MadeUp.dies_at = 0, dies_at
    with pytest.raises(KeyboardInterrupt):
        run(file)
    folder = file.parent / "runs/looks"
    midway = read_study_folder(folder)
    number = 1 if dies_at < 15 else 2
    assert midway.advice == ()  # the study itself knows which seeds come next
    assert f"not decided yet: look {number} of 3 is at" in "\n".join(midway.remarks)
    if number == 1:
        assert set(words(midway).values()) == {"too few seeds"}
        assert midway.comparisons["se"].reason == "the first look is at 3 seeds"
    MadeUp.dies_at = None
    assert (words(run(file)), undated(file), MadeUp.made) == whole


def test_runs_that_fail_are_seen_and_a_row_without_any_stops(file: Path) -> None:
    MadeUp.fails = ("eca",)
    results = run(file)
    looks = design(file).looks
    assert words(results)["se"] == "better" and words(results)["eca"] == "too few seeds"
    assert "eca" not in looks[0].going and looks[0].seeds.get("eca") == []
    MadeUp.fails = ("plain",)
    (file.parent / "runs").rename(file.parent / "before")
    run(file)
    assert design(file).looks == []  # there is nothing to compare with


def test_runs_that_failed_once_are_waited_for(file: Path) -> None:
    """The disk was full for an hour: by the next command they finish, and a look reads them."""
    whole = words(run(file)), undated(file)
    (file.parent / "runs").rename(file.parent / "before")
    MadeUp.made, MadeUp.fails_from = 0, 17
    told = Told()
    run(file, told)
    assert undated(file) == whole[1][:1]  # the first look had all of its runs
    assert told.said[-1].startswith("look 2 of 3: ")
    MadeUp.fails_from = None
    assert (words(run(file)), undated(file)) == whole


def test_runs_that_fail_again_are_seen(file: Path) -> None:
    run(file)
    assert len(design(file).looks) > 1
    (file.parent / "runs").rename(file.parent / "before")
    MadeUp.made, MadeUp.fails_from = 0, 17
    run(file)
    MadeUp.made = 16
    run(file)
    second = design(file).looks[1]
    assert len(second.seeds["plain"]) < 10 and second.planned == 5
    assert all(len(second.seeds[row]) < 5 for row in design(file).looks[0].going[1:])


@pytest.mark.parametrize("other_dies_at", [None, 17])
def test_two_commands_on_one_study_take_each_look_once(
    file: Path, other_dies_at: int | None
) -> None:
    whole = words(run(file)), undated(file), MadeUp.made
    (file.parent / "runs").rename(file.parent / "before")

    def other() -> None:
        MadeUp.dies_at = other_dies_at
        with suppress(KeyboardInterrupt):
            run(file)
        MadeUp.dies_at = None

    MadeUp.made, MadeUp.meanwhile = 0, other
    assert (words(run(file)), undated(file), MadeUp.made) == whole


def test_a_look_reads_the_seeds_that_it_planned(file: Path) -> None:
    """Another command that began before a look may write its fewer seeds after it."""
    whole = words(run(file)), undated(file)
    (file.parent / "runs").rename(file.parent / "before")
    record, written = file.parent / "runs/looks/study.json", dict[int, bytes]()
    for dies_at in (4, 17):
        MadeUp.made, MadeUp.dies_at = 0 if dies_at == 4 else 4, dies_at
        with pytest.raises(KeyboardInterrupt):
            run(file)
        written[dies_at] = record.read_bytes()
    assert len(written[4]) < len(written[17]) and len(design(file).looks) == 1
    MadeUp.dies_at, MadeUp.meanwhile = None, lambda: record.write_bytes(written[4])
    run(file)
    assert len(design(file).looks) == 1
    assert (words(run(file)), undated(file)) == whole


def test_a_row_that_was_taken_out_and_put_back_is_looked_at(file: Path) -> None:
    MadeUp.dies_at = 16
    with pytest.raises(KeyboardInterrupt):
        run(file)
    MadeUp.dies_at = None
    (first,) = design(file).looks
    assert "gct" in first.going
    row = f"  gct: {TINY[:-1]}, attention: gct}}\n"
    rewrite(file, row, "")
    before = run(file)
    looks = design(file).looks
    assert len(looks) > 1 and all("gct" not in look.verdicts for look in looks[1:])
    rewrite(file, "claims:", f"{row}claims:")
    results = run(file)
    assert words(results)["gct"] != "too few seeds"
    after = design(file).looks
    late = [look for look in after[len(looks) :] if look.looked_at == {"gct"}]
    assert after[: len(looks)] == looks and [one.planned for one in late] == [3, 5, 8][: len(late)]
    assert late and "gct: back after a look, so with looks of its own" in "".join(
        results.design_notes
    )
    # What it was, of the others: their looks counted the row before, and go on to.
    assert shown(results, ["se", "eca"]) == shown(before, ["se", "eca"])
    assert undated(file) == (run(file) and undated(file))


def test_each_study_keeps_the_threads_that_it_began_with(file: Path) -> None:
    """Also where both run together: they decide bits."""
    other = file.with_name("other.yaml")
    other.write_text(file.read_text().replace("title: Looks", "title: Other"))
    out, both = file.parent / "runs", [Study.load(file), Study.load(other)]
    MadeUp.dies_at = 3
    for study, threads in zip(both, (1, 2), strict=True):
        with pytest.raises(KeyboardInterrupt):
            train_studies((study,), out, 1, threads=threads)
        MadeUp.dies_at = MadeUp.made + 3
    MadeUp.dies_at = None
    train_studies(both, out, 1)
    assert [threads_begun_with(out / one.folder_name) for one in both] == [1, 2]


def test_a_cluster_takes_no_number_of_workers(file: Path) -> None:
    with pytest.raises(InputError, match="leave --workers out"):
        train_studies((Study.load(file),), file.parent / "runs", 2, ray="auto")


def test_records_of_a_tuned_study_are_kept(file: Path) -> None:
    rewrite(file, "{until_decided: {looks: [3, 5, 8]}}", "3\ntune: {lr: [0.1, 0.2], seeds: [7]}")
    run(file)
    check_as_it_ran(Study.load(file), file.parent / "runs")
    rewrite(file, "claims:", "title: Another\nclaims:")
    rewrite(file, "\ntitle: Looks\n", "\n")
    with pytest.raises(InputError, match="its title is 'Looks'"):
        check_as_it_ran(Study.load(file), file.parent / "runs")


def shown(results: StudyResults, rows: Sequence[str]) -> list[Any]:
    return [results.comparisons[row] for row in rows]


@pytest.mark.parametrize("dies_at", [None, 15])
def test_rows_that_come_after_a_look_are_looked_at_from_the_first_and_change_nothing(
    file: Path, dies_at: int | None
) -> None:
    """Also where the rows before them are not decided yet."""
    if dies_at is not None:
        MadeUp.dies_at = dies_at
        with pytest.raises(KeyboardInterrupt):
            run(file)
        MadeUp.dies_at = None
        before = read_study_folder(file.parent / "runs/looks")
        # After the first look, which ended se: two rows at 5 or 8 seeds and twice those of plain.
        assert planned_runs(file) == (3 + 2 * 5 + 10, 3 + 2 * 8 + 16)
    else:
        before = run(file)
    looks = design(file).looks
    old = [row for row in before.comparisons if dies_at is None or row not in looks[-1].going]
    assert old and MadeUp.made
    rewrite(file, "claims:", f"{LATE}claims:")
    told = Told()
    results = run(file, told)
    # The looks on record stand, and so does every word and interval that they gave.
    after = design(file).looks
    assert [one.model_dump() for one in after[: len(looks)]] == [one.model_dump() for one in looks]
    assert shown(results, old) == shown(before, old)
    late = [one for one in after if "simam" in one.verdicts]
    assert [one.planned for one in late] == [3, 5, 8][: len(late)] and late
    assert all(set(one.verdicts) == {"simam", "ela"} for one in late)
    seeds = {row.name: len(row.finished) for row in results.rows}
    assert seeds["ela"] in (3, 5, 8) and words(results)["ela"] == "worse" and seeds["ela"] == 3
    assert words(results)["simam"] not in ("too few seeds",)
    notes = "\n".join(results.design_notes)
    assert "simam, ela: first run after a look, so with looks of their own, at 5 % of them" in notes
    assert (
        "; here 2 groups of rows are looked at, each by itself: any of all rows in at most 10 %"
        in notes
    )
    assert "ela worse" in notes and "its runs as they are now" not in notes
    at_once = {row.name: row.at_once for row in results.rows if row.name != results.baseline}
    firsts = sum(row not in ("simam", "ela") for row in at_once)
    assert at_once == {row: 2 if row in ("simam", "ela") else firsts for row in at_once}
    together = "all rows that were looked at together"
    assert "groups of rows" not in "\n".join(before.design_notes)
    assert before.held_for == "all rows at once" and results.held_for == together
    if dies_at is not None:
        assert "look 2 of 3: " in told.said[0] and "; look 1 of 3: 2 rows at 3" in told.said[0]
    assert len(set(results.how_judged)) == len(results.how_judged)
    page = write_report(results, file.parent / "runs/looks").read_text()
    assert "simam, ela (look 1): Dunnett" in page or "ela (look 1): " in page
    assert f"an interval that holds for {together}." in page
    assert "rows at once" not in page.replace("for all rows at once</dt>", "")
    # Nothing is left to do.
    made = MadeUp.made
    assert shown(run(file), list(words(results))) == shown(results, list(words(results)))
    assert MadeUp.made == made


def test_groups_that_were_taken_out_again_still_count_in_the_studys_chance(file: Path) -> None:
    """Else whoever tries rows one after another, and leaves each out, always reads 10 %."""
    simam, ela = LATE.splitlines(keepends=True)
    run(file)
    rewrite(file, "claims:", f"{simam}claims:")
    assert "any of all rows in at most 10 %" in run(file).design_notes[0]
    rewrite(file, simam, ela)
    results = run(file)
    assert "here 3 groups of rows" in results.design_notes[0]
    assert "any of all rows in at most 15 %" in results.design_notes[0]
    assert results.held_for == "all rows that were looked at together"


def test_a_row_whose_runs_had_failed_at_the_looks_is_looked_at_once_they_finish(
    file: Path,
) -> None:
    MadeUp.fails = ("eca",)
    before = run(file)
    assert words(before)["eca"] == "too few seeds"
    assert before.comparisons["eca"].reason == "the first look is at 3 seeds"
    MadeUp.fails = ()
    results = run(file)
    assert words(results)["eca"] not in ("too few seeds",)
    assert shown(results, ["se", "gct"]) == shown(before, ["se", "gct"])
    assert "not decided yet" not in "\n".join(results.design_notes)


def test_a_look_on_record_keeps_its_level_and_what_it_ended(file: Path) -> None:
    """Whatever levels and rule this version would have had for it."""
    run(file)
    folder = file.parent / "runs/looks"
    there = design(file)
    first = there.looks[0].model_copy(
        update={
            "level": 0.031,
            "going": ["gct"],
            "verdicts": {**there.looks[0].verdicts, "eca": "futile"},
        }
    )
    write_design(folder, there.model_copy(update={"looks": [first]}))
    results = read_study_folder(folder)
    ((taken,),) = [wave.looks for wave in results.waves if wave.looks]
    assert taken.level == 0.031 and taken.going == ("gct",)
    assert words(results)["eca"] == "futile"
    assert "look 1 said" not in "\n".join(results.design_notes)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("looks: [3, 5, 8]", "looks: [3, 5, 9]", "looks: [3, 5, 8], gain: 0.5"),
        ("looks: [3, 5, 8]", "looks: [3, 5, 8], gain: 0.2", "gain: 0.2"),
        ("{until_decided: {looks: [3, 5, 8]}}", "8", "now says a number of seeds"),
        ("varies:", "baseline: se\nvaries:", "with baseline: plain"),
        ("epochs: 1", "epochs: 1, trivial_augment: true", "recipe.trivial_augment not set"),
        ("test_images: 50", "test_images: 50, vary_split: true", "data.vary_split not set"),
    ],
)
def test_looks_that_change_after_a_look_are_refused(
    file: Path, old: str, new: str, says: str
) -> None:
    MadeUp.dies_at = 17
    with pytest.raises(KeyboardInterrupt):
        run(file)
    rewrite(file, old, new)
    with pytest.raises(InputError) as refused:
        run(file)
    assert says in str(refused.value) and "\n" not in str(refused.value)
    assert "put back" in str(refused.value) or "is another study's" in str(refused.value)


def test_runs_that_a_look_saw_may_not_become_others(file: Path) -> None:
    """As where the file of a user's block is edited: its digest is part of what defines a run."""
    MadeUp.dies_at = 17
    with pytest.raises(KeyboardInterrupt):
        run(file)
    of_another_file(file, "eca")
    with pytest.raises(InputError, match="with other runs of its row 'eca': its recipe, data"):
        run(file)


@pytest.mark.parametrize(
    ("seeds", "says"),
    [
        ("{looks: [3, 3]}", "looks are seeds a row that rise"),
        ("{until_decided: {looks: [5, 3]}}", "looks are seeds a row that rise"),
        ("{from: 5, to: 3}", "does not rise"),
        ("{until_decided: {gain: 0}}", "greater than 0"),
        ("{until_decided: {form: 3}}", "did you mean 'from'"),
        ("{until_decided: 3}", "takes such as {from: 3, to: 12}, not 3"),
        ("{looks: [1, 3]}", "after 2 to 200 seeds"),
    ],
)
def test_looks_that_are_none_are_one_line(file: Path, seeds: str, says: str) -> None:
    rewrite(file, "{until_decided: {looks: [3, 5, 8]}}", seeds)
    with pytest.raises(InputError) as refused:
        Study.load(file)
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_seeds_of_the_command_line_are_a_number(file: Path) -> None:
    study = Study.load(file, seeds=4)
    assert study.looks is None and study.seeds == (0, 1, 2, 3)
    assert study.folder_name == "looks+seeds=4"
    paired = FILE.replace("varies:", "paired: true\nvaries:")
    file.write_text(paired)
    assert Study.load(file).seeds_of("plain") == (0, 1, 2)  # as its rows


@pytest.mark.slow
def test_a_study_on_digits_that_is_killed_between_looks_ends_as_it_would_have(file: Path) -> None:
    rewrite(file, f"  eca: {TINY[:-1]}, attention: eca}}\n", "")
    rewrite(file, f"  gct: {TINY[:-1]}, attention: gct}}\n", "")
    rewrite(file, "looks: [3, 5, 8]", "looks: [3, 4, 5], gain: 0.001")
    rewrite(file, "train_images: 60, test_images: 50", "image_size: 16, test_images: 300")
    command = [
        sys.executable,
        "-c",
        "import sys; from blocklab_command import main; sys.exit(main())",
    ]
    command += ["study", str(file), "--workers", "1", "--out"]
    whole, killed = (file.parent / name for name in ("whole", "runs"))
    subprocess.run([*command, str(whole)], check=True, capture_output=True)
    process = subprocess.Popen([*command, str(killed)], start_new_session=True)
    record = killed / "looks/design.json"
    while not (record.exists() and json.loads(record.read_text())["looks"]):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run([*command, str(killed)], check=True, capture_output=True)
    both = [read_study_folder(out / "looks") for out in (whole, killed)]
    timed = ("train_seconds_mean", "images_per_second_mean")
    lines = [[{**row} | dict.fromkeys(timed) for row in one.summary_lines] for one in both]
    assert words(both[0]) == words(both[1]) and lines[0] == lines[1]
    seen = [[look.seeds for look in one.design.looks] for one in both if one.design]
    assert seen[0] == seen[1] and len(seen[0]) > 1
