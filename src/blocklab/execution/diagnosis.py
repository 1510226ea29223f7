"""Counting zeros in the trained networks of studies that ask for it, once a run has finished.

Where a run's folder has the counts over these test batches already, nothing is counted again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from blocklab.data.image_data import ImageData
from blocklab.errors import BlocklabError, InputError
from blocklab.measure.memory import release_memory
from blocklab.study.rows import Row
from blocklab.study.study import Batches, Study
from blocklab.training.batches import evaluated_at_once
from blocklab.training.finished import FinishedRun, diagnose_run
from blocklab.training.run_files import FINISHED, WEIGHTS
from blocklab.training.run_reader import RunReader


def check_batches(study: Study, row: Row, data: ImageData) -> None:
    """Check, before anything is trained, that a row's test images make the batches to look at.

    Raises:
        InputError: if they make fewer than the first.
    """
    if study.diagnose is None:
        return
    batches = _count(len(data.test), row.recipe.batch_size)
    if study.diagnose.first > batches:
        raise InputError(
            f"study '{study.name}', row '{row.name}': its {len(data.test):,} test images are "
            f"{batches} batch{'' if batches == 1 else 'es'}, and diagnose begins at "
            f"{study.diagnose.first}; begin earlier"
        )


def diagnose_studies(studies: Sequence[Study], out: Path) -> None:
    """Diagnose every finished run of the studies that ask for it.

    Raises:
        InputError: if a run's images are no longer there.
        RunError: if a run's folder cannot be written.
    """
    for study in studies:
        for run in study.plan() if study.diagnose else ():
            reader = RunReader(out / run.definition.hash)
            finished = (reader.result or {}).get("status") == FINISHED
            if not study.diagnose or not finished or WEIGHTS in reader.left_out:
                continue  # of a record there is nothing to count in
            if not _is_diagnosed(reader, study.diagnose):
                opened = FinishedRun.open(reader.folder)
                diagnose_run(opened, study.diagnose.first, study.diagnose.last)
                del opened
                release_memory()


def _is_diagnosed(reader: RunReader, batches: Batches) -> bool:
    try:
        known: Mapping[str, object] = reader.diagnosis() or {}
    except BlocklabError:  # it is damaged, and made again
        return False
    run = reader.run or {}
    last = _count(run["test_images"], run["definition"]["recipe"]["batch_size"])
    asked = batches.first, min(batches.last, last)
    return (known.get("first_batch"), known.get("last_batch")) == asked


def _count(images: int, batch_size: int) -> int:
    return -(-images // evaluated_at_once(batch_size))
