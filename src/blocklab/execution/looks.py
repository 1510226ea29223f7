"""A study's looks: what they say is written to design.json, and which seeds come next.

A study with `seeds: until_decided` trains the runs of a look, and looks when all of them have
ended. What a look decides is a function of the runs that had finished at it, and is written down:
a study that was killed goes on from there.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from blocklab.errors import InputError, RunError
from blocklab.execution.stated import moment
from blocklab.results.design_file import (
    DESIGN,
    DesignJson,
    LookJson,
    LooksJson,
    Wave,
    held,
    read_design,
    write_design,
)
from blocklab.results.study_results import StudyResults
from blocklab.statistics.sequential import Looks
from blocklab.study.study import Study

FIXED = "a number of seeds"


def check_design(study: Study, folder: Path) -> None:
    """Check that a study is looked at as it said before its first look.

    Raises:
        InputError: if its looks have changed since.
        RunError: if its design.json is damaged.
    """
    there = read_design(folder)
    if there is None or not there.looks:
        return
    asked = LooksJson.of(study.looks)
    if asked is None and there.until_decided is None:
        return  # seeds that are added by hand are said on the page
    remedy = "put back what it was, or give the study another name"
    before, now = _worded(there.until_decided), _worded(asked)
    if before != now:
        raise InputError(
            f"study '{study.name}' has been looked at with seeds: {before}, and its file now says "
            f"{now}; {remedy}"
        )
    for what, was, here in (
        ("baseline", there.baseline, study.baseline),
        ("paired", there.paired, study.paired),
        ("margin", there.margin, study.margin),
    ):
        if was != here:
            raise InputError(
                f"study '{study.name}' has been looked at with {what}: {was}, and its file now "
                f"says {here}; {remedy}"
            )


def check_looked_at(study: Study, folder: Path) -> None:
    """Check that the runs of rows that looks have judged are still theirs.

    Raises:
        InputError: if they are others, as where the file of a block was edited.
        RunError: if its design.json is damaged.
    """
    there = read_design(folder)
    if there is None or not there.looks or study.looks is None or study.tune is not None:
        return  # a rate that is tuned is not known yet, and with it the runs
    for row in study.rows:
        had = there.rows.get(row.name)
        if had and had.ran_otherwise({seed: row.definition(int(seed)).hash for seed in had.runs}):
            raise InputError(
                f"study '{study.name}' has been looked at with other runs of its row '{row.name}': "
                "its recipe, data or model, or the file of a block, has changed since; put it "
                "back, or give the study another name"
            )


def resumed(study: Study, folder: Path) -> Study:
    """Return a study with the seeds that its looks so far ask for."""
    if study.looks is None or (design := read_design(folder)) is None:
        return study
    return _with_seeds(study, study.looks, design)


def fewest_and_most_runs(study: Study, folder: Path) -> tuple[int, int]:
    """Return how many runs a study has once its next looks end every row, and if none does.

    Raises:
        RunError: if its design.json is damaged.
    """
    assert study.looks is not None
    design = read_design(folder)
    others = tuple(row.name for row in study.rows if row.name != study.baseline)
    waves = _waves(study, design) if design else (Wave(others),)
    fewest, most = (sum(_sizes(study, study.looks, waves, end).values()) for end in (False, True))
    return fewest, most


def look(
    study: Study, folder: Path, results: StudyResults, failed: Collection[str] = ()
) -> Study | None:
    """Look at a study whose planned runs have all ended, and write down what was seen.

    A run that failed for the first time may well finish by the next command, when the disk is no
    longer full: until then nothing is looked at, as no look would read what it gives. Of a row of
    which no run has finished the others do not wait.

    Args:
        study: with the seeds that were trained.
        folder: the study's.
        results: read from it since.
        failed: the hashes of the runs that failed now for the first time.

    Returns:
        The study with the seeds that come next, by this look or by that of another process; None
        where there are none.

    Raises:
        RunError: if design.json is gone, damaged, or cannot be written.
    """
    with held(folder):
        design = read_design(folder)
        if design is None:
            raise RunError(f"{folder / DESIGN} has gone while the study ran; run it again")
        if study.looks is None:
            _look_at_fixed(study, folder, design, results)
            return None
        assert results.design is not None
        coming = _with_seeds(study, study.looks, design)
        # Another process may have looked meanwhile: then its seeds come first. Or it has just
        # begun, and written a study.json of before this study's look.
        unseen = coming.seeds_by_row == study.seeds_by_row and design.looks == results.design.looks
        whole = all(row.planned_seeds == study.seeds_of(row.name) for row in results.rows)
        if unseen and whole and not _waits(study, results, failed):
            design = _looked(study.looks, folder, design, results)
            coming = _with_seeds(study, study.looks, design)
        return None if coming.seeds_by_row == study.seeds_by_row else coming


def _waits(study: Study, results: StudyResults, failed: Collection[str]) -> bool:
    """Whether a run failed now, of a row of which others have finished."""
    begun = {row.name for row in results.rows if row.finished}
    return any(run.row.name in begun and run.definition.hash in failed for run in study.plan())


def _looked(looks: Looks, folder: Path, design: DesignJson, results: StudyResults) -> DesignJson:
    """Take the next look of each wave; return the design with them."""
    seen = [
        LookJson(
            at=moment(),
            planned=looks.seeds[len(one.wave.looks)],
            level=one.looks[-1].level,
            rows=one.looks[-1].family.rows,
            seeds={row: list(seeds) for row, seeds in one.looks[-1].seeds.items()},
            verdicts={row: said.word for row, said in one.looks[-1].family.comparisons.items()},
            going=[row for row in one.looks[-1].going if one.looks[-1].seeds.get(row)],
        )
        for one in results.next_looks()
    ]
    if not seen:  # no row and its baseline have a run that finished
        return design
    design = design.model_copy(update={"looks": [*design.looks, *seen]})
    write_design(folder, design)
    return design


def look_text(study: Study, folder: Path) -> str | None:
    """Say which look a study is at; None of one that has a fixed number of seeds."""
    design = read_design(folder)
    if study.looks is None or design is None:
        return None
    sizes, said, most = study.looks.seeds, [], 0
    for wave in _waves(study, design):
        number = len(wave.looks)
        most = max(most, number)
        if number == len(sizes) or not wave.going:
            continue
        rows = f"{len(wave.going)} row{'s' if len(wave.going) > 1 else ''}"
        said.append(f"look {number + 1} of {len(sizes)}: {rows} at {sizes[number]} seeds each")
    if said:
        return "; ".join(said)
    return f"decided after look {most} of {len(sizes)}" if most else None


def _look_at_fixed(study: Study, folder: Path, design: DesignJson, results: StudyResults) -> None:
    family = results.family
    if not family.rows:
        return
    seen = LookJson(
        at=moment(),
        planned=len(study.seeds),
        level=family.alpha,
        rows=family.rows,
        seeds={row.name: sorted(row.by_seed("test_top1_percent")) for row in results.rows},
        verdicts={row: one.word for row, one in family.comparisons.items()},
    )
    # The same seeds again, with a run that is mended or a row that is new, are no other look.
    earlier = [one for one in design.looks if one.planned < seen.planned]
    same = next((one for one in design.looks if one.planned == seen.planned), None)
    if same is not None:
        if (same.seeds, same.verdicts) == (seen.seeds, seen.verdicts):
            return
        seen = seen.model_copy(update={"at": same.at})
    write_design(folder, design.model_copy(update={"looks": [*earlier, seen]}))


def _waves(study: Study, design: DesignJson) -> tuple[Wave, ...]:
    return design.waves([row.name for row in study.rows])


def _with_seeds(study: Study, looks: Looks, design: DesignJson) -> Study:
    """Return a study with the seeds of each row's next look, or of that at which it ended."""
    sizes = _sizes(study, looks, _waves(study, design))
    return replace(
        study, seeds_by_row={row.name: tuple(range(sizes[row.name])) for row in study.rows}
    )


def _sizes(
    study: Study, looks: Looks, waves: Iterable[Wave], to_the_end: bool = False
) -> Mapping[str, int]:
    """Return how many seeds each row has at its next look, or at the last one if none ends it."""
    last, sizes = len(looks.seeds) - 1, dict[str, int]()
    of_baseline = 0
    for wave in waves:
        going = {*wave.going} if len(wave.looks) <= last else set[str]()
        coming = last if to_the_end else len(wave.looks)
        for row in wave.rows:
            ended = (i for i, one in enumerate(wave.looks) if one.ended(row))
            sizes[row] = looks.seeds[coming if row in going else next(ended, last)]
        of_baseline = max(of_baseline, coming if going else len(wave.looks) - 1)
    return {**sizes, study.baseline or "": looks.of_baseline(of_baseline)}


def _worded(looks: LooksJson | None) -> str:
    if looks is None:
        return FIXED
    return f"{{looks: {looks.seeds}, gain: {looks.gain:g}, baseline_times: {looks.baseline_times}}}"
