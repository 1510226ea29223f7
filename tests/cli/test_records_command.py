"""``blocklab records``: a study's page from its records alone, and its runs trained again."""

import shutil
from pathlib import Path
from typing import Any

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
    assert used.status == 1
    assert used.err.count("\n") == 1 and "kept without its weights" in used.err

    # a folder that is no record misses its weights
    run = next(path.parent for path in kept.glob("runs/*/record.json"))
    (run / "record.json").unlink()
    assert "model.safetensors is gone" in blocklab("report", kept).out


def test_records_of_nothing_are_one_line(
    blocklab: Blocklab, study_file: Path, tmp_path: Path
) -> None:
    said = blocklab("records", study_file, tmp_path / "kept", "--out", tmp_path / "runs")
    assert said.status == 2
    assert said.err.count("\n") == 1 and "is not a study's folder" in said.err
    assert not (tmp_path / "kept").exists()
