"""Losses that are no numbers, and memory that runs out: the run ends, and says where."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from blocklab.errors import InputError, RunError
from blocklab.execution.train_studies import train_studies
from blocklab.study.study import Study
from blocklab.training import run
from blocklab.training.run import execute_run
from blocklab.training.run_definition import RunDefinition
from blocklab.training.run_reader import RunReader

EXPLODES = {  # fine in its first epoch, then a learning rate of 1e29
    **{"base": "quick", "epochs": 4, "batch_size": 20, "schedule": "step", "lr": 0.1},
    **{"step_epochs": 1, "step_factor": 1e30},
}


def test_an_exploding_run_keeps_its_last_good_checkpoint(
    make_study: Callable[..., Study], tmp_path: Path
) -> None:
    study = make_study(recipe=EXPLODES)
    (row,) = train_studies((study,), tmp_path, 1, threads=1)[0].rows
    assert len(row.diverged) == 1 and row.top1 is None
    folder = tmp_path / row.diverged[0].hash
    result = RunReader(folder).result or {}
    assert result["status"] == "diverged" and "test_top1_percent" not in result
    assert result["epochs"] == 2, "it ends in the epoch in which it diverged"
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    assert saved["epochs_done"] == 1
    assert all(tensor.isfinite().all() for tensor in saved["model"].values())
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert len(log) == 2 and log[0]["train_loss"] is not None
    with pytest.raises(InputError, match="diverged: it has no weights"):
        RunReader(folder).weights()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
)
def test_running_out_of_memory_is_said_with_the_epoch(
    error: Exception, definition: RunDefinition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = run.train

    def run_out(*arguments: Any, **named: Any) -> Any:
        records = train(*arguments, **named)
        yield next(records)
        raise error

    monkeypatch.setattr(run, "train", run_out)
    with pytest.raises(RunError) as caught:
        execute_run(definition, tmp_path, threads=1)
    assert str(caught.value) == (
        "epoch 2: out of memory; use a smaller batch_size or fewer --workers"
    )
    saved = torch.load(tmp_path / definition.hash / "last.ckpt", weights_only=True)
    assert saved["epochs_done"] == 1


@pytest.mark.slow
def test_memory_is_steady_over_1000_epochs(
    make_study: Callable[..., Study], tmp_path: Path
) -> None:
    recipe = {"base": "quick", "epochs": 1000, "batch_size": 20}
    data = {"source": "digits", "train_images": 20, "test_images": 50}
    long = next(make_study(recipe=recipe, data=data).plan()).definition
    sizes: list[int] = []

    def note(record: dict[str, Any]) -> None:
        resident = Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]
        sizes.append(int(resident) * 1024)

    execute_run(long, tmp_path, threads=1, on_epoch=note)
    assert len(sizes) == 1000
    growth = sum(sizes[-100:]) / 100 - sum(sizes[100:200]) / 100
    print(f"memory grew by {growth / 2**20:.1f} MB from epoch 150 to epoch 950")
    assert growth < 20 * 2**20
