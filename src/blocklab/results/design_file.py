"""design.json: what a study said beforehand, what was added later, and when it was looked at.

It lies beside study.json, is written at the study's first run and only ever added to. Folders of
older versions have none.
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from blocklab.files import file_lock, write_checked_json
from blocklab.results.checked_model import read_checked_model
from blocklab.results.study_file import RowName, RunHash, Seed
from blocklab.statistics.sequential import FUTILE, Looks, Seen
from blocklab.training.run_files import Count, Number

DESIGN = "design.json"
_MOST_LOOKS = 1000
SeedCount = Annotated[int, Field(ge=1, le=10_000)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class StatedJson(_Strict):
    """When something was stated, and how many of the study's runs had finished by then."""

    at: str
    after_runs: Count = 0


class DesignRowJson(StatedJson):
    """A row, its runs by seed, and when it was dropped from the study's file."""

    runs: dict[Seed, RunHash]
    dropped: str | None = None

    def ran_otherwise(self, runs: Mapping[str, str]) -> bool:
        """Whether a seed that it has is another run now, as after a change of a block's file."""
        return any(self.runs.get(seed, run) != run for seed, run in runs.items())


class LooksJson(_Strict):
    """The looks of seeds: until_decided."""

    seeds: Annotated[list[SeedCount], Field(min_length=2)]
    gain: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    baseline_times: SeedCount

    @classmethod
    def of(cls, looks: Looks | None) -> Self | None:
        """Return what a file says of a study's looks; None of a fixed number of seeds."""
        if looks is None:
            return None
        times = looks.baseline_times
        return cls(seeds=list(looks.seeds), gain=looks.gain, baseline_times=times)

    def looks(self) -> Looks:
        """Return them as the statistics have them."""
        return Looks(tuple(self.seeds), self.gain, self.baseline_times)


class LookJson(_Strict):
    """A look at the verdicts: of how many seeds a row, which had finished, and what was said.

    `going` are the rows that get more seeds; none of a study with a fixed number.
    """

    at: str
    planned: SeedCount
    level: Annotated[float, Field(gt=0, lt=1)]
    rows: Count
    seeds: dict[RowName, list[Count]]
    verdicts: dict[RowName, str]
    going: list[RowName] = []

    @property
    def seen(self) -> Seen:
        """It as the statistics have it."""
        futile = [row for row, word in self.verdicts.items() if word == FUTILE]
        return Seen(self.seeds, self.level, self.going, futile)

    @property
    def looked_at(self) -> frozenset[str]:
        """The rows, but the baseline, of which it saw a run."""
        return frozenset(row for row in self.verdicts if self.seeds.get(row))

    def ended(self, row: str) -> bool:
        """Whether a row that it saw gets no more seeds."""
        return row in self.looked_at and row not in self.going


@dataclass(frozen=True)
class Wave:
    """Rows that are looked at together, from the fewest seeds on, and the looks that they had.

    The first wave are the rows of a study's first look. Those that come later, or had no finished
    run by then, are a wave of their own: what was said of the rows before them stays.

    Attributes:
        rows: those that the study's file has, but the baseline.
        looks: so far.
        dropped: how many others were among them and are still counted, also where they came back
            in a later wave.
    """

    rows: tuple[str, ...]
    looks: tuple[LookJson, ...] = ()
    dropped: int = 0

    @property
    def going(self) -> tuple[str, ...]:
        """The rows that no look has ended."""
        if not self.looks:
            return self.rows
        return tuple(row for row in self.rows if row in self.looks[-1].going)


@dataclass
class _Members:
    """The rows of a wave as its looks are read, and those that had left it by a later look."""

    names: set[str]
    looks: list[LookJson]
    left: set[str] = field(default_factory=set)


class DesignJson(_Strict):
    """The whole file."""

    at: str
    finished_before: Count = 0  # runs of it that another study had trained by then
    baseline: str
    paired: bool = False
    alpha: Number
    until_decided: LooksJson | None = None
    rows: dict[RowName, DesignRowJson]
    claims: dict[str, StatedJson] = {}
    left_out: dict[str, StatedJson] = {}  # claims of its file about rows that are not in it
    margins: dict[str, StatedJson] = {}  # every one that was ever stated, as it is shown
    baselines: dict[RowName, StatedJson] = {}  # likewise
    pairings: dict[str, StatedJson] = {}  # likewise
    claims_over: dict[str, StatedJson] = {}  # over the data sets, of which this study is of one
    margin: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    looks: Annotated[list[LookJson], Field(max_length=_MOST_LOOKS)] = []
    looks_elsewhere: Annotated[list[LookJson], Field(max_length=_MOST_LOOKS)] = []

    @model_validator(mode="after")
    def _no_more_looks(self) -> "DesignJson":
        if self.until_decided is None:
            return self
        most = len(self.until_decided.seeds)
        if any(len(wave.looks) > most for wave in self.waves(self.rows)):
            raise ValueError("it has more looks than the design")
        return self

    def waves(self, rows: Iterable[str]) -> tuple[Wave, ...]:
        """Return which rows of a study are looked at together, those without a look last.

        A row that missed a look of its wave, as it was not in the file then, has left it: if it
        comes back it is one that comes later.

        Args:
            rows: of the study's file.
        """
        found: list[_Members] = []
        for look in self.looks:
            wave = next((one for one in found if one.names & look.looked_at), None)
            if wave is None:
                found.append(_Members(set(look.looked_at), [look]))
                continue
            missed = {*wave.looks[-1].going} - look.looked_at
            wave.left |= missed & wave.names
            wave.names = (wave.names | look.looked_at) - missed
            wave.looks.append(look)
        others = [row for row in dict.fromkeys([*rows, *self.rows]) if row != self.baseline]
        there = set(rows)
        gone = {row for wave in found for row in wave.left} - there
        found.append(_Members(set(others).difference(gone, *(wave.names for wave in found)), []))
        waves = [
            Wave(
                tuple(row for row in others if row in wave.names and row in there),
                tuple(wave.looks),
                len(wave.left) + sum(row in wave.names and row not in there for row in others),
            )
            for wave in found
        ]
        return tuple(wave for wave in waves if wave.rows or wave.looks)


def dropped_runs(design: DesignJson | None) -> Mapping[str, str]:
    """Return the runs of rows that were taken out of a study's file, each with its row."""
    rows = design.rows if design else {}
    return {run: name for name, row in rows.items() if row.dropped for run in row.runs.values()}


def pairing(paired: bool) -> str:
    """Say in words whether seeds are blocks."""
    return "paired" if paired else "not paired"


def held(folder: Path) -> AbstractContextManager[None]:
    """Return the lock under which a study's design.json is read, changed and written.

    Raises:
        RunError: as it is taken, if the folder cannot be written.
    """
    return file_lock(folder / f"{DESIGN}.lock")


def read_design(folder: Path) -> DesignJson | None:
    """Read the design.json of a study's folder; None where there is none.

    Raises:
        RunError: if it is damaged.
    """
    path = folder / DESIGN
    if not path.exists():
        return None
    remedy = (
        "take it from a backup, or remove it: the page will say that the runs were there before "
        "what is stated"
    )
    return read_checked_model(path, DesignJson, remedy)


def write_design(folder: Path, design: DesignJson) -> None:
    """Write design.json.

    Raises:
        RunError: if it cannot be written.
    """
    write_checked_json(folder / DESIGN, design.model_dump(mode="json"))
