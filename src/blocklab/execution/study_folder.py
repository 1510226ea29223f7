"""A study's folder, beside the folders of its runs: what was asked, and reading what came of it.

``OUT/<study>/study.json`` says which runs belong to which row, and what each row costs, so that a
page can be made from the run folders alone, without the data and without building a model.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from blocklab.errors import InputError, RunError
from blocklab.files import read_checked_json, write_checked_json
from blocklab.measure.cost import Cost
from blocklab.results.records import RunRecord, read_run
from blocklab.results.row_result import RowResult
from blocklab.results.study_results import StudyResults
from blocklab.study.reported import CostAt, Reported
from blocklab.study.study import Study
from blocklab.training.run_folder import what_is_damaged

FAILURE_FILE = "failed.json"  # in a run's folder: why it last ended without a result


def study_folder(study: Study, out: Path) -> Path:
    """Return where a study's page and tables are."""
    return out / study.name


def write_study_folder(
    study: Study,
    out: Path,
    costs: Mapping[str, tuple[Cost, int]],
    command: str | None,
    threads: int | None = None,
) -> Path:
    """Write study.json.

    `costs` maps a row to its cost and the input size it is counted at; `threads` are those that
    runs begin with, which a rerun keeps.
    """
    folder = study_folder(study, out)
    rows = []
    for row in study.rows:
        counted, input_size = costs[row.name]
        rows.append(
            {
                "name": row.name,
                "model": row.model.to_dict(),
                "runs": {str(seed): row.definition(seed).hash for seed in study.seeds},
                "cost": {"macs": counted.macs, "params": counted.params, "input_size": input_size},
                "reported": asdict(row.reported) if row.reported else None,
                "reported_cost": asdict(row.reported_cost) if row.reported_cost else None,
                "tuned": row.tuned,
                "note": row.note,
            }
        )
    write_checked_json(
        folder / "study.json",
        {
            "title": study.title,
            "description": study.description,
            "data": study.data.definition(),
            "recipe": study.recipe.model_dump(mode="json"),
            "recipe_name": study.recipe_name,
            "seeds": list(study.seeds),
            "varies": list(study.varies),
            "baseline": study.baseline,
            "notes": list(study.notes),
            "claims": list(study.claims),
            "command": command,
            "threads": threads,
            "rows": rows,
        },
    )
    return folder


def read_study_folder(folder: Path) -> StudyResults:
    """Read a study's results from its folder and the run folders beside it.

    Raises:
        InputError: if the folder is not a study's.
        RunError: if a file in it is damaged.
    """
    path = folder / "study.json"
    if not path.exists():
        near = sorted(file.parent.name for file in folder.glob("*/study.json"))
        remedy = f"studies in it: {', '.join(near)}" if near else "run `blocklab study` first"
        raise InputError(f"{folder} is not a study's folder; {remedy}")
    if (saved := read_checked_json(path)) is None:
        raise RunError(f"{path} is damaged; run the study again: finished runs are kept")
    try:
        rows = tuple(_read_row(row, folder.parent) for row in saved["rows"])
        notes = [f"{row['name']}: {row['note']}" for row in saved["rows"] if row["note"]]
        return StudyResults(
            title=saved["title"],
            description=saved["description"],
            data=saved["data"],
            recipe=saved["recipe"],
            recipe_name=saved["recipe_name"],
            seeds=tuple(saved["seeds"]),
            varies=tuple(saved["varies"]),
            baseline=saved["baseline"],
            rows=rows,
            notes=(*saved["notes"], *notes),
            command=saved["command"],
            claims=tuple(saved.get("claims", ())),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise RunError(
            f"{path} is damaged ({type(error).__name__}: {error}); run the study again: finished "
            "runs are kept"
        ) from error


def threads_begun_with(folder: Path) -> int | None:
    """Return the threads that the runs of a study's folder began with; None if it has none."""
    saved = read_checked_json(folder / "study.json")
    return None if saved is None else saved.get("threads")


def note_failure(folder: Path, message: str) -> None:
    """Write down why a run ended without a result; nothing, where its folder has vanished."""
    if folder.is_dir():
        write_checked_json(folder / FAILURE_FILE, {"message": message})


def forget_failure(folder: Path) -> None:
    """Remove the note of an earlier failure."""
    with suppress(OSError):
        (folder / FAILURE_FILE).unlink(missing_ok=True)


def _read_row(saved: Mapping[str, Any], out: Path) -> RowResult:
    runs: list[RunRecord] = []
    failed: list[str] = []
    for seed, run_hash in saved["runs"].items():
        folder = out / run_hash
        if damaged := what_is_damaged(folder):  # never taken for a result
            failed.append(f"seed {seed}: {damaged} is damaged; run the study again to mend it")
            continue
        if (run := read_run(folder)) is not None:
            runs.append(run)
        elif (failure := read_checked_json(folder / FAILURE_FILE)) is not None:
            failed.append(f"seed {seed}: {failure['message']}")
    return RowResult(
        name=saved["name"],
        model=saved["model"],
        **saved["cost"],
        runs=tuple(runs),
        planned_seeds=tuple(int(seed) for seed in saved["runs"]),
        failed=tuple(failed),
        reported=_read_reported(saved["reported"]) if saved["reported"] else None,
        reported_cost=CostAt(**saved["reported_cost"]) if saved.get("reported_cost") else None,
        tuned=saved.get("tuned"),
    )


def _read_reported(saved: Mapping[str, Any]) -> Reported:
    return Reported(**{**saved, "errata": tuple(saved.get("errata", ()))})
