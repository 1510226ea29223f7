"""A page for each row of a study: what it knows and mistakes, its curves, its network, its use."""

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

from blocklab.errors import InputError, RunError
from blocklab.files import remove_file, write_atomically
from blocklab.measure.amounts import counted
from blocklab.measure.answers import Answers
from blocklab.measure.description import Part, describe
from blocklab.models.spec import ModelSpec
from blocklab.report.answer_tables import calibration_line
from blocklab.report.cell_text import (
    ABSENT,
    TIMES,
    difference,
    interval,
    mean_and_sd,
    square,
)
from blocklab.report.curves import CURVES
from blocklab.report.kept_pictures import kept_pictures
from blocklab.report.metric import metric_of
from blocklab.report.rendering import render
from blocklab.report.seed_curves import curves_of_seeds
from blocklab.report.what_ran import flat, last_names, run_cells, run_headings
from blocklab.results.confusion import Confusion, confusion_of
from blocklab.results.kept_answers import read_answers
from blocklab.results.row_result import RowResult
from blocklab.results.study_results import StudyResults
from blocklab.study.folder_name import safe_name
from blocklab.training.run_files import WEIGHTS

ROWS = "rows"  # the folder of these pages, beside the study's own
PLUGIN = "--plugin"
ANEW = "runs_anew"  # a folder for runs that are trained again
OWN_BLOCK = re.compile(r"@[0-9a-f]{12}\"")  # a name with the digest of the file that it is from
FEW_CLASSES = 15  # of more, the worst known are shown and the others folded


@dataclass(frozen=True)
class RowPage:
    """A row and the name of its page's file."""

    row: RowResult
    file: str


def row_pages(results: StudyResults) -> tuple[RowPage, ...]:
    """Return each row with the name of its page's file; no two share one, in any letters' case."""
    taken: set[str] = set()
    found = []
    for number, row in enumerate(results.rows):
        name = safe_name(f"{row.name}.html")
        if name.casefold() in taken or not name.endswith(".html"):
            name = safe_name(f"{number}-{row.name[:40]}.html")
            name = name if name.endswith(".html") else f"{number}.html"
        taken.add(name.casefold())
        found.append(RowPage(row, name))
    return tuple(found)


def write_row_pages(results: StudyResults, folder: Path) -> dict[str, str]:
    """Write rows/NAME.html beside a study's page; return the links to them, by row.

    Pages of rows that are no more are removed. Where rows/ is a link, a folder takes its place.

    Raises:
        RunError: if the folder cannot be written.
    """
    place = folder / ROWS
    if place.is_symlink():
        remove_file(place)
    pages = row_pages(results)
    for page in pages:
        write_atomically(place / page.file, row_html(results, page.row, folder))
    kept = {page.file for page in pages}
    for path in place.glob("*.html") if place.is_dir() else ():
        if path.name not in kept:
            remove_file(path)
    return {page.row.name: quote(f"{ROWS}/{page.file}") for page in pages}


def row_html(results: StudyResults, row: RowResult, folder: Path) -> str:
    """Return a row's page; `folder` is its study's, whose last two names stand in commands."""
    plugins = plugins_of(results.command, row.model)
    answers = _answers(row)
    confusion = confusion_of(list(answers.values()))
    shown = [c for c in CURVES if "top5" not in c.figure]
    parts = _parts(row)
    return render(
        "row.html.j2",
        results=results,
        row=row,
        said=_said(results, row),
        facts=_facts(results, row),
        curves=[one for c in shown if (one := curves_of_seeds(row.runs, c)) is not None],
        confusion=confusion,
        classes=_classes(confusion),
        few=FEW_CLASSES,
        mistakes=[
            (one.truth, one.named, f"{one.images:.1f}", f"{one.percent:.1f}")
            for one in (confusion.mistakes if confusion else ())
        ],
        calibration=[f"seed {seed}: {calibration_line(one)}" for seed, one in answers.items()],
        parts=[_part_cells(part) for part in parts],
        parts_at=square(_size(row)),
        zeros=_zeros(row),
        pictures=kept_pictures(row, folder),
        model=flat(row.model),
        run_headings=run_headings(results)[1:],
        runs=[run_cells(results, row, run)[1:] for run in row.runs],
        commands=_commands(row, last_names(folder), plugins),
        weightless=_was_kept_without_weights(row),
        # In a folder of its own: among the records its runs would count as finished.
        train_again=f"{results.command} --out {ANEW}" if results.command else None,
    )


def _said(results: StudyResults, row: RowResult) -> str:
    metric = metric_of(results)
    if row.score is None:
        return "No run of this row has finished yet."
    seeds = f"{row.score.n} seed{'' if row.score.n == 1 else 's'}"
    unit = f" {metric.percent}" if metric.percent else ""
    mean = mean_and_sd(row.score, results.metric)
    said = f"{mean}{unit} {metric.of('test').lower()}{metric.name} over {seeds}"
    comparison = results.comparisons.get(row.name)
    if comparison is None:
        return f"{said}{': the baseline' if row.name == results.baseline else ''}."
    gap = f"{difference(row, results.baseline)} {metric.points} against {results.baseline}"
    if row.difference is None:
        return f"{said}; {comparison.word}."
    return f"{said}; {gap}: {comparison.word}."


def _facts(results: StudyResults, row: RowResult) -> list[tuple[str, str]]:
    comparison = results.comparisons.get(row.name)
    facts = [
        ("95 % interval over seeds", interval(row.score, results.metric)),
        ("95 % interval over other test images", interval(row.over_images)),
        ("why this verdict", comparison.reason if comparison and comparison.reason else ABSENT),
        ("undertrained", row.undertrained or ABSENT),
        (
            "MACs",
            _macs(row),
        ),
        ("parameters", f"{counted(row.params / 1e6)} M" if row.params else ABSENT),
        ("notes", "; ".join(row.notes) or ABSENT),
        ("troubles", "; ".join(row.troubles) or ABSENT),
    ]
    return [(name, text) for name, text in facts if text != ABSENT]


def _macs(row: RowResult) -> str:
    if not row.macs:
        return ABSENT
    at = f" at {square(row.input_size)}" if row.input_size else ""
    return f"{counted(row.macs / 1e9)} G{at}"


def _answers(row: RowResult) -> dict[int, Answers]:
    """Read what each seed said of the test images; none of it, if one cannot be read any more."""
    kept = [run for run in row.finished if run.per_image is not None]
    try:
        return {run.seed: read_answers(run.folder) for run in kept}
    except (InputError, RunError):  # its files changed since they were first read
        return {}


def _classes(confusion: Confusion | None) -> list[list[object]]:
    """Return the cells of classes, the worst known first, each with its share for a drawing."""
    if confusion is None:
        return []
    return [
        [
            one.name,
            f"{one.top1:.1f}",
            f"{one.lowest:.1f} to {one.highest:.1f}" if confusion.runs > 1 else ABSENT,
            str(one.images),
            round(one.top1, 1),
        ]
        for one in confusion.classes
    ]


@lru_cache(maxsize=256)
def _described(model: str, classes: int, size: int) -> tuple[Part, ...]:
    network = ModelSpec.from_dict(json.loads(model)).build_meta(classes, input_size=size)
    return describe(network, size).parts


def _parts(row: RowResult) -> Sequence[Part]:
    """Return the network's parts at the size that it trained on; none where it cannot be built.

    A block that a plug-in registers is not there when a page is made from folders alone.
    """
    classes = next((len(run.run.get("class_names", ())) for run in row.runs), 0)
    if not classes:
        return ()
    try:
        return _described(json.dumps(row.model, sort_keys=True), classes, _size(row))
    except (InputError, ValueError, TypeError, KeyError):
        return ()


def _size(row: RowResult) -> int:
    size = next((run.run.get("image_size") for run in row.runs), None)
    return size or row.input_size or 0


def _part_cells(part: Part) -> tuple[str, ...]:
    shape = f" {TIMES} ".join(map(str, part.shape))
    return part.name, shape, counted(part.macs / 1e9), counted(part.params / 1e6)


def _zeros(row: RowResult) -> dict[str, object] | None:
    """Return what the first diagnosed run's activations gave; None where none was diagnosed."""
    for run in row.finished:
        layers = (run.diagnosis or {}).get("layers")
        if not isinstance(layers, list):
            continue
        try:
            cells = [
                (
                    *(str(one["layer"]), str(one["kind"]), f"{one['zero_percent']:.2f}"),
                    *(f"{one['channels']:,}", f"{one['channels_dead']:,}"),
                )
                for one in layers
            ]
        except (KeyError, TypeError, ValueError):
            continue
        return {"seed": run.seed, "cells": cells}
    return None


def plugins_of(command: str | None, model: object) -> list[str]:
    """Return the plug-in files that a study's command names, if the model has a block of one."""
    if command is None or not OWN_BLOCK.search(json.dumps(model)):
        return []
    try:
        words = shlex.split(command)
    except ValueError:  # of a study.json that was edited
        return []
    after = [word for before, word in pairwise(words) if before == PLUGIN]
    return after + [word.split("=", 1)[1] for word in words if word.startswith(f"{PLUGIN}=")]


def _was_kept_without_weights(row: RowResult) -> bool:
    """Whether it is of records, none of whose runs has its weights."""
    left_out = any(WEIGHTS in run.left_out for run in row.finished)
    return left_out and not any(run.has_weights for run in row.finished)


def _commands(row: RowResult, study: str, plugins: Sequence[str]) -> list[tuple[str, str]]:
    """Return what can be done with the first run whose weights are kept, each as a command."""
    run = next((run for run in row.finished if run.has_weights), None)
    if run is None:
        return []
    # In the study's own folder a row and a seed are enough.
    name = f"{row.name}:{run.seed}" if study == "." else f"{study}/{row.name}:{run.seed}"
    quoted = shlex.quote(name)
    given = "".join(f" {PLUGIN} {shlex.quote(file)}" for file in plugins)
    loaded = "".join(f"blocklab.load_plugin({file!r}); " for file in plugins)
    return [
        ("Name what is on an image", f"blocklab predict {quoted} IMAGE.jpg{given}"),
        ("Measure it again, or on other images", f"blocklab evaluate {quoted}{given}"),
        ("Look for dead neurons", f"blocklab diagnose {quoted}{given}"),
        ("See what pixels it can use", f"blocklab figure receptive_field {quoted}{given}"),
        ("Take it elsewhere", f"blocklab export {quoted} --format safetensors{given}"),
        ("In Python", f"{loaded}model = blocklab.load_run({name!r}).model"),
    ]
