"""What a study shows on a terminal while it runs; a line a run where there is no terminal."""

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from blocklab.errors import printable
from blocklab.execution.plan import Job
from blocklab.execution.sharing import Sharing
from blocklab.notebook import Display, text_html
from blocklab.training.run_reader import logged

ABSENT = "\u2013"  # an en dash: not measured
NOTEBOOK_WIDTH = 100  # letters a line
MOST_SAID = 20  # lines below the table in a notebook


@dataclass
class _Running:
    job: Job
    records: list[dict[str, Any]] = field(default_factory=list)


class Progress:
    """A live table of what runs: epoch, loss, accuracy, speed, and how long the study will take.

    Time left is by work: MACs x training steps done in this call against those to do.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.running: dict[str, _Running] = {}
        self.total, self.done, self.failed = 0, 0, 0
        self.work_total, self.work_done = 0.0, 0.0
        self.began = time.monotonic()
        self._place: Display | None = None  # of a notebook
        self._said: list[str] = []
        self._paper = Console(file=io.StringIO(), width=NOTEBOOK_WIDTH, force_jupyter=False)
        # Last, as it draws at once.
        self.live = Live(console=console, get_renderable=self._draw, refresh_per_second=4)

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self.live.start()
        elif self.console.is_jupyter:
            self._place = Display()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.console.is_terminal:
            self.live.stop()
        self._show()

    def _say(self, line: str, **how: Any) -> None:
        """Say a line above the table; in a notebook, with those before, below it."""
        if self._place is None:
            self.console.print(line, **how)
        else:
            self._said.append(line)
            self._show()

    def _show(self) -> None:
        """Draw the table in a notebook, which has no terminal whose lines could be replaced."""
        if self._place is None:
            return
        with self._paper.capture() as drawn:
            self._paper.print(self._draw())
            for line in self._said[-MOST_SAID:]:
                self._paper.print(line, highlight=False)
        self._place.show(f"<pre>{text_html(drawn.get())}</pre>")

    def planned(self, jobs: Sequence[Job], finished: int, sharing: Sharing) -> None:
        """Note how much there is to do."""
        self.done, self.total = finished, finished + len(jobs)
        self.work_total = sum(job.work for job in jobs)
        self.began = time.monotonic()
        if finished:
            self._say(f"{finished} of {self.total} runs are finished already", style="dim")
        if jobs:
            self._say(str(sharing), style="dim", highlight=False)

    def looked(self, study: str, text: str) -> None:
        """Say it above the table."""
        self.console.print(f"{escape(study)}: {text}", style="bold", highlight=False)

    def started(self, job: Job) -> None:
        """Add a line for the run."""
        self.running.setdefault(job.hash, _Running(job))  # there, if its process died
        self._show()

    def epoch(self, job: Job, record: dict[str, Any]) -> None:
        """Move the run's line on; work that an earlier call has done is no work of this one.

        Epochs that went with a process that was killed are trained again, which is more work.
        """
        running = self.running.setdefault(job.hash, _Running(job))
        before = [one for one in running.records if one["epoch"] < record["epoch"]]
        again = len(running.records) - len(before)
        missed = 0 if running.records else record["epoch"] - 1
        self.work_total += job.work / job.epochs * (again - missed)
        running.records[:] = [*before, record]
        self.work_done += job.work / job.epochs
        self._show()

    def note(self, job: Job, text: str) -> None:
        """Say it above the table."""
        self._say(f"[yellow]note[/yellow]  {escape(job.name)}: {escape(printable(text))}")

    def ended(self, job: Job, failure: str | None) -> None:
        """Say how the run ended, above the table."""
        ended = self.running.pop(job.hash, _Running(job))
        last = ended.records[-1]["epoch"] if ended.records else 0
        self.work_total -= job.work / job.epochs * (job.epochs - last)  # if it diverged or failed
        if failure is not None:
            self.failed += 1
            self._say(f"[red]failed[/red]  {escape(job.name)}: {escape(printable(failure))}")
            return
        self.done += 1
        if ended.records and ended.records[-1].get("train_loss") is None:
            self._say(f"[red]diverged[/red]  {escape(job.name)} in epoch {last}")
            return
        seconds = sum(record["train_seconds"] for record in ended.records)
        self._say(f"[green]done[/green]  {escape(job.name)}{_figures(ended)}  {_clock(seconds)}")

    def kept(self, out: Path) -> str:
        """Say what is there, in `out`, should this be the end of it, and how to go on."""
        if not self.total:
            return "no run had begun; the same command starts again"
        begun = sum(bool(logged(out / run_hash)) for run_hash in self.running)
        unfinished = f", {begun} more keep their whole epochs" if begun else ""
        return (
            f"{self.done} of {self.total} runs are finished{unfinished}, in {out}; "
            "the same command goes on from there"
        )

    def _draw(self) -> RenderableType:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("running")
        for head in ("epoch", "train loss", "val top-1 %", "images/s"):
            table.add_column(head, justify="right")
        for running in self.running.values():
            last = running.records[-1] if running.records else {}
            table.add_row(
                escape(running.job.name),
                f"{last.get('epoch', 0)}/{running.job.epochs}",
                _shown(last.get("train_loss"), 3),
                _shown(last.get("validation_top1_percent"), 2),
                _shown(last.get("images_per_second"), 0),
            )
        line = Table.grid(padding=(0, 1))
        share = min(1.0, self.work_done / self.work_total) if self.work_total > 0 else 1.0
        line.add_row(
            ProgressBar(total=1.0, completed=share, width=30),
            f"{self.done} of {self.total} runs" + (f", {self.failed} failed" * bool(self.failed)),
            self._time_left(share),
        )
        return Group(table, line)

    def _time_left(self, share: float) -> str:
        spent = time.monotonic() - self.began
        left = f"about {_clock(spent / share * (1 - share))} left" if share else "…"
        return f"{_clock(spent)} so far, {left}"


def _figures(running: _Running) -> str:
    if not running.records:
        return ""
    last = running.records[-1]
    loss = _shown(last.get("train_loss"), 3)
    top1 = _shown(last.get("validation_top1_percent"), 2)
    return f"  train loss {loss}" + (f"  val top-1 {top1} %" if top1 != ABSENT else "")


def _shown(value: float | None, digits: int) -> str:
    return ABSENT if value is None else f"{value:,.{digits}f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
