"""The progress bar of a single run, on stderr; a line an epoch where that is no terminal."""

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from blocklab.errors import printable


class TrainingBar:
    """Shows an epoch's steps, and a line for each epoch that has ended."""

    def __init__(self, console: Console, model: str, epochs: int) -> None:
        self.console, self.epochs = console, epochs
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
        )
        self.progress = Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        )
        self.task = self.progress.add_task(escape(model), total=None)
        self.done = 0

    def __enter__(self) -> "TrainingBar":
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def step(self, step: int, steps: int) -> None:
        """Move on within an epoch."""
        self.progress.update(
            self.task, completed=self.done * steps + step, total=steps * self.epochs
        )

    def epoch(self, record: dict[str, Any]) -> None:
        """Say what an epoch came to."""
        self.done = record["epoch"]
        said = [f"epoch {record['epoch']}/{self.epochs}"]
        for name, key, digits in (
            ("train loss", "train_loss", 3),
            ("val top-1 %", "validation_top1_percent", 2),
            ("images/s", "images_per_second", 0),
        ):
            if record.get(key) is not None:
                said.append(f"{name} {record[key]:,.{digits}f}")
        self.console.print("  ".join(said), highlight=False)

    def note(self, text: str) -> None:
        """Say what the run's user should know."""
        self.console.print(f"[yellow]note[/yellow]  {escape(printable(text))}", highlight=False)
