"""Reading a study's folder and the run folders beside it, whatever they hold, into its results.

A run whose files are damaged, or another run's, counts for nothing and is named. What study.json
says of runs is compared with what they say themselves.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blocklab.errors import RunError
from blocklab.results.design_file import DESIGN, DesignJson, pairing, read_design
from blocklab.results.ended_run import EndedRun, read_ended_run
from blocklab.results.row_result import RowResult
from blocklab.results.study_file import RowJson, StudyJson, read_study_file, runs_of
from blocklab.results.study_results import StudyResults
from blocklab.study.reported import CostAt, Reported
from blocklab.study.rows import covers, differing_paths, flat_definition
from blocklab.study.schema import in_list
from blocklab.training.run_reader import RunReader


def read_study_folder(folder: Path, failures: Mapping[str, str] | None = None) -> StudyResults:
    """Read a study's results from its folder and the run folders beside it.

    `failures` are why runs, by hash, have just ended without a result; why others did is read from
    their folders.

    Raises:
        InputError: if the folder is not a study's.
        RunError: if its study.json or design.json is damaged. A run's damaged files do not raise.
    """
    study = read_study_file(folder)
    rows = tuple(_read_row(row, runs_of(folder), failures or {}) for row in study.rows)
    notes = [f"{row.name}: {row.note}" for row in study.rows if row.note]
    design = read_design(folder)
    if study.designed and design is None:
        notes.append(
            f"{DESIGN} is gone: whether rows, claims and seeds were stated before runs had "
            "finished, and how often was looked, is no longer known"
        )
    if design is not None and (why := _not_of(design, study)):
        raise RunError(
            f"{folder / DESIGN} is another study's ({why}); take it from a backup, or remove it: "
            "the page will say that it is gone"
        )
    return StudyResults(
        title=study.title,
        description=study.description,
        data=study.data,
        recipe=study.recipe,
        recipe_name=study.recipe_name,
        seeds=tuple(study.seeds),
        varies=tuple(study.varies),
        baseline=study.baseline,
        rows=rows,
        notes=(*study.notes, *notes, *_contradictions(study, rows)),
        command=study.command,
        claims=tuple(study.claims),
        claim_notes=study.claim_notes,
        paired=study.paired,
        margin=study.margin,
        design=design,
        dropped_rows=_dropped_rows(design, study, runs_of(folder)),
    )


def _dropped_rows(design: DesignJson | None, study: StudyJson, out: Path) -> tuple[RowResult, ...]:
    """Read what is left of the rows that were taken out of a study's file after they had run."""
    there = {row.name for row in study.rows}
    found = []
    for name, row in design.rows.items() if design else ():
        if not row.dropped or name in there:
            continue
        runs = {seed: read_ended_run(RunReader(out / one)) for seed, one in row.runs.items()}
        whole = tuple(run for seed, run in runs.items() if run and run.seed == int(seed))
        seeds = tuple(map(int, row.runs))
        found.append(RowResult(name, {}, None, None, None, runs=whole, planned_seeds=seeds))
    return tuple(found)


def _not_of(design: DesignJson, study: StudyJson) -> str:
    """Say what shows that a design.json is not of the study.json beside it; nothing where it is."""
    if design.baseline != study.baseline:
        return f"its baseline is {design.baseline}, and the study's {study.baseline}"
    if design.paired != study.paired:
        return f"it is {pairing(design.paired)}, and the study {pairing(study.paired)}"
    knows = design.margin is not None or design.baselines  # those of old were written without
    if knows and design.margin != study.margin:
        return f"its margin is {design.margin}, and the study's {study.margin}"
    for row in study.rows:
        if (stated := design.rows.get(row.name)) is None:
            return f"it has no row '{row.name}'"
        if not row.runs.items() <= stated.runs.items():
            return f"it has other runs of row '{row.name}'"
    if missing := [claim for claim in study.claims if claim not in design.claims]:
        return f"it has no claim '{missing[0]}'"
    return ""


def _read_row(row: RowJson, out: Path, failures: Mapping[str, str]) -> RowResult:
    runs: list[EndedRun] = []
    failed: list[str] = []
    for seed, run_hash in row.runs.items():
        reader = RunReader(out / run_hash)
        run = read_ended_run(reader)
        if run is None:
            mend = f"{reader.fault}; run the study again to mend it" if reader.fault else None
            if why := failures.get(run_hash) or mend or reader.failure:
                failed.append(f"seed {seed}: {why}")
        elif (run.seed, run.run["definition"]["model"]) != (int(seed), row.model):
            failed.append(
                f"seed {seed}: the run {run_hash} has another model or seed than study.json says; "
                "run the study again"
            )
        else:
            runs.append(run)
    return RowResult(
        name=row.name,
        model=row.model,
        macs=row.cost.macs,
        params=row.cost.params,
        input_size=row.cost.input_size,
        runs=tuple(runs),
        planned_seeds=tuple(map(int, row.runs)),
        failed=tuple(failed),
        reported=_reported(row),
        reported_cost=CostAt(**row.reported_cost.model_dump()) if row.reported_cost else None,
        tuned=row.tuned.model_dump() if row.tuned else None,
    )


def _reported(row: RowJson) -> Reported | None:
    if row.reported is None:
        return None
    fields = row.reported.model_dump()
    return Reported(**{**fields, "errata": tuple(fields["errata"]), "see": tuple(fields["see"])})


def _contradictions(study: StudyJson, rows: Sequence[RowResult]) -> list[str]:
    """Say where study.json and its runs say different things of recipe, data and cost."""
    of_study = flat_definition({"data": study.data, "recipe": study.recipe, "model": {}})
    found: dict[str, dict[str, None]] = {}  # what differs -> the rows in which it does
    for row in rows:
        told: list[dict[str, Any]] = []  # definitions: the runs of a row have one, but for the seed
        for run in row.runs:
            definition = {**run.run["definition"], "seed": 0}
            if definition in told:
                continue
            told.append(definition)
            of_run = flat_definition({**definition, "model": {}})
            for path in differing_paths(of_study, of_run):
                if not any(covers(varied, path) for varied in study.varies):
                    ours, theirs = of_run.get(path, "none"), of_study.get(path, "none")
                    gap = f"trained with {path} {ours}, where study.json says {theirs}"
                    found.setdefault(gap, {})[row.name] = None
            counted = run.run.get("cost") or {}
            for name, value in counted.items():
                if name in ("macs", "params", "input_size") and value != getattr(row, name):
                    gap = f"counted as {value:,} {name}, where study.json says"
                    found.setdefault(f"{gap} {getattr(row, name):,}", {})[row.name] = None
    return [
        f"{'all rows' if len(names) == len(rows) > 1 else ', '.join(map(in_list, names))}: {gap}"
        for gap, names in found.items()
    ]
