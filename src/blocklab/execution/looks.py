"""What a study states at its first run, and its looks: design.json, and which seeds come next.

A study with `seeds: until_decided` trains the runs of a look, and looks when all of them have
ended. What a look decides is a function of the runs that had finished at it, and is written down:
a study that was killed goes on from there.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from blocklab.errors import BlocklabError, InputError, RunError
from blocklab.results.design_file import (
    DESIGN,
    DesignJson,
    DesignRowJson,
    LookJson,
    LooksJson,
    StatedJson,
    Wave,
    pairing,
    read_design,
    write_design,
)
from blocklab.results.study_file import StudyJson, read_study_file
from blocklab.results.study_results import StudyResults
from blocklab.statistics.sequential import Looks
from blocklab.statistics.summary import ALPHA
from blocklab.study.claims import parse_claim
from blocklab.study.study import Study
from blocklab.training.run_reader import is_finished

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
    asked = _until_decided(study)
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


def state_design(study: Study, folder: Path, before: StudyJson | None) -> None:
    """Write down what a study states now, with how many of its runs had finished by then.

    Args:
        study: what is about to run.
        folder: the study's.
        before: its study.json as it was, if it had one.

    Raises:
        RunError: if design.json is damaged, or cannot be written.
    """
    there, now = read_design(folder), _now()
    out = folder.parent
    runs = {
        row.name: {str(seed): row.definition(seed).hash for seed in study.seeds_of(row.name)}
        for row in study.rows
    }
    old = _rows_before(there, before)
    known = {run for row in old.values() for run in row.runs.values()}
    done = _finished(known | {run for of_row in runs.values() for run in of_row.values()}, out)
    late = done if old else 0
    rows = {name: _dropped(row, now) for name, row in old.items() if name not in runs}
    rows = {name: row for name, row in rows.items() if _finished(row.runs.values(), out)}
    for name, of_row in runs.items():
        had = old.get(name) or DesignRowJson(at=now, after_runs=late, runs={})
        rows[name] = had.model_copy(update={"runs": had.runs | of_row, "dropped": None})
    said = there.claims if there else _claims_before(before)
    # What the file claims of rows that come later was stated with it.
    of_file = {**(there.left_out if there else {}), **said}
    new: Mapping[str, StatedJson] = {}
    if not old:  # the first time in this folder, but the runs may have been read in another
        of_file = _claims_elsewhere(runs, study, folder)
        finished = {row for row, of_row in runs.items() if _finished(of_row.values(), out)}
        known = [claim for claim in study.claims if _rows_of(claim, study) <= finished]
        new = _stated(known, of_file, now, done)
    claims = {**said, **_stated(study.claims, {**of_file, **new}, now, late)}
    before_margins = there.margins if there else {}
    named = [] if study.margin is None else [f"{study.margin:g}"]
    margins = {**before_margins, **_stated(named, before_margins, now, late)}
    baselines, pairings = _set_up_before(there, before)
    over = there.claims_over if there else {}
    looks = there.looks if there else _looks_elsewhere(runs, study, folder)
    write_design(
        folder,
        DesignJson(
            at=there.at if there else now,
            finished_before=there.finished_before if there else done,
            baseline=study.baseline,
            paired=study.paired,
            alpha=ALPHA,
            until_decided=_until_decided(study),
            rows=rows,
            claims=claims,
            left_out=_stated(study.claims_left_out, of_file, now, late),
            claims_over={**over, **_stated(study.claims_over, over, now, late)},
            margins=margins,
            baselines={**baselines, **_stated([study.baseline or ""], baselines, now, late)},
            pairings={**pairings, **_stated([pairing(study.paired)], pairings, now, late)},
            margin=study.margin,
            looks=looks,
            looks_elsewhere=_other_looks(runs, study, folder, looks),
        ),
    )


def look(study: Study, folder: Path, results: StudyResults) -> Study | None:
    """Look at a study whose planned runs have all ended, and write down what was seen.

    Returns the study with the seeds that come next; None where there are none.

    Raises:
        RunError: if design.json is gone, damaged, or cannot be written.
    """
    design = read_design(folder)
    if design is None:
        raise RunError(f"{folder / DESIGN} has gone while the study ran; run it again")
    if study.looks is None:
        _look_at_fixed(study, folder, design, results)
        return None
    seen = [
        LookJson(
            at=_now(),
            planned=study.looks.seeds[len(one.wave.looks)],
            level=one.looks[-1].level,
            rows=one.looks[-1].family.rows,
            seeds={row: list(seeds) for row, seeds in one.looks[-1].seeds.items()},
            verdicts={row: said.word for row, said in one.looks[-1].family.comparisons.items()},
            going=[row for row in one.looks[-1].going if one.looks[-1].seeds.get(row)],
        )
        for one in results.next_looks()
    ]
    if not seen:  # or no row and its baseline have a run that finished
        return None
    design = design.model_copy(update={"looks": [*design.looks, *seen]})
    write_design(folder, design)
    if not any(one.going for one in seen):
        return None
    return _with_seeds(study, study.looks, design)


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
        at=_now(),
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


def _until_decided(study: Study) -> LooksJson | None:
    looks = study.looks
    if looks is None:
        return None
    return LooksJson(seeds=list(looks.seeds), gain=looks.gain, baseline_times=looks.baseline_times)


def _worded(looks: LooksJson | None) -> str:
    if looks is None:
        return FIXED
    return f"{{looks: {looks.seeds}, gain: {looks.gain:g}, baseline_times: {looks.baseline_times}}}"


def _rows_before(there: DesignJson | None, before: StudyJson | None) -> Mapping[str, DesignRowJson]:
    if there is not None:
        return there.rows
    if before is None:
        return {}
    return {row.name: DesignRowJson(at="", runs=row.runs) for row in before.rows}


def _set_up_before(
    there: DesignJson | None, before: StudyJson | None
) -> tuple[Mapping[str, StatedJson], Mapping[str, StatedJson]]:
    """Return what rows were compared with, and whether by seeds; older files have the last."""
    last = there or before
    if last is None or last.baseline is None:
        return {}, {}
    first = StatedJson(at=there.at if there else "")
    baselines = there.baselines if there else {}
    pairings = there.pairings if there else {}
    return baselines or {last.baseline: first}, pairings or {pairing(last.paired): first}


def _claims_before(before: StudyJson | None) -> Mapping[str, StatedJson]:
    return {claim: StatedJson(at="") for claim in before.claims} if before else {}


def _stated(
    texts: Iterable[str], there: Mapping[str, StatedJson], now: str, late: int
) -> dict[str, StatedJson]:
    return {text: there.get(text) or StatedJson(at=now, after_runs=late) for text in texts}


def _dropped(row: DesignRowJson, now: str) -> DesignRowJson:
    return row if row.dropped else row.model_copy(update={"dropped": now})


def _looks_elsewhere(
    runs: Mapping[str, Mapping[str, str]], study: Study, folder: Path
) -> list[LookJson]:
    """Return the looks at fewer seeds of these runs, from another folder of the same study.

    `blocklab study FILE --seeds 5` has a folder of its own, and the runs of `--seeds 3`.
    """
    found: dict[int, LookJson] = {}
    if study.looks is not None:
        return []
    for other in _designs_elsewhere(runs, study, folder):
        for one in other.looks:
            if one.planned < len(study.seeds):
                found.setdefault(one.planned, one)
    return [found[planned].model_copy(update={"going": []}) for planned in sorted(found)]


def _other_looks(
    runs: Mapping[str, Mapping[str, str]], study: Study, folder: Path, looks: Iterable[LookJson]
) -> list[LookJson]:
    """Return the looks at these rows in other folders, at other seeds than a look here is at.

    Also where they share no run, as those of `--seeds 5,6,7` and of `--seeds 3` do not.
    """
    own = [(one.at, one.seeds) for one in looks]
    here = {} if study.looks else {row: sorted(study.seeds) for row in runs}
    found: list[LookJson] = []
    for other in _designs_elsewhere(runs, study, folder, alike=True):
        for one in other.looks:
            same = all(here.get(row, seeds) == seeds for row, seeds in one.seeds.items())
            if one.rows and (one.at, one.seeds) not in own and not (here and same):
                found.append(one)
                own.append((one.at, one.seeds))
    return sorted(found, key=lambda one: one.at)


def _claims_elsewhere(
    runs: Mapping[str, Mapping[str, str]], study: Study, folder: Path
) -> Mapping[str, StatedJson]:
    """Return the claims that another folder has of these runs, each as it was first stated."""
    found: dict[str, StatedJson] = {}
    for other in _designs_elsewhere(runs, study, folder):
        for claim, one in {**other.left_out, **other.claims}.items():
            if claim not in found or one.after_runs < found[claim].after_runs:
                found[claim] = one
    return found


def _rows_of(claim: str, study: Study) -> set[str]:
    return parse_claim(claim, [row.name for row in study.rows], study.baseline).rows


def _designs_elsewhere(
    runs: Mapping[str, Mapping[str, str]], study: Study, folder: Path, *, alike: bool = False
) -> Iterator[DesignJson]:
    """Yield what is stated in other folders of the runs of this study's baseline and other rows.

    Args:
        runs: of the study, by row and seed.
        study: whose folder is given.
        folder: beside which others are looked for.
        alike: whether rows that are the same but for their seeds are enough.
    """
    for file in sorted(folder.parent.glob(f"*/{DESIGN}")):
        if file.parent == folder:
            continue
        try:
            other = read_design(file.parent)
        except RunError:  # it is said where that study is run
            continue
        if other is None or other.baseline != study.baseline:
            continue
        shared = {
            name
            for name, of_row in runs.items()
            if name in other.rows and set(of_row.values()) & set(other.rows[name].runs.values())
        }
        if alike:
            shared |= _rows_alike(study, file.parent)
        if study.baseline in shared and len(shared) > 1:
            yield other


def _rows_alike(study: Study, other: Path) -> set[str]:
    """Return the rows that another folder's study has too, whatever their seeds."""
    try:
        there = read_study_file(other)
    except BlocklabError:  # it is said where that study is run
        return set()
    data, recipe = study.data.definition(), study.recipe.model_dump(mode="json")
    if (there.data, there.recipe) != (data, recipe):
        return set()
    models = {row.name: row.model for row in there.rows}
    return {row.name for row in study.rows if models.get(row.name) == row.model.to_dict()}


def _finished(hashes: Iterable[str], out: Path) -> int:
    return sum(is_finished(out / run_hash) for run_hash in set(hashes))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
