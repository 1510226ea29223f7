"""Run folders read back: whole, damaged, swapped, copied, and as hostile hands leave them."""

import json
import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blocklab.errors import InputError, RunError
from blocklab.files import write_checked_json
from blocklab.results.ended_run import EndedRun, read_ended_run
from blocklab.training.run_folder import write_result
from blocklab.training.run_reader import RunReader, is_finished

MakeRun = Callable[..., Path]


def read(folder: Path) -> EndedRun | None:
    return read_ended_run(RunReader(folder))


def fault(folder: Path) -> str:
    """Return why a folder that looks ended counts for nothing."""
    found = RunReader(folder).fault
    assert found is not None and "\n" not in found
    assert read(folder) is None and not is_finished(folder)
    return found


def change(folder: Path, name: str, field: str, value: Any) -> None:
    """Change a field of a JSON file as someone does who can make its checksums right again.

    A change of the definition moves the folder to its new name.
    """
    content = json.loads((folder / name).read_text())
    del content["sha256"]
    *way, last = field.split(".")
    inner = content
    for part in way:
        inner = inner[part]
    inner[last] = value
    write_checked_json(folder / name, content)
    if name == "run.json":
        seal(folder)


def seal(folder: Path) -> None:
    """Write result.json again with the checksums of the files that are there."""
    result = json.loads((folder / "result.json").read_text())
    write_result(folder, {k: v for k, v in result.items() if k not in ("files", "sha256")})


def test_a_finished_run_is_read(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run(tmp_path, seed=7, top1=80.0, epochs=2)
    run = read(folder)
    assert run is not None
    assert (run.hash, run.seed, run.epochs, run.diverged) == (folder.name, 7, 2, False)
    assert run.figure("test_top1_percent") == 80.0
    assert run.figure("best_test_top1_percent") is None
    assert [line["epoch"] for line in run.log] == [1, 2]
    assert run.per_image is None and run.notes == ()


def test_a_run_is_known_by_its_folder_from_within(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make_run(tmp_path))
    assert RunReader(Path()).finished


def test_a_run_without_result_is_not_finished(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    (folder / "result.json").unlink()
    reader = RunReader(folder)
    assert (read(folder), reader.fault, reader.finished) == (None, None, False)
    with pytest.raises(InputError, match="has no result yet"):
        reader.require_result()


@pytest.mark.parametrize("name", ["run.json", "log.jsonl", "predictions.npz", "result.json"])
@pytest.mark.parametrize("how", ["mark", "utf-16", "cut", "list", "empty", "gone", "flipped"])
def test_a_damaged_file_is_named(make_run: MakeRun, tmp_path: Path, name: str, how: str) -> None:
    folder = make_run(tmp_path, images=40)
    path = folder / name
    content = path.read_bytes()
    if how == "gone":
        path.unlink()
        if name == "result.json":
            return
    else:
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 1
        path.write_bytes(
            {
                "mark": b"\xef\xbb\xbf" + content,
                "utf-16": content.decode("latin1").encode("utf-16"),
                "cut": content[: len(content) // 2],
                "list": b"[]",
                "empty": b"",
                "flipped": bytes(flipped),
            }[how]
        )
    assert name in fault(folder)


@pytest.mark.parametrize("name", ["run.json", "log.jsonl"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_mark_is_damage_even_where_checksums_know_it(
    make_run: MakeRun, tmp_path: Path, name: str, encoding: str
) -> None:
    """What is read and what is checked are one: no file passes the one and fails the other."""
    folder = make_run(tmp_path)
    path = folder / name
    path.write_bytes(path.read_text().encode(encoding))
    seal(folder)
    assert name in fault(folder)


def test_swapped_and_copied_folders_do_not_count(make_run: MakeRun, tmp_path: Path) -> None:
    first, second = make_run(tmp_path, seed=0), make_run(tmp_path, seed=1)
    names = first.name, second.name
    first.rename(tmp_path / "spare")
    second.rename(first)
    (tmp_path / "spare").rename(second)
    assert fault(first) == f"its folder {names[0]} holds another run, {names[1]}"
    assert fault(second) == f"its folder {names[1]} holds another run, {names[0]}"
    shutil.rmtree(first)
    shutil.copytree(second, first)
    assert is_finished(first) and not is_finished(second)


def write_diagnosis(folder: Path, content: dict[str, Any]) -> None:
    write_checked_json(folder / "diagnosis.json", {"run_hash": folder.name, **content})


@pytest.mark.parametrize(
    "name", ["run.json", "log.jsonl", "result.json", "predictions.npz", "diagnosis.json"]
)
def test_every_file_is_its_own_runs(make_run: MakeRun, tmp_path: Path, name: str) -> None:
    first, second = (make_run(tmp_path, seed=seed, images=40) for seed in (0, 1))
    for folder in (first, second):
        write_diagnosis(folder, {"last_block": {"zero_percent": 81.5}})
    shutil.copy(first / name, second / name)
    if name == "diagnosis.json":
        ours, theirs = read(first), read(second)
        assert ours is not None and theirs is not None
        assert (ours.zeros_percent, theirs.zeros_percent) == (81.5, None)
        (note,) = theirs.notes
        assert note.startswith("diagnosis.json is another run's; its study, where that asks for it")
    else:
        assert fault(second)


def test_a_file_that_the_result_does_not_list_is_not_of_it(
    make_run: MakeRun, tmp_path: Path
) -> None:
    folder, other = make_run(tmp_path), make_run(tmp_path, seed=1, images=40)
    shutil.copy(other / "predictions.npz", folder)
    assert fault(folder) == "predictions.npz is of another result"


def test_a_damaged_diagnosis_is_a_note(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    for content, expected in (({"last_block": {"zero_percent": 81.5}}, 81.5), ({}, None)):
        write_diagnosis(folder, content)
        run = read(folder)
        assert run is not None and run.zeros_percent == expected and not run.notes
    for content in ({"last_block": {"zero_percent": 815}}, {"last_block": [1]}):
        write_diagnosis(folder, content)
        run = read(folder)
        assert run is not None and run.zeros_percent is None
        assert run.notes[0].startswith("diagnosis.json is damaged")
    write_diagnosis(folder, {"last_block": {"zero_percent": 81.5}})
    written = (folder / "diagnosis.json").read_text()
    own = f'  "run_hash": "{folder.name}",\n'
    assert own in written
    for text in ("{", "7", written.replace("81.5", "8.15"), written.replace(own, "")):
        (folder / "diagnosis.json").write_text(text)
        run = read(folder)
        assert run is not None and run.zeros_percent is None
        assert run.notes[0].startswith("diagnosis.json is damaged")


HUGE: tuple[Any, ...] = (10**400, -1, 1e308, True, "many", None, [], {}, [[0]], "\ud800")


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("result.json", "status"),
        ("result.json", "epochs"),
        ("result.json", "files"),
        ("result.json", "test_top1_percent"),
        ("result.json", "test_top5_percent"),
        ("result.json", "train_seconds"),
        ("result.json", "peak_memory_bytes"),
        ("run.json", "definition"),
        ("run.json", "definition.seed"),
        ("run.json", "definition.model"),
        ("run.json", "versions"),
        ("run.json", "machine"),
        ("run.json", "class_names"),
        ("run.json", "image_size"),
        ("run.json", "train_images"),
        ("run.json", "data_mean"),
        ("run.json", "threads"),
    ],
)
def test_wrong_types_and_huge_numbers_are_damage(
    make_run: MakeRun, tmp_path: Path, name: str, field: str
) -> None:
    """Whatever stands there, it is one line or a value of the right type, never an error."""
    folder = make_run(tmp_path)
    for value in HUGE:
        shutil.rmtree(folder)
        make_run(tmp_path)
        change(folder, name, field, value)
        run = read(folder)
        if run is None:
            assert fault(folder)
        else:  # it fits: a number that may be missing, or an empty table of versions
            assert value in (None, {}) or isinstance(value, str | float), value
            assert run.figure("test_top1_percent") == 50.0


@pytest.mark.parametrize("line", ["{}", '{"epoch": "1"}', '{"epoch": 1e9}', "[]", "7", "{"])
def test_a_log_of_anything_else_is_damage(make_run: MakeRun, tmp_path: Path, line: str) -> None:
    folder = make_run(tmp_path)
    with (folder / "log.jsonl").open("a") as log:
        log.write(f"{line}\n")
    seal(folder)
    assert fault(folder).startswith("log.jsonl is damaged (")


def test_percentages_beyond_a_hundred_are_damage(make_run: MakeRun, tmp_path: Path) -> None:
    for top1 in (-5.0, 250.0):
        folder = make_run(tmp_path, result={"test_top1_percent": top1})
        assert "test_top1_percent" in fault(folder)
        shutil.rmtree(folder)


def test_accuracies_are_those_of_the_predictions(make_run: MakeRun, tmp_path: Path) -> None:
    forged = {"test_top1_percent": 99.0, "test_loss": 0.001}
    folder = make_run(tmp_path, top1=12.0, images=100, result=forged)
    run = read(folder)
    assert run is not None
    assert run.figure("test_top1_percent") == 12.0
    assert run.figure("test_loss") == pytest.approx(0.5, abs=0.1)
    assert run.notes[0] == (
        "result.json has test_top1_percent 99.0, its predictions give 12: those count"
    )
    assert len(run.notes) == 2
    whole = read(make_run(tmp_path, row="other", top1=12.0, images=100))
    assert whole is not None and whole.notes == ()


def within(seconds: float, work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it waits for ever"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["run.json", "log.jsonl", "predictions.npz", "result.json"])
@pytest.mark.parametrize("kind", ["pipe", "zero", "folder"])
def test_what_is_no_file_is_damaged_not_read(
    make_run: MakeRun, tmp_path: Path, name: str, kind: str
) -> None:
    folder = make_run(tmp_path, images=40)
    path = folder / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    within(30, lambda: RunReader(folder).fault)
    assert name in fault(folder)


def test_files_that_a_result_lists_elsewhere_are_not_looked_for(
    make_run: MakeRun, tmp_path: Path
) -> None:
    folder = make_run(tmp_path)
    files = json.loads((folder / "result.json").read_text())["files"]
    zero = {"bytes": 0, "sha256": "0" * 64}
    change(folder, "result.json", "files", files | {"/dev/zero": zero, "../../x": zero})
    within(30, lambda: RunReader(folder).fault)
    assert is_finished(folder)


def test_weights_are_those_that_the_result_lists(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    with pytest.raises(InputError, match="has no weights to use; name a run that finished"):
        RunReader(folder).weights()
    with pytest.raises(InputError, match="has no predictions; name a run that finished"):
        RunReader(folder).arrays()
    (folder / "model.safetensors").write_bytes(b"no tensors")
    seal(folder)
    with pytest.raises(RunError, match=r"model\.safetensors is damaged; delete it"):
        RunReader(folder).weights()


def test_a_thousand_mutations_are_a_run_or_a_line(make_run: MakeRun, tmp_path: Path) -> None:
    """Bytes of any file changed at random, checksums made right again: nothing is raised."""
    draw = random.Random(0)
    folder = make_run(tmp_path, images=40)
    shutil.copytree(folder, tmp_path / "whole")
    for number in range(250):
        name = draw.choice(["run.json", "log.jsonl", "predictions.npz", "result.json"])
        content = bytearray((folder / name).read_bytes())
        for _ in range(draw.choice((1, 1, 3))):
            place = draw.randrange(len(content))
            piece = draw.choice([b"9" * 400, b"\x00", b'"', b"null", b"-", b"[" * 2000, b"\xff"])
            content[place : place + draw.randrange(5)] = piece
        (folder / name).write_bytes(content)
        try:  # where it still is JSON, as a forger would leave it
            value = json.loads((folder / name).read_text())
            del value["sha256"]
            write_checked_json(folder / name, value)
            seal(folder)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        reader = RunReader(folder)
        assert (read_ended_run(reader) is None) == (reader.fault is not None), number
        shutil.copytree(tmp_path / "whole", folder, dirs_exist_ok=True)
