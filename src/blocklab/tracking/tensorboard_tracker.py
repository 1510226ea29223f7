"""TensorBoard: event files in OUT/tensorboard, a folder a run."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from blocklab.tracking.tracker import Subject, Values

FOLDER = "tensorboard"


class _Track:
    def __init__(self, folder: Path, subject: Subject, known: str | None) -> None:
        self.id = folder.name
        self.writer = SummaryWriter(str(folder))
        if known is None and subject.config:
            text = json.dumps(dict(subject.config), indent=2)
            self.writer.add_text("configuration", "".join(f"    {x}\n" for x in text.splitlines()))
        self.last = 0

    def log(self, values: Values, step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.last = step
        self.writer.flush()

    def end(self, values: Values, files: Sequence[Path], status: str) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, self.last)
        for file in files:  # it has no files: the table as text, and where the page is
            if file.suffix == ".md":
                self.writer.add_text(file.stem, file.read_text(encoding="utf-8"))
            else:
                self.writer.add_text(file.stem, str(file.resolve()))
        self.writer.add_text("status", status)
        self.writer.close()

    def leave(self) -> None:
        self.writer.close()


class TensorBoardTracker:
    """Writes event files, which ``tensorboard --logdir OUT/tensorboard`` shows."""

    def __init__(self, out: Path) -> None:
        self.folder = out / FOLDER

    def open(self, subject: Subject, known: str | None) -> _Track:
        """Write on in the folder that is known, or in a new one of the subject's name."""
        group = self.folder / subject.group
        if known is not None:
            return _Track(group / known, subject, known)
        plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in subject.name)[:60]
        name = f"{plain}-{subject.key[:6]}"
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        free = (one for one in itertools.chain([name], numbered) if not (group / one).exists())
        return _Track(group / next(free), subject, known)
