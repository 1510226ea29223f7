"""What a call of blocklab tells its trackers: read from the run folders, each line once.

How far a tracker has been told of a run is kept in the run's folder (tracking.json). So whoever
goes on with the run, whenever, tells what is new, and a study that ran without a tracker can be
told as a whole by running it again. No tracker's failure is a run's: it is said once, and that
tracker is not asked again.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from blocklab.errors import error_line
from blocklab.files import LARGEST_JSON, parse_json, read_regular, write_json
from blocklab.tracking.tracker import Subject, Track, Tracker, Values, check_trackers
from blocklab.training.run_reader import RunReader, logged

TOLD = "tracking.json"
ALONE = "blocklab"  # the group of runs that are of no study
Warn = Callable[[str], None]


@dataclass
class _Told:
    """How far one tracker has been told of a folder, and its open record there."""

    id: str | None = None
    epochs: int = 0
    ended: bool = False
    track: Track | None = None

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.id, "epochs": self.epochs, "ended": self.ended}


@dataclass
class _One:
    """A tracker, and what it has been told in this call, by folder."""

    name: str
    tracker: Tracker
    told: dict[Path, _Told] = field(default_factory=dict)


class Tracking:
    """The trackers of one call; none of them is nothing to do.

    Args:
        names: of trackers, see `check_trackers`.
        out: the folder of run folders.
        warn: is given one line where a tracker fails.

    Raises:
        InputError: for a tracker that there is not, or that is not installed.
    """

    def __init__(self, names: Sequence[str], out: Path, warn: Warn) -> None:
        self.warn = warn
        self._trackers: list[_One] = []
        for name in check_trackers(names):
            try:
                self._trackers.append(_One(name, _make_tracker(name, out)))
            except Exception as error:
                self._failed(name, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for one in list(self._trackers):
            for told in one.told.values():
                if told.track is not None:
                    track, told.track = told.track, None
                    if not self._try(one, track.leave):
                        break

    def follow(self, folder: Path, name: str, group: str = ALONE) -> None:
        """Tell of what a run's folder has that was not told yet: epochs, and how it ended.

        Args:
            folder: of the run.
            name: what people read.
            group: the study that it is of.
        """
        if not self._trackers or not (folder.is_dir() and (log := logged(folder))):
            return
        reader = RunReader(folder)
        if (run := reader.run) is None:
            return
        subject = Subject(folder.name, name, group, _config(run))
        for one in list(self._trackers):
            self._try(one, lambda one=one: self._tell(one, subject, folder, log, reader.result))

    def page(self, folder: Path, group: str, title: str, files: Sequence[Path]) -> None:
        """Hand over a study's page and tables; `folder` is the study's own."""
        there = [file for file in files if file.is_file()]
        for one in list(self._trackers):
            self._try(one, lambda one=one: self._hand_over(one, folder, group, title, there))

    def _tell(
        self,
        one: _One,
        subject: Subject,
        folder: Path,
        log: Sequence[Mapping[str, Any]],
        result: Mapping[str, Any] | None,
    ) -> None:
        told = one.told.setdefault(folder, _told_before(folder, one.name))
        if told.ended:
            return
        new = [line for line in log if line["epoch"] > told.epochs]
        if not new and result is None:
            return
        if told.track is None:
            told.track = one.tracker.open(subject, told.id)
            told.id = told.track.id
        try:
            for line in new:
                told.track.log(_figures(line, without=("epoch",)), line["epoch"])
                told.epochs = line["epoch"]
            if result is not None:
                # Named apart from the epochs': a tracker would draw one line through both.
                final = {f"final/{name}": value for name, value in _figures(result).items()}
                track, told.track = told.track, None
                track.end(final, (), result["status"])
                told.ended = True
        finally:  # what was told before it failed is not told again
            _note(folder, one.name, told)

    def _hand_over(
        self, one: _One, folder: Path, group: str, title: str, files: Sequence[Path]
    ) -> None:
        told = _told_before(folder, one.name)
        subject = Subject(f"page-{folder.name}", f"{title} (page)", group)
        track = one.tracker.open(subject, told.id)
        track.end({}, files, "finished")
        _note(folder, one.name, _Told(track.id, ended=True))

    def _try(self, one: _One, call: Callable[[], None]) -> bool:
        """Do it, whatever a tracker may raise; say whether it did not."""
        try:
            call()
        except Exception as error:
            self._trackers.remove(one)
            self._failed(one.name, error)
            return False
        return True

    def _failed(self, name: str, error: Exception) -> None:
        self.warn(
            f"the tracker {name} failed ({error_line(error)}) and is not asked again; runs are not "
            "touched by it, and the same command tells it later what it missed"
        )


def _told_before(folder: Path, tracker: str) -> _Told:
    known = _read(folder).get(tracker)
    if not isinstance(known, dict) or not isinstance(known.get("id"), str):
        return _Told()
    epochs = known.get("epochs")
    return _Told(known["id"], epochs if isinstance(epochs, int) else 0, known.get("ended") is True)


def _note(folder: Path, tracker: str, told: _Told) -> None:
    if folder.is_dir():
        write_json(folder / TOLD, {**_read(folder), tracker: told.to_dict()})


def _read(folder: Path) -> dict[str, Any]:
    try:
        value = parse_json(read_regular(folder / TOLD, LARGEST_JSON))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _figures(record: Mapping[str, Any], without: Sequence[str] = ()) -> Values:
    """Return a record's numbers; what is no finite number has no place on a curve."""
    return {
        name: float(value)
        for name, value in record.items()
        if name not in without
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    }


def _config(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return what defines a run and what it runs on, by dotted names."""
    told = {
        **run["definition"],
        **{name: run[name] for name in ("versions", "machine", "cost") if run.get(name)},
        **{name: run[name] for name in ("precision", "memory_format", "threads", "label")},
        **{name: run[name] for name in ("train_images", "validation_images", "test_images")},
    }
    return dict(_flat(told))


def _flat(value: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, item in value.items():
        if isinstance(item, Mapping):
            found += _flat(item, f"{before}{name}.")
        else:
            plain = isinstance(item, str | int | float | bool)
            found.append((f"{before}{name}", item if plain else json.dumps(item)))
    return found


def _make_tracker(name: str, out: Path) -> Tracker:
    """Make a tracker; what it keeps in files of its own goes below `out`, if it has no other place.

    Its module is imported now: that takes seconds.
    """
    if name == "tensorboard":
        from blocklab.tracking.tensorboard_tracker import TensorBoardTracker

        return TensorBoardTracker(out)
    if name == "wandb":
        from blocklab.tracking.wandb_tracker import WandbTracker

        return WandbTracker(out)
    if name == "mlflow":
        from blocklab.tracking.mlflow_tracker import MLflowTracker

        return MLflowTracker(out)
    from blocklab.tracking.trackio_tracker import TrackioTracker

    return TrackioTracker()
