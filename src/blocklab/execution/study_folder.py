"""A study's folder, beside the folders of its runs: where it is, and writing what was asked.

A folder is one study's, which may grow by rows, seeds and words. Another study of the same name,
which would take its page, is refused.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from blocklab.errors import BlocklabError, InputError
from blocklab.execution.looks import check_design, check_looked_at
from blocklab.execution.tuning import is_choice
from blocklab.files import write_checked_json
from blocklab.measure.cost import Cost
from blocklab.results.design_file import read_design
from blocklab.results.study_file import STUDY, StudyJson, read_study_file
from blocklab.study.rows import differing_paths, flat_definition
from blocklab.study.schema import in_list
from blocklab.study.study import Study
from blocklab.training.run_reader import RunReader

_DIGEST = re.compile(r"@[0-9a-f]{12}(?=\")")  # of a block's file, after the block's name


def study_folder(study: Study, out: Path) -> Path:
    """Return where a study's page and tables are."""
    return out / study.folder_name


def check_folders(studies: Sequence[Study], out: Path) -> None:
    """Check that each study's folder is its own: not there, or what it holds is in the study.

    Raises:
        InputError: if a page of another study would be lost.
    """
    names: set[str] = set()
    for study in studies:
        if study.folder_name.casefold() in names:
            raise InputError(
                f"two studies are called '{study.folder_name}' and would share a page; rename one"
            )
        names.add(study.folder_name.casefold())
        folder = study_folder(study, out)
        there = study_there(folder)
        if there is not None and there.file is not None and there.file == study.file:
            check_design(study, folder)  # which says more of one file's study
        if there is not None and (difference := _difference(there, study, out)):
            raise InputError(
                f"{folder} is another study's: {difference}; rename the file of one of them, give "
                f"another --out, or remove {folder / STUDY} to replace its page (runs are kept)"
            )
        check_design(study, folder)
        check_looked_at(study, folder)


def check_as_it_ran(study: Study, out: Path) -> None:
    """Check that a study's folder holds what the study says, before the two are kept together.

    Raises:
        InputError: if it has not run, or ran otherwise.
        RunError: if its study.json is damaged.
    """
    folder = study_folder(study, out)
    there = read_study_file(folder)
    if said := _difference(there, study, out):
        raise InputError(
            f"{folder} is not of this study as its file is now: {said}; put the file back as it "
            "ran, or run it as another study, of another name or with another --out"
        )
    check_design(study, folder)
    design = read_design(folder)
    if said := _stated_otherwise(there, study, bool(design and design.until_decided)):
        raise InputError(
            f"{folder} is not of this study as its file is now: {said}; run `blocklab study` with "
            "it again, with the same options (what has finished is kept)"
        )


def _stated_otherwise(there: StudyJson, study: Study, decided: bool) -> str | None:
    """Return what a study says that a run of it would write anew, and its study.json has not.

    `decided` is whether its seeds were until decided.
    """
    ran, now = ({row.name for row in one.rows} for one in (there, study))
    if ran != now:
        return f"its rows are others: {', '.join(map(in_list, sorted(ran ^ now)))}"
    seeds = ", ".join(map(str, there.seeds))
    if (study.looks is not None) != decided:
        return f"its seeds are {seeds}, and {'' if decided else 'not '}until decided"
    if study.looks is None and set(there.seeds) != set(study.seeds):
        return f"its seeds are {seeds}"
    if (study.tune is not None) != any(row.tuned for row in there.rows):
        return f"its learning rates were {'not ' if study.tune else ''}chosen by tune"
    for what in ("title", "description", "baseline", "paired", "margin"):
        if getattr(there, what) != getattr(study, what):
            return f"its {what} is '{getattr(there, what)}'"
    if set(there.claims) != set(study.claims):
        return "its claims are others"
    notes = there.notes
    if study.tune is not None:  # what was chosen is said in notes, too
        notes = [note for note in notes if not is_choice(note)]
    return "its notes are others" if notes != _notes(study) else None


def _notes(study: Study) -> list[str]:
    starts = [f"{row.name} starts from {row.pretrained}" for row in study.rows if row.pretrained]
    return [*study.notes, *starts]


def _difference(there: StudyJson, study: Study, out: Path) -> str | None:
    """Return what of a study that is there is not in this one, in words.

    One file's study may grow and be worded otherwise; another file's study is the same or another.
    """
    if (there.file is None or there.file != study.file) and (
        there.title != study.title or there.baseline != study.baseline
    ):
        return f"its title is '{there.title}', its baseline '{there.baseline}'"
    if None not in (there.file, study.file) and there.file != study.file:
        have = {row.name for row in there.rows}
        for row in study.rows:
            if row.name not in have:
                return f"it has no row '{row.name}'"
        # With looks, more seeds than have been begun is what the study itself may come to.
        if not study.looks and (more := set(study.seeds) - set(there.seeds)):
            return f"it has no seed {min(more)}"
    rows = {row.name: row for row in study.rows}
    for row in there.rows:
        if row.name not in rows:
            # Dropped from its file, it stays on record; a file without the baseline is another's.
            if there.file is not None and there.file == study.file and there.baseline in rows:
                continue
            return f"it has a row '{row.name}', which this one has not"
        if missing := set(map(int, row.runs)) - set(study.seeds):
            return f"it has seed {min(missing)}, which this one has not"
        seed, run_hash = next(iter(row.runs.items()))
        now = rows[row.name].definition(int(seed))
        if run_hash == now.hash:
            continue
        new, whole = now.to_dict(), True
        if (run := RunReader(out / run_hash).run) is not None:
            old = run["definition"]
        else:  # nothing but what all rows have in common is known
            whole = False
            old = {"model": row.model, "data": there.data, "recipe": there.recipe}
            new |= {"data": study.data.definition(), "recipe": study.recipe.model_dump(mode="json")}
        before, after, raw = _flat(old), _flat(new), flat_definition(new)
        for path in differing_paths(before, after):
            # A field that does nothing is left out of a definition; a tuned rate is no choice.
            tuned = path == "recipe.lr" and (row.tuned or study.tune)
            edited = path not in before and any(_DIGEST.search(text) for text in raw.values())
            if not tuned and not edited and (whole or path in before):
                was, value = before.get(path, "not set"), after.get(path, "not set")
                return f"its row '{row.name}' has {path} {was}, and this one's {value}"
    return None


def _flat(definition: Mapping[str, Any]) -> dict[str, str]:
    """Return a definition by dotted paths, the same while the file of a user's block changes."""
    return {path: _DIGEST.sub("", text) for path, text in flat_definition(definition).items()}


def study_there(folder: Path) -> StudyJson | None:
    """Return the study.json of a folder; None where there is none that is whole."""
    try:
        return read_study_file(folder)
    except BlocklabError:  # there is none yet, or it is damaged, and is written anew
        return None


def write_study_folder(
    study: Study,
    out: Path,
    costs: Mapping[str, tuple[Cost, int]],
    command: str | None,
    threads: int | None = None,
) -> Path:
    """Write study.json, beside the design.json that is there by now.

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
                "runs": {str(seed): row.definition(seed).hash for seed in study.seeds_of(row.name)},
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
            "file": study.file,
            "title": study.title,
            "description": study.description,
            "data": study.data.definition(),
            "recipe": study.recipe.model_dump(mode="json"),
            "recipe_name": study.recipe_name,
            "seeds": sorted({seed for row in study.rows for seed in study.seeds_of(row.name)}),
            "varies": list(study.varies),
            "baseline": study.baseline,
            "paired": study.paired,
            "margin": study.margin,
            "notes": _notes(study),
            "claims": list(study.claims),
            "claim_notes": dict(study.claim_notes),
            "command": command,
            "threads": threads,
            "designed": True,
            "rows": rows,
        },
    )
    return folder


def threads_begun_with(folder: Path) -> int | None:
    """Return the threads that a study's runs began with; None if that is not known."""
    there = study_there(folder)
    return there.threads if there is not None else None
