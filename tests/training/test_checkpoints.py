"""Checkpoints by time: what is written when, what a stop keeps, and the bits after a kill."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blocklab.data.spec import DataSpec
from blocklab.errors import InputError, RunError
from blocklab.execution.verify import compare_runs, unequal_predictions
from blocklab.models.spec import model_spec
from blocklab.report.what_ran import setups
from blocklab.results.ended_run import EndedRun, read_ended_run
from blocklab.results.row_result import RowResult
from blocklab.results.study_results import StudyResults
from blocklab.training import checkpoints, provenance, run
from blocklab.training.checkpoints import CheckpointKeeper, Checkpoints, on_host
from blocklab.training.recipe import Recipe
from blocklab.training.run import execute_run
from blocklab.training.run_definition import RunDefinition
from blocklab.training.run_folder import RunFolder, load_sealed
from blocklab.training.run_reader import RunReader, logged

EACH_EPOCH, NEVER = Checkpoints(0.0), Checkpoints(1e6)


def definition(epochs: int = 4) -> RunDefinition:
    recipe = {"epochs": epochs, "batch_size": 16, "lr": 0.05, "ema_decay": 0.9, "flip": True}
    data = DataSpec.parse({"source": "digits", "train_images": 48, "test_images": 40})
    tiny = model_spec("resnet20:widths=[4,4,8],depths=[1,1,1]")
    return RunDefinition(tiny, data, Recipe.parse(recipe), 3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunReader:
    """The run that nothing stopped, with checkpoints as the default has them."""
    return RunReader(execute_run(definition(), tmp_path_factory.mktemp("whole"), threads=1))


def stop_in(epoch: int) -> Callable[[dict[str, Any]], None]:
    def stop(record: dict[str, Any]) -> None:
        if record["epoch"] == epoch:
            raise KeyboardInterrupt

    return stop


def epochs_kept(folder: Path) -> int:
    saved = load_sealed(folder / "last.ckpt")
    return 0 if saved is None else saved["epochs_done"]


def test_a_finished_run_keeps_its_checkpoint_only_if_asked(
    tmp_path: Path, whole: RunReader
) -> None:
    assert not list(whole.folder.glob("*.ckpt"))
    gone = execute_run(definition(), tmp_path / "gone", threads=1, checkpoints=EACH_EPOCH)
    assert not list(gone.glob("*.ckpt")), "those that were written on the way are removed"
    kept = execute_run(definition(), tmp_path, threads=1, checkpoints=Checkpoints(keep=True))
    assert epochs_kept(kept) == 4 and not (kept / "previous.ckpt").exists()
    assert compare_runs(whole, RunReader(kept))[0] is None


@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_a_loss_that_is_no_number_twice_is_the_same(
    tmp_path: Path, make_run: Callable[..., Path], loss: float
) -> None:
    folder = make_run(tmp_path, images=20)
    arrays = RunReader(folder).arrays()
    ours = {name: values.copy() for name, values in arrays.items()}
    ours["loss"][3] = loss
    assert unequal_predictions(ours, {name: values.copy() for name, values in ours.items()}) is None
    assert unequal_predictions(arrays, ours) == "loss of test image 3"
    assert unequal_predictions(ours, arrays) == "loss of test image 3"
    assert unequal_predictions({}, ours) == f"the shape of {next(iter(ours))}"
    result = RunReader(folder).require_result() | {"test_loss": None}
    written = RunFolder(folder)
    with written.locked():
        written.write_predictions(ours)
        written.finish(result)
    ended = read_ended_run(RunReader(folder))
    assert ended is not None and ended.figure("test_loss") is None
    assert ended.notes == (f"test_loss is {loss:g}, which no mean or test can count",)


def test_a_caught_stop_keeps_the_last_whole_epoch(tmp_path: Path, whole: RunReader) -> None:
    with pytest.raises(KeyboardInterrupt):
        execute_run(definition(), tmp_path, threads=1, on_epoch=stop_in(2), checkpoints=NEVER)
    folder = tmp_path / definition().hash
    assert epochs_kept(folder) == 2 and len(logged(folder)) == 2
    execute_run(definition(), tmp_path, checkpoints=NEVER)
    assert compare_runs(whole, RunReader(folder))[0] is None


def test_a_stop_within_an_epoch_keeps_the_one_before(tmp_path: Path, whole: RunReader) -> None:
    """Its weights are no longer those of the last whole epoch."""
    steps: list[int] = []

    def stop(done: int, of: int) -> None:
        steps.append(done)
        if len(steps) == of + 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute_run(definition(), tmp_path, threads=1, on_step=stop, checkpoints=NEVER)
    folder = tmp_path / definition().hash
    assert epochs_kept(folder) == 1
    execute_run(definition(), tmp_path)
    assert compare_runs(whole, RunReader(folder))[0] is None


@pytest.mark.parametrize("kept", [0, 2])
def test_a_log_ahead_of_the_checkpoint_is_cut_and_the_bits_are_the_same(
    tmp_path: Path, whole: RunReader, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """As a kill leaves it: three epochs in the log, fewer in the checkpoint, or none there."""
    written = RunFolder.save_checkpoint

    def as_killed(folder: RunFolder, state: dict[str, Any]) -> None:
        if state["epochs_done"] <= kept:
            written(folder, state)

    monkeypatch.setattr(RunFolder, "save_checkpoint", as_killed)
    with pytest.raises(KeyboardInterrupt):
        execute_run(definition(), tmp_path, threads=1, on_epoch=stop_in(3), checkpoints=EACH_EPOCH)
    monkeypatch.undo()
    folder = tmp_path / definition().hash
    assert (epochs_kept(folder), len(logged(folder))) == (kept, 3)
    lines: list[int] = []
    real = run.train

    def look_then_train(*arguments: Any, **named: Any) -> Any:
        lines.append(len(logged(folder)))
        return real(*arguments, **named)

    monkeypatch.setattr(run, "train", look_then_train)
    execute_run(definition(), tmp_path)
    assert lines == [kept], "the log is cut before anything is trained"
    assert compare_runs(whole, RunReader(folder))[0] is None


# Its clock ticks at each epoch; it writes each fifth or so, and dies two epochs after one is kept.
CHILD = """
import os, signal, sys
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from blocklab.training import checkpoints
from blocklab.training.run import execute_run
from test_checkpoints import definition, epochs_kept, logged

out = Path(sys.argv[1])
folder = out / definition(400).hash

def die_when_ahead(record):
    if 0 < epochs_kept(folder) < len(logged(folder)) - 1:
        os.kill(os.getpid(), signal.SIGKILL)

checkpoints.time = SimpleNamespace(monotonic=count().__next__)
wish = checkpoints.Checkpoints(5)
execute_run(definition(400), out, threads=1, on_epoch=die_when_ahead, checkpoints=wish)
"""


def test_a_kill_costs_the_seconds_between_writes_and_no_bit(tmp_path: Path) -> None:
    """SIGKILL: nothing is written at the end, so the log is ahead and the file is whole."""
    folder = tmp_path / definition(400).hash
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    child = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths})
    assert child.returncode == -signal.SIGKILL
    kept = epochs_kept(folder)
    assert 0 < kept < len(logged(folder))
    saved = load_sealed(folder / "last.ckpt")
    assert saved is not None

    def stop(record: dict[str, Any]) -> None:  # two epochs on
        if record["epoch"] == kept + 2:
            raise KeyboardInterrupt

    for out in (tmp_path, tmp_path / "anew"):
        with pytest.raises(KeyboardInterrupt):
            execute_run(definition(400), out, threads=1, on_epoch=stop, checkpoints=NEVER)
    pair = [load_sealed(out / folder.name / "last.ckpt") for out in (tmp_path, tmp_path / "anew")]
    for part in ("model", "average"):
        one, other = ((saved or {})[part] for saved in pair)
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_no_two_writes_at_once_and_training_goes_on_beside_one() -> None:
    begun, let, inside, most = threading.Event(), threading.Event(), 0, 0
    written: list[int] = []

    def save(state: dict[str, Any]) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        begun.set()
        assert let.wait(120)
        written.append(state["epochs_done"])
        inside -= 1

    with CheckpointKeeper(save, EACH_EPOCH) as keeper:
        keeper.epoch_ended({"epochs_done": 1})  # returns though the write does not
        assert begun.wait(120) and not written
        aside = threading.Thread(target=keeper.epoch_ended, args=({"epochs_done": 2},))
        aside.start()
        aside.join(0.2)
        assert aside.is_alive() and inside == 1
        let.set()
        aside.join(30)
        keeper.end(write=True)
    assert written == [1, 2] and most == 1


def test_what_is_written_is_the_state_as_the_epoch_left_it() -> None:
    weights, log = torch.ones(3), [{"epoch": 1}]
    written: list[dict[str, Any]] = []
    with CheckpointKeeper(written.append, NEVER) as keeper:
        keeper.epoch_ended({"epochs_done": 1, "model": {"w": weights}, "log": log})
        weights.zero_()
        log.append({"epoch": 2})
        keeper.end(write=True)
        keeper.end(write=True)  # no second time
    (state,) = written
    assert state["model"]["w"].tolist() == [1, 1, 1] and state["log"] == [{"epoch": 1}]


@pytest.mark.parametrize("stop", ["another thread", "Ctrl-C"])
def test_a_stop_while_an_epoch_is_copied_keeps_the_one_before(
    monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    """SIGTERM is answered by a thread, Ctrl-C where the copy is."""
    written: list[int] = []
    keeper = CheckpointKeeper(lambda state: written.append(state["epochs_done"]), NEVER)

    def told(state: dict[str, Any]) -> dict[str, Any]:
        if state["epochs_done"] == 2:
            if stop == "Ctrl-C":
                raise KeyboardInterrupt
            keeper.write_latest()
        return state

    monkeypatch.setattr(checkpoints, "on_host", told)
    with suppress(KeyboardInterrupt), keeper:
        keeper.epoch_ended({"epochs_done": 1})
        keeper.epoch_ended({"epochs_done": 2})
        assert written == [1]
        keeper.end(write=True)
        assert written.pop() == 2  # the copy that the stop fell into is not lost either
    assert written == [1]


def test_a_copy_keeps_the_layout() -> None:
    image = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    copy = on_host({"a": [image]})["a"][0]
    assert copy.stride() == image.stride() and copy.data_ptr() != image.data_ptr()


def test_a_write_that_fails_ends_the_run_in_its_words() -> None:
    def full(state: dict[str, Any]) -> None:
        raise RunError("the disk is full")

    with (
        pytest.raises(RunError, match="the disk is full"),
        CheckpointKeeper(full, EACH_EPOCH) as keeper,
    ):
        keeper.epoch_ended({"epochs_done": 1})
        keeper.epoch_ended({"epochs_done": 2})


def test_damaged_results_without_a_checkpoint_are_trained_anew(
    tmp_path: Path, whole: RunReader
) -> None:
    folder = execute_run(definition(), tmp_path, threads=1)
    (folder / "predictions.npz").write_bytes(b"damaged")
    said: list[str] = []
    epochs: list[int] = []
    execute_run(
        definition(),
        tmp_path,
        on_note=said.append,
        on_epoch=lambda record: epochs.append(record["epoch"]),
    )
    assert said[0] == "predictions.npz is damaged; it is trained anew"
    assert epochs == [1, 2, 3, 4]
    assert compare_runs(whole, RunReader(folder))[0] is None


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("BLOCKLAB_CHECKPOINT_SECONDS", "soon"),
        ("BLOCKLAB_CHECKPOINT_SECONDS", "-1"),
        ("BLOCKLAB_CHECKPOINT_SECONDS", "nan"),
        ("BLOCKLAB_CHECKPOINT_SECONDS", "inf"),
        ("BLOCKLAB_KEEP_CHECKPOINT", "yes"),
    ],
)
def test_a_wrong_wish_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, given: str) -> None:
    monkeypatch.setenv(name, given)
    with pytest.raises(InputError, match=f"^{name} is .*not '{given}'$"):
        Checkpoints.named()


def test_wishes_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Checkpoints.named() == Checkpoints(60.0, False)
    monkeypatch.setenv("BLOCKLAB_CHECKPOINT_SECONDS", "2.5")
    monkeypatch.setenv("BLOCKLAB_KEEP_CHECKPOINT", "1")
    assert Checkpoints.named() == Checkpoints(2.5, True)


def test_a_run_says_which_epochs_other_code_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its versions are those of its last epochs, on which a reader would otherwise rely."""
    ours = provenance.versions()

    def stopped_in(epoch: int, code: str) -> None:
        monkeypatch.setattr(provenance, "versions", lambda: {**ours, "code": code})
        with pytest.raises(KeyboardInterrupt):
            execute_run(definition(), tmp_path, threads=1, on_epoch=stop_in(epoch))

    stopped_in(1, "aaaaaaaa")
    stopped_in(2, "aaaaaaaa")
    stopped_in(3, "bbbbbbbb")
    monkeypatch.setattr(provenance, "versions", lambda: ours)
    folder = execute_run(definition(), tmp_path, threads=1)
    run = RunReader(folder).require_run()
    assert run["versions"] == ours
    assert [(part["to_epoch"], part["versions"]["code"]) for part in run["earlier"]] == [
        *((2, "aaaaaaaa"), (3, "bbbbbbbb"))
    ]
    ended = read_ended_run(RunReader(folder))
    assert ended is not None and ended.notes == (
        f"epochs 1 to 2 were trained by code aaaaaaaa (then {ours['code']})",
        f"epoch 3 was trained by code bbbbbbbb (then {ours['code']})",
    )
    lines = setups(_results_of(ended))
    assert sorted(line[4] for line in lines) == sorted(["aaaaaaaa", "bbbbbbbb", ours["code"]])
    assert [line[-1] for line in lines] == ["1"] * 3
    assert "the runs differ in versions (code)" in _results_of(ended).remarks
    alone = execute_run(definition(), tmp_path / "alone", threads=1)
    assert "earlier" not in RunReader(alone).require_run()


def _results_of(run: EndedRun) -> StudyResults:
    row = RowResult("plain", run.run["definition"]["model"], 1, 1, 32, (run,), (3,))
    return StudyResults("t", "", {}, {}, "", (3,), (), "plain", (row,))


def test_code_that_was_not_recorded_is_other_code() -> None:
    then = {"versions": {"torch": "2.0"}, "machine": {}, "to_epoch": 2}
    now = {"versions": {"torch": "2.0", "code": "abc"}, "machine": {}, "earlier": [then]}
    assert provenance.earlier_parts(now) == [
        "epochs 1 to 2 were trained by code unrecorded (then abc)"
    ]


def test_parts_end_where_the_checkpoint_is() -> None:
    """An older checkpoint is gone on from where the last is damaged, by run.json of later."""
    cpu = torch.device("cpu")
    now = provenance.taken_over({}, {"versions": {}, "machine": {}}, cpu, 0)
    a, b = ({**now, "versions": {"code": one}} for one in "ab")
    before = {**b, "earlier": [{"to_epoch": 3, **a}, {"to_epoch": 6, **now}]}
    for epochs, expected in ((0, []), (2, [(2, a)]), (5, [(3, a)]), (6, [(3, a)])):
        parts = provenance.taken_over(before, before, cpu, epochs).get("earlier", [])
        assert parts == [{**part, "to_epoch": last} for last, part in expected]
    parts = provenance.taken_over(before, before, cpu, 8)["earlier"]
    assert [part["to_epoch"] for part in parts] == [3, 6, 8]


def test_peak_memory_is_of_every_process_that_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last may only have evaluated."""
    peaks = {"now": 900}
    monkeypatch.setattr("blocklab.training.run.peak_memory", lambda device: peaks["now"])
    with pytest.raises(KeyboardInterrupt):
        execute_run(definition(), tmp_path, threads=1, on_epoch=stop_in(2))
    peaks["now"] = 700
    folder = execute_run(definition(), tmp_path, threads=1)
    assert RunReader(folder).require_result()["peak_memory_bytes"] == 900
