"""A finished run of fewer epochs, from which a longer one goes on where its schedule allows.

Draws are functions of the seed and the epoch, and a constant or a step schedule gives an epoch the
same learning rates however many follow: so a run that goes on has the bits of one that was never
shorter. Cosine and one-cycle look at the last epoch from the first step on. The shorter run must
have kept its last checkpoint, which a finished run does where it was asked to.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blocklab.training.checkpoints import KEEP_VARIABLE
from blocklab.training.run_files import CHECKPOINT, FINISHED, RUN_HASH, definition_hash
from blocklab.training.run_folder import load_sealed
from blocklab.training.run_reader import RunReader

GOING_ON = ("constant", "step")  # schedules that do not look ahead


@dataclass(frozen=True)
class ShorterRun:
    """A finished run, defined as another one but for having fewer epochs."""

    folder: Path
    epochs: int
    run: dict[str, Any]  # run.json

    @property
    def kept(self) -> bool:
        """Whether its last checkpoint is there, whole or not."""
        return (self.folder / CHECKPOINT).exists()

    def checkpoint(self) -> dict[str, Any] | None:
        """Return what it reached; None where that is damaged or gone."""
        saved = load_sealed(self.folder / CHECKPOINT)
        if saved is None or saved.get(RUN_HASH) != self.folder.name or saved["diverged"]:
            return None
        return saved if saved["epochs_done"] == self.epochs else None


def shorter_run(definition: Mapping[str, Any], out: Path) -> ShorterRun | None:
    """Return the longest finished run in `out` that has fewer epochs than the one so defined.

    One that kept its checkpoint goes before a longer one that did not.
    """
    recipe, without = definition["recipe"], None
    for epochs in range(recipe["epochs"] - 1, 0, -1):
        shorter = {**definition, "recipe": {**recipe, "epochs": epochs}}
        folder = out / definition_hash(shorter)
        if folder.is_dir():
            reader = RunReader(folder)
            run, result = reader.run, reader.result
            alone = run is not None and run.get("devices", 1) == 1
            if run and alone and result and result["status"] == FINISHED:
                found = ShorterRun(folder, epochs, run)
                if found.kept:
                    return found
                without = without or found
    return without


def why_anew(definition: Mapping[str, Any], out: Path, devices: int = 1) -> str | None:
    """Say why a run that has not begun trains from its first epoch, though a shorter one is there.

    None where it goes on from that, or there is none.
    """
    schedule, epochs = definition["recipe"]["schedule"], definition["recipe"]["epochs"]
    if (out / definition_hash(definition)).is_dir() or (
        there := shorter_run(definition, out)
    ) is None:
        return None
    if schedule in GOING_ON and devices == 1:
        if there.kept:
            return None
        why = f"as it kept no checkpoint; runs trained with {KEEP_VARIABLE}=1 do"
    elif schedule in GOING_ON:
        why = "as a run on several devices goes on from its own checkpoints alone"
    else:
        why = (
            f"as the {schedule} schedule of {epochs} is another one from the first step on; a "
            f"recipe with schedule={' or '.join(GOING_ON)} goes on"
        )
    return f"trains from its first epoch, though a run of {there.epochs} is finished, {why}"
