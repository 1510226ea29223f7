"""Damaged files: noticed by their checksums, said in a line, mended, never taken for a result."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from blocklab.errors import InputError, RunError
from blocklab.execution.train_studies import train_studies
from blocklab.results.study_folder import read_study_folder
from blocklab.study.study import Study
from blocklab.training.run import execute_run
from blocklab.training.run_definition import RunDefinition
from blocklab.training.run_folder import RunFolder
from blocklab.training.run_reader import RunReader, is_finished

ENDED = ("result.json", "run.json", "log.jsonl", "predictions.npz", "model.safetensors")
GOING = ("last.ckpt", "previous.ckpt", "run.json", "log.jsonl")


def damage(path: Path, draw: random.Random) -> str:
    """Damage a file at random; say how."""
    content = bytearray(path.read_bytes())
    how = draw.choice(("flipped", "flipped", "truncated", "zeroed", "grown", "empty", "gone"))
    place = draw.randrange(len(content))
    if how == "flipped":
        content[place] ^= 1 << draw.randrange(8)
    elif how == "truncated":
        del content[place:]
    elif how == "zeroed":
        content[place : place + 512] = b"\0" * len(content[place : place + 512])
    elif how == "grown":
        content += draw.randbytes(1 + place)
    elif how == "empty":
        content.clear()
    else:
        path.unlink()
        return how
    path.write_bytes(content)
    return f"{how} at {place}"


def run_damaged(
    number: int,
    whole: Path,
    scratch: Path,
    definition: RunDefinition,
    whole_bits: dict[str, Any],
    bits: Callable[[Path], dict[str, Any]],
) -> None:
    draw = random.Random(number)
    folder = Path(shutil.copytree(whole, scratch / whole.name, dirs_exist_ok=True))
    result = RunReader(folder).result
    ended = draw.random() < 0.6
    if not ended:  # as if it were killed after its second epoch, of three
        (folder / "result.json").unlink()
    names = ENDED if ended else GOING
    for name in draw.sample(names, draw.choice((1, 1, 1, 2, len(names)))):
        how = damage(folder / name, draw)
        case = f"case {number}: {name} {how}"
        if ended and not ("flipped" in how and name == "model.safetensors"):
            # 1e-05 and 1E-05 are one number: what was read is either as it was, or nothing.
            assert RunReader(folder).result in (None, result), case
    said: list[str] = []
    execute_run(definition, scratch, threads=1, on_note=said.append)
    try:
        RunReader(folder).weights()
    except RunError as error:  # looked at by size alone until they are used
        assert "model.safetensors is damaged; delete it" in str(error)
        (folder / "model.safetensors").unlink()
        execute_run(definition, scratch, threads=1, on_note=said.append)
    assert bits(folder) == whole_bits, f"case {number}: {said}"
    assert all("\n" not in line for line in said)
    shutil.rmtree(folder)


@pytest.fixture
def going(finished: Path, definition: RunDefinition, tmp_path: Path) -> Path:
    """The finished run with the two checkpoints of a run that was killed after its last epoch."""
    stopped = tmp_path / "stopped"

    def stop(record: dict[str, Any]) -> None:
        if record["epoch"] == 3:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        execute_run(definition, stopped, threads=1, on_epoch=stop)
    shutil.copy(stopped / finished.name / "previous.ckpt", finished / "previous.ckpt")
    return finished


def test_12_damaged_runs_end_with_the_same_bits(
    going: Path,
    tmp_path: Path,
    definition: RunDefinition,
    whole_bits: dict[str, Any],
    bits: Callable[[Path], dict[str, Any]],
) -> None:
    for number in range(12):
        run_damaged(number, going, tmp_path / "again", definition, whole_bits, bits)


@pytest.mark.slow
def test_500_damaged_runs_end_with_the_same_bits(
    going: Path,
    tmp_path: Path,
    definition: RunDefinition,
    whole_bits: dict[str, Any],
    bits: Callable[[Path], dict[str, Any]],
) -> None:
    for number in range(1000, 1500):
        run_damaged(number, going, tmp_path / "again", definition, whole_bits, bits)


def test_a_damaged_checkpoint_falls_back_to_the_previous(
    going: Path, definition: RunDefinition
) -> None:
    (going / "result.json").unlink()
    content = bytearray((going / "last.ckpt").read_bytes())
    content[len(content) // 2] ^= 1
    (going / "last.ckpt").write_bytes(content)
    said: list[str] = []
    epochs: list[int] = []
    execute_run(
        definition,
        going.parent,
        threads=1,
        on_epoch=lambda record: epochs.append(record["epoch"]),
        on_note=said.append,
    )
    assert said == ["last.ckpt is damaged; going on from previous.ckpt, epoch 2"]
    assert epochs == [3]


def test_a_checkpoint_opens_with_plain_torch(finished: Path) -> None:
    saved = torch.load(finished / "last.ckpt", weights_only=True)
    assert saved["epochs_done"] == 3 and len(saved["log"]) == 3


def test_a_checkpoint_of_another_run_is_not_taken(
    finished: Path, make_study: Callable[..., Study], tmp_path: Path
) -> None:
    other = next(make_study(seeds=[7]).plan()).definition
    folder = tmp_path / other.hash
    folder.mkdir()
    shutil.copy(finished / "last.ckpt", folder / "last.ckpt")
    saved, said = RunFolder(folder).load_checkpoint(other.hash)
    assert saved is None and "training from the start" in said[0]


def test_a_run_file_is_written_again_from_the_checkpoint(
    going: Path, definition: RunDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blocklab.training.run.available_cores", lambda: 2)
    (going / "result.json").unlink()
    before = json.loads((going / "run.json").read_text())
    (going / "run.json").write_text("{}")
    said: list[str] = []
    execute_run(definition, going.parent, on_note=said.append)  # threads are the run's: one
    assert json.loads((going / "run.json").read_text()) == before
    assert said == ["run.json is damaged or gone; written again from the checkpoint"]


def test_a_damaged_result_is_no_result_until_it_is_mended(
    make_study: Callable[..., Study], tmp_path: Path
) -> None:
    study = make_study(seeds=2)
    train_studies((study,), tmp_path, 1, threads=1)[0]
    folder = tmp_path / next(study.plan()).definition.hash
    text = (folder / "result.json").read_text()
    top1 = json.loads(text)["test_top1_percent"]
    changed = text.replace(f'"test_top1_percent": {top1}', '"test_top1_percent": 99.0')
    assert changed != text
    (folder / "result.json").write_text(changed)
    damage = "result.json is damaged (its checksum is not that of its content)"
    assert RunReader(folder).fault == damage and not is_finished(folder)
    row = read_study_folder(tmp_path / "tiny").rows[0]
    assert [run.seed for run in row.runs] == [1]
    assert row.failed == (f"seed 0: {damage}; run the study again to mend it",)
    row = train_studies((study,), tmp_path, 1)[0].rows[0]
    assert row.by_seed("test_top1_percent")[0] == top1 and not row.failed


def test_a_damaged_study_file_is_said_and_made_again(
    make_study: Callable[..., Study], tmp_path: Path
) -> None:
    study = make_study()
    train_studies((study,), tmp_path, 1, threads=1)[0]
    file = tmp_path / "tiny" / "study.json"
    file.write_text(file.read_text().replace("Tiny", "Tony"))
    with pytest.raises(RunError, match=r"study\.json is damaged .*; run the study again"):
        read_study_folder(tmp_path / "tiny")
    assert train_studies((study,), tmp_path, 1)[0].title == "Tiny"


def test_changed_images_are_not_mixed_into_a_run(
    going: Path, definition: RunDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from blocklab.training import run

    (going / "result.json").unlink()
    opened = run.open_data

    def changed(spec: Any, seed: int = 0) -> Any:
        return replace(opened(spec, seed=seed), fingerprint="other")

    monkeypatch.setattr(run, "open_data", changed)
    with pytest.raises(InputError, match="images of digits changed since"):
        execute_run(definition, going.parent)
