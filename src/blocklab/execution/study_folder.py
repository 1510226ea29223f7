"""A study's folder, beside the folders of its runs: where it is, and writing what was asked."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from blocklab.errors import BlocklabError
from blocklab.files import write_checked_json
from blocklab.measure.cost import Cost
from blocklab.results.study_file import STUDY, read_study_file
from blocklab.study.study import Study


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
        folder / STUDY,
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
            "claim_notes": dict(study.claim_notes),
            "command": command,
            "threads": threads,
            "rows": rows,
        },
    )
    return folder


def threads_begun_with(folder: Path) -> int | None:
    """Return the threads that a study's runs began with; None if that is not known."""
    try:
        return read_study_file(folder).threads
    except BlocklabError:  # there is none yet, or it is damaged, and is written anew
        return None
