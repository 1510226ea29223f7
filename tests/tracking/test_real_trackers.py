"""The trackers themselves, offline: what they were told by two calls is there, each line once."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blocklab.tracking.tracking import Tracking

WHY = "pip install '.[{}]' to test it for real"
EPOCHS = [1, 2, 3, 4, 5]


def tell(growing: Any, tracker: str) -> Path:
    """Tell a tracker of a run in two calls, then of its study's page; return OUT."""
    out = growing.folder.parent
    for grow in (lambda: growing.grow(2), growing.end):
        grow()
        with Tracking([tracker], out, pytest.fail) as call:
            call.follow(growing.folder, "plain seed 3", "my_study")
    study = out / "my_study"
    study.mkdir()
    (study / "report.html").write_text("<p>the page")
    (study / "table.md").write_text("| a table |")
    with Tracking([tracker], out, pytest.fail) as call:
        call.page(study, "my_study", "my_study", [study / "report.html", study / "table.md"])
    assert json.loads((growing.folder / "tracking.json").read_text())[tracker]["ended"]
    return out


def test_tensorboard(growing: Any) -> None:
    pytest.importorskip("tensorboard", reason=WHY.format("tensorboard"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tell(growing, "tensorboard")
    folders = sorted((out / "tensorboard" / "my_study").iterdir())
    assert [folder.name[:5] for folder in folders] == ["my_st", "plain"]
    page, run = (EventAccumulator(str(folder)).Reload() for folder in folders)
    losses = run.Scalars("train_loss")
    assert [one.step for one in losses] == EPOCHS
    assert [one.value for one in losses] == pytest.approx(growing.losses())
    (final,) = run.Scalars("final/test_top1_percent")
    assert (final.step, final.value) == (5, 70.0)
    (said,) = run.Tensors("configuration/text_summary")
    assert b'"recipe.epochs": 5' in said.tensor_proto.string_val[0]
    (table,) = page.Tensors("table/text_summary")
    assert table.tensor_proto.string_val[0] == b"| a table |"


def records(content: bytes) -> Iterator[bytes]:
    """Read a log of LevelDB's format, as W&B writes: blocks of 32 KiB, records in parts."""
    place, parts = 7, b""  # after the file's header
    while place + 7 <= len(content):
        if (left := 32_768 - place % 32_768) < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)  # a checksum is before it
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield parts
            parts = b""


def test_wandb_offline(growing: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason=WHY.format("wandb"))
    from wandb.proto import wandb_internal_pb2

    for name, value in {"MODE": "offline", "DIR": str(tmp_path), "PROJECT": "tests"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    for name in ("CACHE_DIR", "CONFIG_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / name))
    tell(growing, "wandb")
    steps: list[int] = []
    final: dict[str, str] = {}
    ids: list[str] = []
    artifacts = 0
    written = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    for data in (data for file in written for data in records(file.read_bytes())):
        record: Any = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "run":
            ids.append(record.run.run_id)
            assert record.run.run_group == "my_study"
        told = {one.key or "/".join(one.nested_key): one.value_json for one in record.history.item}
        if "train_loss" in told:
            steps.append(int(told["_step"]))
        final |= {i.key or "/".join(i.nested_key): i.value_json for i in record.summary.update}
        artifacts += record.request.HasField("log_artifact") or record.HasField("artifact")
    steps.sort()  # files are of two calls
    assert steps == EPOCHS
    assert float(final["final/test_top1_percent"]) == 70.0
    assert len(set(ids)) == 2 and artifacts == 1  # the run, gone on with, and the page


def test_mlflow_local(growing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason=WHY.format("mlflow"))
    pytest.importorskip("sqlalchemy", reason=WHY.format("mlflow"))
    from mlflow.tracking import MlflowClient

    for name in ("TRACKING_URI", "EXPERIMENT_NAME"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)
    out = tell(growing, "mlflow")
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    experiment: Any = client.get_experiment_by_name("my_study")
    runs: Any = client.search_runs([experiment.experiment_id])
    by_name = {run.info.run_name: run for run in runs}
    assert set(by_name) == {"plain seed 3", "my_study (page)"}
    run, page = by_name["plain seed 3"], by_name["my_study (page)"]
    history = client.get_metric_history(run.info.run_id, "train_loss")
    assert sorted(one.step for one in history) == EPOCHS
    assert run.data.metrics["final/test_top1_percent"] == 70.0
    assert run.data.params["recipe.epochs"] == "5" and run.info.status == "FINISHED"
    files = {one.path for one in client.list_artifacts(page.info.run_id)}
    assert files == {"report.html", "table.md"}


def test_trackio(
    growing: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio", reason=WHY.format("trackio"))
    from trackio.sqlite_storage import SQLiteStorage

    capsys.readouterr()
    tell(growing, "trackio")
    assert capsys.readouterr().out == ""  # stdout is the command's own
    names = SQLiteStorage.get_runs("my_study")
    name = next(one for one in names if one.startswith("plain seed 3"))
    lines = [line for line in SQLiteStorage.get_logs("my_study", name) if "train_loss" in line]
    assert [line["step"] for line in lines] == EPOCHS
    assert len(names) == 2 and (tmp_path / "trackio").exists()
