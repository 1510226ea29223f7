"""MLflow: to MLFLOW_TRACKING_URI, else to OUT/mlflow.db, with files in OUT/mlruns.

MLflow takes no folder of plain files any more, so that it is a database of SQLite.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports] - an extra

from blocklab.tracking.tracker import Subject, Values

DATABASE, FOLDER = "mlflow.db", "mlruns"
# Unless said otherwise: a server that does not answer is to be noticed in a minute.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}
LONGEST_VALUE = 500  # letters of a parameter; MLflow refuses longer ones


class _Track:
    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client, self.id = client, run_id
        self.last = 0

    def log(self, values: Values, step: int) -> None:
        for name, value in values.items():
            self.client.log_metric(self.id, name, value, step=step)
        self.last = step

    def end(self, values: Values, files: Sequence[Path], status: str) -> None:
        for name, value in values.items():
            self.client.log_metric(self.id, name, value, step=self.last)
        for file in files:
            self.client.log_artifact(self.id, str(file))
        self.client.set_terminated(self.id, "FINISHED" if status == "finished" else "FAILED")

    def leave(self) -> None:
        self.client.set_terminated(self.id, "KILLED")


class MLflowTracker:
    """Keeps an experiment a study, and a run for each of ours."""

    def __init__(self, out: Path) -> None:
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        named = os.environ.get("MLFLOW_TRACKING_URI")
        out.mkdir(parents=True, exist_ok=True)
        self.files = None if named else (out / FOLDER).resolve().as_uri()
        self.client = MlflowClient(named or f"sqlite:///{(out / DATABASE).resolve()}")
        self.experiments: dict[str, str] = {}

    def open(self, subject: Subject, known: str | None) -> _Track:
        """Begin an MLflow run, or go on with the one that is known."""
        if known is not None:
            self.client.update_run(known, status="RUNNING")
            return _Track(self.client, known)
        run: Any = self.client.create_run(self._experiment(subject.group), run_name=subject.name)
        track = _Track(self.client, run.info.run_id)
        self.client.set_tag(track.id, "blocklab.key", subject.key)
        for name, value in subject.config.items():
            self.client.log_param(track.id, name, str(value)[:LONGEST_VALUE])
        return track

    def _experiment(self, study: str) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or study
        if name not in self.experiments:
            there: Any = self.client.get_experiment_by_name(name)
            self.experiments[name] = (
                self.client.create_experiment(name, self.files)
                if there is None
                else there.experiment_id
            )
        return self.experiments[name]
