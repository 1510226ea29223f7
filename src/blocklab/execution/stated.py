"""What a study states, with when and after how many of its runs: design.json."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from blocklab.execution.elsewhere import claims_elsewhere, looks_elsewhere, other_looks
from blocklab.results.design_file import (
    DesignJson,
    DesignRowJson,
    LooksJson,
    StatedJson,
    held,
    pairing,
    read_design,
    write_design,
)
from blocklab.results.study_file import StudyJson
from blocklab.statistics.summary import ALPHA
from blocklab.study.claims import parse_claim
from blocklab.study.study import Study
from blocklab.training.run_reader import is_finished


def state_design(study: Study, folder: Path, before: StudyJson | None) -> None:
    """Write down what a study states now, with how many of its runs had finished by then.

    Args:
        study: what is about to run.
        folder: the study's.
        before: its study.json as it was, if it had one.

    Raises:
        RunError: if design.json is damaged, or cannot be written.
    """
    with held(folder):
        write_design(folder, _stated_design(study, folder, before))


def _stated_design(study: Study, folder: Path, before: StudyJson | None) -> DesignJson:
    there, now = read_design(folder), moment()
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
    # What was dropped before, or looked at, stays: its runs may be gone.
    seen = {row for look in there.looks for row in look.looked_at} if there else set[str]()
    seen |= {name for name, row in old.items() if row.dropped}
    rows = {
        name: row for name, row in rows.items() if name in seen or _finished(row.runs.values(), out)
    }
    # Of a row whose runs are others now (a block's file has changed) nothing was stated before.
    anew = {
        name
        for name, of_row in runs.items()
        if study.tune is None and name in old and old[name].ran_otherwise(of_row)
    }
    for name, of_row in runs.items():
        had = None if name in anew else old.get(name)
        had = had or DesignRowJson(at=now, after_runs=late, runs={})
        rows[name] = had.model_copy(update={"runs": had.runs | of_row, "dropped": None})
    rows = {name: rows[name] for name in dict.fromkeys([*old, *rows]) if name in rows}
    said = there.claims if there else _claims_before(before)
    said = {
        claim: stated
        for claim, stated in said.items()
        if claim not in study.claims or not _rows_of(claim, study) & anew
    }
    # What the file claims of rows that come later was stated with it.
    of_file = {**(there.left_out if there else {}), **said}
    new: Mapping[str, StatedJson] = {}
    if not old:  # the first time in this folder, but the runs may have been read in another
        of_file = claims_elsewhere(runs, study, folder)
        finished = {row for row, of_row in runs.items() if _finished(of_row.values(), out)}
        known = [claim for claim in study.claims if _rows_of(claim, study) <= finished]
        new = _stated(known, of_file, now, done)
    claims = {**said, **_stated(study.claims, {**of_file, **new}, now, late)}
    before_margins = there.margins if there else {}
    named = [] if study.margin is None else [f"{study.margin:g}"]
    margins = {**before_margins, **_stated(named, before_margins, now, late)}
    baselines, pairings = _set_up_before(there, before)
    over = there.claims_over if there else {}
    looks = there.looks if there else looks_elsewhere(runs, study, folder)
    return DesignJson(
        at=there.at if there else now,
        finished_before=there.finished_before if there else done,
        baseline=study.baseline,
        paired=study.paired,
        alpha=ALPHA,
        until_decided=LooksJson.of(study.looks),
        rows=rows,
        claims=claims,
        left_out=_stated(study.claims_left_out, of_file, now, late),
        claims_over={**over, **_stated(study.claims_over, over, now, late)},
        margins=margins,
        baselines={**baselines, **_stated([study.baseline or ""], baselines, now, late)},
        pairings={**pairings, **_stated([pairing(study.paired)], pairings, now, late)},
        margin=study.margin,
        looks=looks,
        looks_elsewhere=other_looks(
            runs, study, folder, looks, there.looks_elsewhere if there else ()
        ),
    )


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


def _rows_before(there: DesignJson | None, before: StudyJson | None) -> Mapping[str, DesignRowJson]:
    if there is not None:
        return there.rows
    if before is None:
        return {}
    return {row.name: DesignRowJson(at="", runs=row.runs) for row in before.rows}


def _claims_before(before: StudyJson | None) -> Mapping[str, StatedJson]:
    return {claim: StatedJson(at="") for claim in before.claims} if before else {}


def _stated(
    texts: Iterable[str], there: Mapping[str, StatedJson], now: str, late: int
) -> dict[str, StatedJson]:
    return {text: there.get(text) or StatedJson(at=now, after_runs=late) for text in texts}


def _dropped(row: DesignRowJson, now: str) -> DesignRowJson:
    return row if row.dropped else row.model_copy(update={"dropped": now})


def _rows_of(claim: str, study: Study) -> set[str]:
    return parse_claim(claim, [row.name for row in study.rows], study.baseline).rows


def _finished(hashes: Iterable[str], out: Path) -> int:
    return sum(is_finished(out / run_hash) for run_hash in set(hashes))


def moment() -> str:
    """Return this moment, as it is written down."""
    return datetime.now(UTC).isoformat(timespec="seconds")
