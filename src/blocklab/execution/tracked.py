"""A study's trackers, told of its runs as they go."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blocklab.execution.crew import Watcher
from blocklab.execution.plan import Job
from blocklab.execution.sharing import Sharing
from blocklab.tracking.tracking import Tracking


class Tracked:
    """A watcher that lets trackers follow each run in its folder, beside another watcher.

    They run in this process, whichever processes or machines train: what they are told is in the
    run folders, which are written before anything is said of them.
    """

    def __init__(self, watcher: Watcher, tracking: Tracking, out: Path, group: str) -> None:
        self.watcher, self.tracking, self.out, self.group = watcher, tracking, out, group

    def planned(self, jobs: Sequence[Job], finished: int, sharing: Sharing) -> None:
        """Pass it on."""
        self.watcher.planned(jobs, finished, sharing)

    def looked(self, study: str, text: str) -> None:
        """Pass it on."""
        self.watcher.looked(study, text)

    def started(self, job: Job) -> None:
        """Pass it on."""
        self.watcher.started(job)

    def epoch(self, job: Job, record: dict[str, Any]) -> None:
        """Tell trackers of the epochs that the run's log has."""
        self.watcher.epoch(job, record)
        self._follow(job)

    def note(self, job: Job, text: str) -> None:
        """Pass it on."""
        self.watcher.note(job, text)

    def ended(self, job: Job, failure: str | None) -> None:
        """Tell trackers how the run ended."""
        self.watcher.ended(job, failure)
        self._follow(job)

    def _follow(self, job: Job) -> None:
        self.tracking.follow(self.out / job.hash, job.name, self.group)
