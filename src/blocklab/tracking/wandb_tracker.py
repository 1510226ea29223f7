"""Weights & Biases: online, or offline with WANDB_MODE=offline (`wandb sync` sends it later)."""

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb  # pyright: ignore[reportMissingImports] - an extra

from blocklab.errors import RunError
from blocklab.tracking.tracker import Subject, Values

PROJECT = "blocklab"  # unless WANDB_PROJECT names another


class _Track:
    def __init__(self, run: Any) -> None:
        self.run, self.id = run, run.id

    def log(self, values: Values, step: int) -> None:
        self.run.log(dict(values), step=step)

    def end(self, values: Values, files: Sequence[Path], status: str) -> None:
        self.run.summary.update({**values, "status": status})
        if files:
            artifact = wandb.Artifact(f"page-{self.id}", type="page")
            for file in files:
                artifact.add_file(str(file))
            self.run.log_artifact(artifact)
        self.run.finish()

    def leave(self) -> None:
        self.run.finish()


class WandbTracker:
    """Starts a W&B run for each of ours, several beside each other."""

    def __init__(self, out: Path) -> None:
        self.folder = out
        online = wandb.setup().settings.mode not in ("offline", "disabled")
        if online and not wandb.login(prompt=False):  # else it would ask amid the live table
            raise RunError("it knows no account; run `wandb login`, or set WANDB_MODE=offline")

    def open(self, subject: Subject, known: str | None) -> _Track:
        """Begin a W&B run, or go on with the one that is known.

        An id is never used twice: W&B takes no run of an id whose run was deleted there.
        """
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            id=known or f"{subject.key}-{secrets.token_hex(3)}",
            name=subject.name,
            group=subject.group,
            config=dict(subject.config) if known is None else None,
            dir=os.environ.get("WANDB_DIR") or str(self.folder),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
        return _Track(run)
