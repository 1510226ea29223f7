"""A run that has ended, as results go by it: its figures, and what its network said of each image.

Where a run has kept its predictions, its accuracies and loss on the test images are theirs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blocklab.errors import RunError
from blocklab.training.predictions import PerImage
from blocklab.training.provenance import earlier_parts
from blocklab.training.run_files import DIVERGED, WEIGHTS
from blocklab.training.run_reader import RunReader

ZEROS = "zeros"  # the figure that a diagnosis adds: zeros after the last block
ROUNDING = 1e-6  # of a mean over images that is added up in another order


@dataclass(frozen=True)
class EndedRun:
    """A run that has ended.

    `per_image` is None of a run that kept no predictions, `diagnosis` (diagnosis.json) of one that
    was not diagnosed. `notes` say what a reader must know of its files, `left_out` which of them
    its record was kept without.
    """

    hash: str
    seed: int
    folder: Path
    run: dict[str, Any]  # run.json
    log: Sequence[dict[str, Any]]  # log.jsonl, one an epoch
    result: dict[str, Any]  # result.json
    per_image: PerImage | None = None
    diagnosis: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Name it; the whole would fill a screen."""
        return f"<run {self.folder}, seed {self.seed}>"

    @property
    def diverged(self) -> bool:
        """Whether its loss stopped being a number: to be shown, never averaged."""
        return self.result["status"] == DIVERGED

    @property
    def has_weights(self) -> bool:
        """Whether its weights are kept: it did not diverge, and is no record without them."""
        return WEIGHTS in self.result.get("files", {}) and WEIGHTS not in self.left_out

    @property
    def at_chance(self) -> bool:
        """Whether it knows its own training images no better than the commonest class does."""
        return self.result.get("at_chance") is True

    @property
    def epochs(self) -> int | None:
        """How many epochs it trained."""
        return self.result.get("epochs")

    @property
    def zeros_percent(self) -> float | None:
        """Zeros after the last block, in % of its outputs, of a run that was diagnosed."""
        last = (self.diagnosis or {}).get("last_block")
        return float(last["zero_percent"]) if last else None

    @property
    def zeros_over(self) -> tuple[int, int, int] | None:
        """Over which test batches they were counted, first and last, and over how many images."""
        own = self.diagnosis or {}
        counted = own.get("first_batch"), own.get("last_batch"), own.get("images")
        return None if None in counted else counted  # type: ignore[return-value]

    def figure(self, name: str) -> float | None:
        """Return a number of result.json, or the zeros of a diagnosis; None where it has none."""
        value = self.result.get(name)
        if name == ZEROS:
            value = ((self.diagnosis or {}).get("last_block") or {}).get(ZEROS)
        return None if value is None else float(value)


_COUNT_AGAIN = (
    "its study, where that asks for it, or else `blocklab diagnose` counts again",
    "count again where its weights are, and keep its records anew",
)


def read_ended_run(reader: RunReader) -> EndedRun | None:
    """Read a run from its folder; None while it has not ended, or if a file of it is damaged."""
    run, result = reader.run, reader.result
    if run is None or result is None:
        return None
    seed, notes = run["definition"]["seed"], earlier_parts(run)
    own = reader.per_image.figures if reader.per_image else {}
    for name, value in own.items():
        written = result.get(name)
        if written is None and not math.isfinite(value):  # as it is written: JSON has no such
            notes.append(f"{name} is {value:g}, which no mean or test can count")
            continue
        if written is None or not math.isclose(written, value, rel_tol=ROUNDING, abs_tol=ROUNDING):
            notes.append(
                f"result.json has {name} {written}, its predictions give {value:g}: those count"
            )
            result = result | {name: value}
    diagnosis = None
    try:
        diagnosis = reader.diagnosis()
    except RunError as error:
        notes.append(f"{error}; {_COUNT_AGAIN[WEIGHTS in reader.left_out]}")
    return EndedRun(
        reader.name,
        seed,
        reader.folder,
        run,
        reader.log,
        result,
        reader.per_image,
        diagnosis,
        tuple(notes),
        reader.left_out,
    )
