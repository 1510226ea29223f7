"""Trackio: a local database (TRACKIO_DIR), or the Space or server that its variables name."""

import io
import re
from collections.abc import Sequence
from contextlib import redirect_stdout
from contextvars import Context
from pathlib import Path
from typing import Any

import trackio  # pyright: ignore[reportMissingImports] - an extra

from blocklab.tracking.tracker import Subject, Values


class _Track:
    def __init__(self, run: Any) -> None:
        self.run, self.id = run, run.name
        self.last = 0

    def log(self, values: Values, step: int) -> None:
        with redirect_stdout(io.StringIO()):
            self.run.log(dict(values), step=step)
        self.last = step

    def end(self, values: Values, files: Sequence[Path], status: str) -> None:
        with redirect_stdout(io.StringIO()):
            self.run.log({**values, "status": status}, step=self.last)
            for file in files:
                plain = re.sub(r"[^\w.-]+", "-", f"{self.id}-{file.name}", flags=re.ASCII)
                self.run.log_artifact(file, name=plain, type="page")
            self.run.finish()

    def leave(self) -> None:
        with redirect_stdout(io.StringIO()):
            self.run.finish()


class TrackioTracker:
    """Keeps a project a study, and a run for each of ours."""

    def open(self, subject: Subject, known: str | None) -> _Track:
        """Begin a Trackio run, or go on with the one of the same name."""
        with redirect_stdout(io.StringIO()):  # it says on stdout what it does
            # In a context of its own: each run would end the one that was begun before it.
            run = Context().run(
                trackio.init,
                project=subject.group,
                name=f"{subject.name} {subject.key[:6]}",
                config=dict(subject.config),
                resume="never" if known is None else "allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        return _Track(run)
