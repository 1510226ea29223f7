"""``blocklab records``: a study's page from its records alone, and its runs trained again."""

import json
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from blocklab.study.study import Study

Blocklab = Any


def test_records_make_the_page_and_can_be_verified(
    blocklab: Blocklab, study_file: Path, trained: Path, tmp_path: Path
) -> None:
    out, kept = trained, tmp_path / "kept"
    assert blocklab("study", study_file, "--out", out).status == 0
    said = blocklab("records", study_file, kept, "--out", out)
    assert said.status == 0, said.err
    assert said.out.startswith("4 runs kept: ")
    assert (kept / "study.yaml").read_text() == study_file.read_text()
    shutil.rmtree(out)
    (kept / "report.html").unlink()
    reported = blocklab("report", kept)
    assert reported.status == 0, reported.err
    assert "Two tiny networks" in (kept / "report.html").read_text()

    verified = blocklab("study", "--verify", kept / "plain:0")
    assert verified.status == 0, verified.out + verified.err
    assert "the same to the bit (log, result, predictions, weights" in verified.out

    used = blocklab("evaluate", kept / "plain:0")
    assert used.status == 2
    assert used.err.count("\n") == 1 and "kept without its weights" in used.err

    # a folder that is no record misses its weights
    run = next(path.parent for path in kept.glob("runs/*/record.json"))
    (run / "record.json").unlink()
    assert "model.safetensors is gone" in blocklab("report", kept).out


def test_a_changed_study_is_kept_by_the_words_it_ran_by(
    blocklab: Blocklab, study_file: Path, trained: Path, tmp_path: Path
) -> None:
    """Its folder is not that of the study as its file has it."""
    kept = tmp_path / "kept"
    changed = ["--seeds", "1", "--rows", "plain"]
    assert blocklab("study", study_file, *changed, "--out", trained).status == 0
    said = blocklab("records", study_file, kept, *changed, "--out", trained)
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith("1 runs kept: ")
    assert [row["name"] for row in json.loads((kept / "study.json").read_text())["rows"]] == [
        "plain"
    ]


def test_records_are_of_the_study_as_its_file_has_it(
    blocklab: Blocklab, study_file: Path, trained: Path, tmp_path: Path
) -> None:
    """A study.yaml that says other than the runs beside it would be a wrong record."""
    out, kept, ran = trained, tmp_path / "kept", study_file.read_text()
    assert blocklab("study", study_file, "--out", out).status == 0
    design = (out / "tiny" / "design.json").read_bytes()
    for ours, theirs, said in (
        ("batch_size: 16", "batch_size: 8", "its row 'plain' has recipe.batch_size 16"),
        ("seeds: 2", "seeds: 1", "it has seed 1, which this one has not"),
        (
            "seeds: 2",
            "seeds: {until_decided: {from: 2, to: 3}}",
            "its seeds are 0, 1, and not until decided",
        ),
        ("seeds: 2", "seeds: 3", "its seeds are 0, 1"),
        ("Two tiny networks", "Three", "its title is 'Two tiny networks'"),
        ("seeds: 2", "seeds: 2\ndescription: two", "its description is ''"),
        ("seeds: 2", "seeds: 2\nnotes: [one]", "its notes are others"),
        ("seeds: 2", "seeds: 2\nmargin: 0.5", "its margin is 'None'"),
        ("resnet20_se", "resnet20_se\nclaims: [se > plain]", "its claims are others"),
        ("resnet20_se", "resnet20_se\n  ca: resnet20_ca", "its rows are others: ca"),
        ("\n  se: resnet20_se", "", "its rows are others: se"),
    ):
        assert ours in ran
        study_file.write_text(ran.replace(ours, theirs))
        refused = blocklab("records", study_file, kept, "--out", out)
        assert (refused.status, refused.err.count("\n")) == (2, 1), (theirs, refused)
        assert said in refused.err and not kept.exists()
        again = "run `blocklab study` with it again" in refused.err
        assert again or "put the file back as it ran" in refused.err
    assert (out / "tiny" / "design.json").read_bytes() == design
    study_file.write_text(ran + "claims: [se > plain in params]\n")
    assert blocklab("study", study_file, "--out", out).status == 0
    assert blocklab("records", study_file, kept, "--out", out).status == 0


def test_a_design_that_was_removed_is_missed(
    blocklab: Blocklab, study_file: Path, trained: Path
) -> None:
    """Without it a claim that was made after the runs looks like one made before."""
    assert blocklab("study", study_file, "--out", trained).status == 0
    page = trained / "tiny" / "report.html"
    assert "design.json is gone" not in page.read_text()
    (trained / "tiny" / "design.json").unlink()
    assert blocklab("report", trained / "tiny").status == 0
    assert "design.json is gone: whether rows, claims and seeds were stated" in page.read_text()


def test_a_page_stays_where_its_runs_are_gone(
    blocklab: Blocklab, study_file: Path, trained: Path, tmp_path: Path
) -> None:
    assert blocklab("study", study_file, "--out", trained).status == 0
    kept = tmp_path / "kept"
    assert blocklab("records", study_file, kept, "--out", trained).status == 0
    page = (kept / "report.html").read_text()
    (kept / "runs").rename(tmp_path / "elsewhere")
    (kept / "runs").mkdir()
    refused = blocklab("report", kept)
    assert refused.status == 2 and (kept / "report.html").read_text() == page
    assert refused.err.startswith(
        f"error: none of the runs of {kept} is in {kept / 'runs'} any more"
    )
    (kept / "report.html").unlink()
    assert blocklab("report", kept).status == 0
    assert blocklab("report", kept).status == 0, "that page was of none already"


def test_no_page_of_a_collection_is_lost_where_its_runs_are_gone(
    blocklab: Blocklab, study_file: Path, trained: Path, tmp_path: Path
) -> None:
    both, kept = tmp_path / "both.yaml", tmp_path / "kept"
    both.write_text("title: Both\nseeds: 1\nstudies: [tiny.yaml]\n")
    (tmp_path / "copy.yaml").write_text(study_file.read_text().replace("Two tiny", "Two more"))
    both.write_text("title: Both\nseeds: 1\nstudies: [tiny.yaml, copy.yaml]\n")
    assert blocklab("study", both, "--out", trained).status == 0
    assert blocklab("records", both, kept, "--out", trained).status == 0
    pages = {path: path.read_text() for path in kept.rglob("report.html")}
    shutil.rmtree(kept / "runs")
    (kept / "runs").mkdir()
    refused = blocklab("report", kept)
    assert refused.status == 2 and refused.err.startswith("error: none of the runs of")
    assert len(pages) == 2 and {path: path.read_text() for path in pages} == pages


def test_a_study_goes_on_from_records_whose_diagnosis_does_not_count(
    blocklab: Blocklab, study_file: Path, trained: Path, tmp_path: Path
) -> None:
    """Their weights are elsewhere: nothing can be counted again, and the page says so."""
    asked = study_file.read_text().replace("seeds: 2", "seeds: 1\ndiagnose: {first: 1, last: 1}")
    study_file.write_text(asked)
    assert blocklab("study", study_file, "--out", trained).status == 0
    kept = tmp_path / "kept"
    assert blocklab("records", study_file, kept, "--out", trained).status == 0
    out = tmp_path / "on"
    shutil.copytree(kept / "runs", out)
    first = out / next(Study.load(study_file).plan()).definition.hash
    old = json.loads((first / "diagnosis.json").read_text())
    del old["sha256"]  # as it was written before it had one
    (first / "diagnosis.json").write_text(json.dumps(old))
    said = blocklab("study", study_file, "--out", out)
    assert said.status == 0, said.err
    assert "count again where its weights are, and keep its records anew" in said.out


def test_records_of_nothing_are_one_line(
    blocklab: Blocklab, study_file: Path, tmp_path: Path
) -> None:
    said = blocklab("records", study_file, tmp_path / "kept", "--out", tmp_path / "runs")
    assert said.status == 2
    assert said.err.count("\n") == 1 and "is not a study's folder" in said.err
    assert not (tmp_path / "kept").exists()


def test_records_of_a_collection_make_all_of_its_pages(
    blocklab: Blocklab, study_file: Path, tmp_path: Path
) -> None:
    """One file of records, whose studies share the runs that they have in common."""
    more = study_file.read_text().replace("resnet20_se", "{base: resnet20, attention: eca}")
    (tmp_path / "other.yaml").write_text(more.replace("Two tiny networks", "Two others"))
    both = tmp_path / "both.yaml"
    both.write_text(
        "title: Both of them\nseeds: 1\nsettings: {epochs: 1}\nstudies: [tiny.yaml, other.yaml]\n"
    )
    out, kept = tmp_path / "runs", tmp_path / "results" / "kept"
    assert blocklab("study", both, "--out", out).status == 0
    said = blocklab("records", both, kept, "--out", out)
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith("3 runs kept: ")  # the plain one is both studies'
    assert len(list(kept.glob("runs/*"))) == 3
    shutil.rmtree(out)

    pages = [path for path in kept.rglob("*.html") if path.name in ("report.html", "index.html")]
    assert len(pages) == 3
    for path in pages:
        path.unlink()
    reported = blocklab("report", kept)
    assert (reported.status, reported.err) == (0, "")
    assert all(path.exists() for path in pages)
    assert reported.out.endswith(f"page of all: {kept / 'index.html'}\n")
    index = (kept / "index.html").read_text()
    assert "Both of them" in index and "2 studies, 3 finished runs in all" in index
    links = re.findall(r'href="([^"#]*report.html)"', index)
    assert len(links) == 2 and all((kept / unquote(link)).exists() for link in links)

    studies = sorted(path.parent.name for path in kept.glob("*/study.json"))
    found = json.loads(blocklab("report", kept, "--json").out)
    assert sorted(one["study"] for one in found["studies"]) == studies
    other = next(name for name in studies if name.startswith("other"))
    assert "Two others" in blocklab("report", kept / other).out
    verified = blocklab("study", "--verify", kept / other / "plain:0")
    assert verified.status == 0, verified.out + verified.err


def test_a_collections_page_is_made_again_beside_its_studies(
    blocklab: Blocklab, study_file: Path, tmp_path: Path
) -> None:
    copy = study_file.read_text().replace("Two tiny", "Two more tiny")
    (tmp_path / "copy.yaml").write_text(copy)
    both, out = tmp_path / "both.yaml", tmp_path / "runs"
    both.write_text("title: Both\nseeds: 1\nstudies: [tiny.yaml, copy.yaml]\n")
    assert blocklab("study", both, "--out", out).status == 0
    index = out / "both" / "index.html"
    before = index.read_text()
    index.unlink()
    assert blocklab("report", out / "both").status == 0
    assert index.read_text() == before
    (out / "both" / "collection.json").write_text('{"studies": ["tiny"]}')
    damaged = blocklab("report", out / "both")
    assert damaged.status == 1
    assert damaged.err.count("\n") == 1 and "collection.json is damaged" in damaged.err
    assert blocklab("study", both, "--out", out).status == 0  # which mends it, as it said
    assert blocklab("report", out / "both").status == 0


def test_a_study_goes_on_from_its_records_in_another_place(
    blocklab: Blocklab, study_file: Path, tmp_path: Path
) -> None:
    """The looks it had stay on record, and what is finished is not trained again."""
    text = study_file.read_text().replace(
        "seeds: 2", "seeds: {until_decided: {from: 2, to: 3, looks: [2, 3], baseline_times: 1}}"
    )
    study_file.write_text(text)
    out, kept, other = tmp_path / "runs", tmp_path / "kept", tmp_path / "elsewhere"
    assert blocklab("study", study_file, "--out", out).status == 0
    design = json.loads((out / "tiny" / "design.json").read_text())
    for without in (False, True):  # the copy of the study's own folder, and of its records
        if without:
            assert blocklab("records", study_file, kept, "--out", out).status == 0
            shutil.copytree(kept / "runs", other / "runs")
            for name in ("study.json", "design.json"):
                (other / "runs" / "tiny").mkdir(exist_ok=True)
                shutil.copy(kept / name, other / "runs" / "tiny" / name)
        else:
            shutil.copytree(out, other / "runs")
        moved = other / "tiny.yaml"
        moved.write_text(text)
        again = blocklab("study", moved, "--out", other / "runs")
        assert again.status == 0, again.err
        assert "runs are finished already" in again.err and "seed 0" not in again.err
        ours = json.loads((other / "runs" / "tiny" / "design.json").read_text())
        assert (ours["at"], ours["looks"]) == (design["at"], design["looks"])
        shutil.rmtree(other)
