"""What a study says of itself that came after its runs were known."""

import json
import re
import shutil
from pathlib import Path

import pytest
from made_up_crew import LATE, TINY, design, of_another_file, rewrite, run, words

from blocklab.errors import InputError, RunError
from blocklab.execution.study_folder import study_folder
from blocklab.report.page import write_report
from blocklab.results.design_file import read_design, write_design
from blocklab.results.records import keep_records
from blocklab.results.stored_runs import matching, stored_runs
from blocklab.results.study_folder import read_study_folder
from blocklab.study.study import Study


def test_what_comes_after_the_runs_is_marked_and_what_is_dropped_still_counts(file: Path) -> None:
    rewrite(file, "{until_decided: {looks: [3, 5, 8]}}", "3")
    first = run(file)
    assert first.design_notes == () and first.family.rows == 3
    rewrite(file, "claims: [se > plain]", "claims: [eca < se]")
    rewrite(
        file,
        f"  gct: {TINY[:-1]}, attention: gct}}\n",
        f"  simam: {TINY[:-1]}, attention: simam}}\n",
    )
    results = run(file)
    assert [row.name for row in results.rows] == ["plain", "se", "eca", "simam"]
    notes = "\n".join(results.design_notes)
    assert "dropped after it had run, and counted among the rows: gct (3 seeds" in notes
    assert "added after 12 runs had finished: row simam" in notes
    assert "stated after 12 runs had finished: claim eca < se" in notes
    assert "stated and dropped, and counted in p (Holm): claim se > plain" in notes
    assert results.judgements[0].numbers.endswith("; stated after the runs")
    rewrite(file, f"  simam: {TINY[:-1]}, attention: simam}}\n", "")
    fewer = run(file)
    assert fewer.family.rows == 4 == results.family.rows  # the dropped ones count
    assert fewer.family.critical == results.family.critical
    folder = file.parent / "runs/looks"
    assert "counted among the rows: gct" in write_report(fewer, folder).read_text()


def take_out(file: Path, *rows: str) -> None:
    lines = file.read_text().splitlines(True)
    file.write_text("".join(one for one in lines if not one.strip().startswith(rows)))


@pytest.mark.parametrize("looks", [False, True])
@pytest.mark.parametrize("paired", [False, True])
def test_rows_that_are_taken_out_change_no_verdict_of_the_others(
    file: Path, looks: bool, paired: bool
) -> None:
    """Nor an interval or p: whoever takes them out has seen what they do to the spread."""
    if not looks:
        rewrite(file, "{until_decided: {looks: [3, 5, 8]}}", "4")
    if paired:
        rewrite(file, "varies: [attention]", "varies: [attention]\npaired: true")
    rewrite(file, "claims:", f"{LATE}claims:")
    before = run(file)
    assert before.family.rows == 5
    take_out(file, "eca:", "gct:", "ela:")
    after = run(file)
    assert [row.name for row in after.rows] == ["plain", "se", "simam"]
    for row in ("se", "simam"):
        one, was = after.comparisons[row], before.comparisons[row]
        assert one == was and one.difference and one.difference.p
    assert after.family.unevenness_p == before.family.unevenness_p
    assert after.judgements == before.judgements and "supported" in str(after.judgements)
    assert not [note for note in after.design_notes if "its runs as they are now" in note]
    keep_records(file.parent / "runs/looks", file.parent / "kept")
    kept = read_study_folder(file.parent / "kept")
    assert kept.comparisons == after.comparisons and kept.judgements == after.judgements


def test_a_row_that_was_taken_out_counts_when_its_runs_are_gone(file: Path) -> None:
    rewrite(file, "{until_decided: {looks: [3, 5, 8]}}", "3")
    before = run(file)
    take_out(file, "eca:", "gct:")
    run(file)
    out = file.parent / "runs"
    assert matching(stored_runs(out), no_study=True) == []
    for row in ("eca", "gct"):
        for run_hash in design(file).rows[row].runs.values():
            shutil.rmtree(out / run_hash)
    after = run(file)
    assert after.family.rows == before.family.rows == 3
    assert len([note for note in after.design_notes if "counted among the rows" in note]) == 2
    gap, was = after.comparisons["se"].difference, before.comparisons["se"].difference
    assert gap and was and gap.mean == was.mean and gap.p != was.p  # by fewer degrees of freedom


def test_a_row_whose_runs_are_others_now_was_not_stated_before_them(file: Path) -> None:
    """As where the file of a user's block is edited once it has run."""
    rewrite(file, "{until_decided: {looks: [3, 5, 8]}}", "3")
    rewrite(file, "claims: [se > plain]", "claims: [se > plain, gct > plain]")
    run(file)
    of_another_file(file, "se")
    results = run(file)
    assert design(file).rows["se"].after_runs == 12 and design(file).rows["gct"].after_runs == 0
    assert "added after 12 runs had finished: row se" in results.design_notes
    assert "stated after 12 runs had finished: claim se > plain" in results.design_notes
    rewrite(file, "epochs: 1", "epochs: 1, random_erasing: 0.5")
    with pytest.raises(
        InputError, match=r"has recipe\.random_erasing not set, and this one's 0\.5"
    ):
        run(file)


def test_a_claim_that_is_new_in_a_new_folder_is_as_late_as_its_runs_are_known(file: Path) -> None:
    rewrite(file, "{until_decided: {looks: [3, 5, 8]}}", "3")
    run(file)
    rewrite(file, "claims: [se > plain]", "claims: [se > plain, eca < plain, simam > plain]")
    rewrite(file, "claims:", f"{LATE}claims:")
    results = run(file, rows=["plain", "se", "eca", "simam"])  # a folder of its own
    late = [one.claim for one in results.judgements if one.numbers.endswith("after the runs")]
    assert late == ["eca < plain"]  # of the others one stands in the first folder
    assert "stated after 9 runs had finished: claim eca < plain" in results.design_notes


def test_a_claim_that_the_file_made_of_a_row_left_out_was_stated_with_it(file: Path) -> None:
    """A part of a study that grows by rows: they are new, what the file says of them is not."""
    rewrite(file, "{until_decided: {looks: [3, 5, 8]}}", "3")
    rewrite(file, "claims: [se > plain]", "claims: [se > plain, eca > plain, gct > plain]")
    out, chosen = file.parent / "runs", ["plain", "se"]
    part, more = (Study.load(file, rows=rows) for rows in (chosen, [*chosen, "eca"]))
    assert part.claims_left_out == ("eca > plain", "gct > plain")
    run(file, rows=chosen)
    (out / part.folder_name).rename(out / more.folder_name)  # as from its records
    results = run(file, rows=[*chosen, "eca"])
    assert "added after 6 runs had finished: row eca" in results.design_notes
    assert not [note for note in results.design_notes if "stated" in note]
    assert [one.claim for one in results.judgements] == ["se > plain", "eca > plain"]
    assert not [one for one in results.judgements if "stated after" in one.numbers]
    (out / more.folder_name).rename(out / part.folder_name)
    assert not [note for note in run(file, rows=chosen).design_notes if "stated" in note]


def test_a_margin_that_is_stated_or_changed_after_runs_is_said(file: Path) -> None:
    rewrite(file, "{until_decided: {looks: [3, 5, 8]}}", "3")
    assert run(file).design_notes == ()
    rewrite(file, "varies: [attention]", "varies: [attention]\nmargin: 0.5")
    assert "stated after 12 runs had finished: margin 0.5" in run(file).design_notes
    rewrite(file, "margin: 0.5", "margin: 2")
    notes = run(file).design_notes
    assert "stated and dropped: margin 0.5" in notes
    assert "stated after 12 runs had finished: margin 2" in notes


def test_a_margin_that_ends_rows_may_not_change_after_a_look(file: Path) -> None:
    run(file)
    rewrite(file, "varies: [attention]", "varies: [attention]\nmargin: 0.5")
    with pytest.raises(
        InputError, match=r"looked at with margin: None, and its file now says 0\.5"
    ):
        run(file)


@pytest.mark.parametrize("by_option", [False, True])
def test_seeds_that_are_added_after_a_look_are_said_with_their_price(
    file: Path, by_option: bool
) -> None:
    rewrite(file, "{until_decided: {looks: [3, 5, 8]}}", "3")
    run(file)
    assert run(file).design_notes == ()  # the same look again
    if not by_option:
        rewrite(file, "seeds: 3", "seeds: 6")
    results = run(file, seeds=6) if by_option else run(file)
    said = next(note for note in results.design_notes if note.startswith("seeds were added"))
    assert "had been looked at with 3 seeds before these 6" in said
    chance = float(said.split(" %, not 5 %")[0].rsplit(" ", 1)[1])
    assert 7 < chance < 9.5


def test_a_folder_of_before_reads_as_it_did_and_a_damaged_record_is_one_line(file: Path) -> None:
    rewrite(file, "{until_decided: {looks: [3, 5, 8]}}", "3")
    results = run(file)
    folder = study_folder(Study.load(file), file.parent / "runs")
    (folder / "design.json").unlink()
    old = read_study_folder(folder)
    assert old.design is None and words(old) == words(results) and old.design_notes == ()
    assert run(file).design_notes == ("12 runs had finished before this study was stated",)
    content = json.loads((folder / "design.json").read_text())
    content["looks"][0]["planned"] = 2
    (folder / "design.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"design\.json is damaged") as damaged:
        read_study_folder(folder)
    assert "\n" not in str(damaged.value)


def test_what_rows_are_compared_with_and_how_is_marked_where_it_changes(file: Path) -> None:
    """Whoever knows the verdicts could choose the test that says better."""
    rewrite(file, "{until_decided: {looks: [3, 5, 8]}}", "3")
    assert run(file).design_notes == ()
    rewrite(file, "varies: [attention]", "varies: [attention]\npaired: true")
    notes = run(file).design_notes
    assert "stated after 12 runs had finished: seeds paired" in notes
    assert "stated and dropped: seeds not paired" in notes
    rewrite(file, "paired: true", "baseline: eca")
    notes = run(file).design_notes
    assert "stated after 12 runs had finished: baseline eca" in notes
    assert "stated and dropped: baseline plain" in notes
    rewrite(file, "\nbaseline: eca", "")
    assert "stated and dropped: baseline eca" in run(file).design_notes
    assert not any("finished: baseline" in note for note in run(file).design_notes)


@pytest.mark.parametrize("seeds", [(0, 2), (3, 4, 5)])
def test_seeds_that_are_chosen_after_others_were_looked_at_are_said(
    file: Path, seeds: tuple[int, ...]
) -> None:
    """Also where they share no run: the rows are the same."""
    rewrite(file, "{until_decided: {looks: [3, 5, 8]}}", "3")
    run(file)
    chosen = run(file, seeds=seeds)
    said = [note for note in chosen.design_notes if "looked at elsewhere" in note]
    assert len(said) == 1 and "with seeds 0 to 2" in said[0]
    rewrite(file, "title: Looks", "title: Others")  # other rows are no other look at these
    rewrite(file, "epochs: 1", "epochs: 2")
    other = run(file.rename(file.with_name("others.yaml")), seeds=seeds)
    assert not any("elsewhere" in note for note in other.design_notes)


def test_a_look_before_seeds_until_decided_is_said(file: Path) -> None:
    rewrite(file, "{until_decided: {looks: [3, 5, 8]}}", "3")
    run(file, seeds=4)
    rewrite(file, "seeds: 3", "seeds: {until_decided: {looks: [3, 5, 8]}}")
    notes = "\n".join(run(file).design_notes)
    assert "looked at elsewhere" in notes and "with seeds 0 to 3" in notes


def test_a_claim_that_is_dropped_counts_in_the_correction_of_the_others(file: Path) -> None:
    rewrite(file, "{until_decided: {looks: [3, 5, 8]}}", "3")
    rewrite(
        file,
        "claims: [se > plain]",
        "claims: [se > plain, gct > plain, eca > gct, se < eca in macs]",
    )
    before = run(file).judgements[0]
    rewrite(file, ", gct > plain, eca > gct, se < eca in macs]", "]")
    results = run(file)
    (after,) = results.judgements
    assert before.p and after.p == before.p
    assert after.p_holm == pytest.approx(min(1, 3 * after.p)) == before.p_holm  # costs are no test
    assert "stated and dropped, and counted in p (Holm): claim eca > gct" in results.design_notes


def test_a_design_of_another_study_is_one_line(file: Path) -> None:
    """With its looks a verdict would go, and its levels be another's."""
    run(file)
    folder, other = file.parent / "runs/looks", file.parent / "runs/others"
    rewrite(file, "title: Looks", "title: Others")
    rewrite(file, "epochs: 1", "epochs: 2")
    run(file.rename(file.with_name("others.yaml")))
    (folder / "design.json").write_bytes((other / "design.json").read_bytes())
    with pytest.raises(RunError, match=r"is another study's \(it has other runs of row") as refused:
        read_study_folder(folder)
    assert "\n" not in str(refused.value)
    there = read_design(other)
    assert there is not None
    for changed, why in (
        ({"baseline": "se"}, "its baseline is se, and the study's plain"),
        ({"rows": {n: r for n, r in there.rows.items() if n != "eca"}}, "it has no row 'eca'"),
        ({"claims": {}}, "it has no claim 'se > plain'"),
        ({"paired": True}, "it is paired, and the study not paired"),
        ({"margin": 1.5}, "its margin is 1.5, and the study's None"),
    ):
        write_design(other, there.model_copy(update=changed))
        with pytest.raises(RunError, match=re.escape(why)):
            read_study_folder(other)


def test_a_row_that_ended_early_says_with_how_many_seeds_of_the_baseline_it_was_compared(
    file: Path,
) -> None:
    results = run(file)
    rows = {row.name: row for row in results.rows}
    assert rows["se"].score and rows["plain"].score and rows["se"].difference
    shown = rows["se"].score.mean - rows["plain"].score.mean
    assert abs(shown - rows["se"].difference.mean) > 0.01  # the two means beside it say another
    n = len(rows["plain"].finished)
    assert f"its difference is to 6 of the {n} seeds of plain" in "\n".join(rows["se"].notes)
    last = max(rows.values(), key=lambda row: len(row.finished) * (row.name != "plain"))
    assert not any("its difference is to" in note for note in last.notes)
    page = write_report(results, file.parent / "runs/looks").read_text()
    assert "that ended at a look before the last" in page
