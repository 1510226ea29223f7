"""What finished runs kept of their answers to the test images, read again without a network."""

from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from blocklab.errors import RunError
from blocklab.measure.answers import Answers, Ensemble, ensemble
from blocklab.results.ended_run import EndedRun
from blocklab.results.named_run import find_run
from blocklab.training.run_reader import RunReader


def read_answers(run: str | PathLike[str]) -> Answers:
    """Read what a run's network said of each test image.

    ``read_answers("runs/my_study/plain:0").per_class`` is the accuracy on each class. Of a run
    that kept no logits all but the calibration and ensembles can be had.

    Args:
        run: its folder, or ``ROW:SEED`` after its study's folder.

    Raises:
        InputError: if there is no such run, it has not ended, or it diverged.
        RunError: if a file of it is damaged.
    """
    reader = RunReader(find_run(Path(run)))
    arrays, names = reader.arrays(), tuple(reader.require_run()["class_names"])
    labels, top = arrays["labels"], arrays["top5"]
    if not all(((named >= 0) & (named < len(names))).all() for named in (labels, top)):
        raise RunError(f"the predictions of the run {reader.folder} name classes that it has not")
    logits, missing = None, None
    try:
        logits = reader.logits()
    except RunError as error:
        missing = str(error)
    return Answers(names, labels, top, arrays["loss"], logits, missing)


def ensemble_of(runs: Iterable[EndedRun]) -> Ensemble:
    """Average what runs said, such as a row's `finished` ones: one network of several seeds.

    Raises:
        InputError: if there are none, one kept no logits, or they were tested on other images.
        RunError: if a file of one is damaged.
    """
    return ensemble([read_answers(run.folder) for run in runs])
