"""What can be done with a finished run: evaluate, predict, diagnose, export."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from blocklab.cli.app import app
from blocklab.cli.options import Json, Plugins, load_plugins, parse_names, parse_size
from blocklab.cli.output import accuracy_cells, print_answers, print_faults, print_json, print_table
from blocklab.errors import InputError, printable

Run = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="A finished run: its folder, or ROW:SEED after its study's folder."
    ),
]
Data = Annotated[str | None, typer.Option(help="Other images than the run's.")]


class Split(StrEnum):
    """Which images."""

    VALIDATION = "validation"
    TEST = "test"


class Format(StrEnum):
    """What `export` writes."""

    SAFETENSORS = "safetensors"
    ONNX = "onnx"
    TORCH_EXPORT = "torch_export"
    HUB = "hub"


@app.command()
def evaluate(
    run: Run,
    data: Data = None,
    split: Annotated[Split, typer.Option(help="Which of its images.")] = Split.TEST,
    plugin: Plugins = [],  # noqa: B006 - read only
    json: Json = False,
) -> None:
    """Measure a run's network again, or on other images of the same classes.

    With its worst classes, commonest mistakes and calibration; --json has every class.
    """
    from blocklab.results.named_run import find_run
    from blocklab.training.finished import FinishedRun

    load_plugins(plugin)
    opened = FinishedRun.open(find_run(run))
    record, answers = opened.evaluate_images(data, split.value)
    if "note" in record:
        print(f"note: {record['note']}", file=sys.stderr)
    if json:
        print_json({"run": str(run), **record, **answers.to_dict()})
        return
    shown = {"run": str(run), "images": f"{record['images']:,}"}
    shown |= accuracy_cells(record, split.value, opened.class_names)
    loss = record[f"{split.value}_loss"]  # None where an image's is beyond numbers
    shown |= {"loss": "not finite" if loss is None else f"{loss:.4f}"}
    print_table(list(shown), [list(shown.values())])
    print_answers(answers)


@app.command()
def predict(
    run: Run,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")
    ],
    top: Annotated[int, typer.Option(help="How many classes to name.")] = 5,
    plugin: Plugins = [],  # noqa: B006 - read only
    json: Json = False,
) -> int:
    """Name the classes that a run's network sees in images.

    An image that cannot be read is named, and the others are predicted.
    """
    from blocklab.results.named_run import find_run
    from blocklab.training.finished import FinishedRun

    load_plugins(plugin)
    faults: list[InputError] = []
    predictions = FinishedRun.open(find_run(run)).predict(images, top, faults.append)
    if json and predictions:
        print_json([prediction.to_dict() for prediction in predictions])
    for prediction in () if json else predictions:
        print_table(
            ("class", "probability (%)"),
            [(name, f"{100 * share:.2f}") for name, share in prediction.classes],
            prediction.image,
        )
    print_faults(faults)
    return 0 if not faults else 1 if predictions else 2


@app.command()
def diagnose(
    run: Run,
    first: Annotated[
        int | None,
        typer.Option(
            help="First test batch to look at, from 1 (default: 30, if there are so many)."
        ),
    ] = None,
    last: Annotated[
        int | None, typer.Option(help="Last test batch to look at (default: 40, or the last).")
    ] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Draw all that `figure` draws of a network.")
    ] = False,
    plugin: Plugins = [],  # noqa: B006 - read only
    json: Json = False,
) -> None:
    """Say where a run's network errs, and count its dead neurons.

    Its worst classes, commonest mistakes and calibration are of what the run kept; dead neurons
    are outputs of each activation that are zero over test batches.
    """
    from blocklab.results.kept_answers import read_answers
    from blocklab.results.named_run import find_run
    from blocklab.training.finished import FinishedRun, diagnose_run

    load_plugins(plugin)
    opened = FinishedRun.open(find_run(run))
    answers = read_answers(opened.folder)
    if not json:
        print_answers(answers)
    diagnosis = diagnose_run(opened, first, last)
    written, missing = [], []
    if pictures:
        from blocklab.report.named_figures import draw_all

        drawn, missing = draw_all(run, opened, diagnosis)
        written = [str(path) for path in drawn.write()]
    if json:
        shown = diagnosis.to_dict() | answers.to_dict()
        print_json(shown | ({"pictures": written, "not_drawn": missing} if pictures else {}))
        return
    print_table(diagnosis.headings, diagnosis.cells(), diagnosis.title)
    for line in (*written, *missing):
        print(printable(line))


@app.command()
def export(
    run: Run,
    format: Annotated[Format, typer.Option(help="What to write.")],
    to: Annotated[
        Path | None, typer.Option(help="Where to (default: in the run's folder).")
    ] = None,
    deploy: Annotated[
        bool, typer.Option("--deploy", help="Merge kernels and fold BatchNorm first.")
    ] = False,
    input_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Of the images: 32 or 64x96 (default: the run's)."),
    ] = None,
    dynamic: Annotated[
        str | None,
        typer.Option(
            metavar="AXES",
            help="A graph's free axes, of batch,height,width (default: batch; '' for none).",
        ),
    ] = None,
    opset: Annotated[int | None, typer.Option(help="Of ONNX (default: 18).")] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Keep and compute in half precision.")] = (
        False
    ),
    normalized: Annotated[
        bool,
        typer.Option("--normalized", help="A graph takes images from 0 to 1, normalised inside."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what is there, whoever wrote it.")
    ] = False,
    plugin: Plugins = [],  # noqa: B006 - read only
    json: Json = False,
) -> None:
    """Write a run's network for other programs, and check what was written."""
    from blocklab.results.named_run import find_run
    from blocklab.training.finished import FinishedRun, export_run

    load_plugins(plugin)
    exported = export_run(
        FinishedRun.open(find_run(run)),
        format.value,
        to,
        deploy,
        None if input_size is None else parse_size(input_size),
        dynamic=() if dynamic == "" else parse_names(dynamic and [dynamic], "--dynamic"),
        opset=opset,
        fp16=fp16,
        normalized=normalized,
        force=force,
    )
    if json:
        print_json({"run": str(run), **exported.to_dict()})
    else:
        print(exported)
