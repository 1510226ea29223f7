"""What can be done with a finished run: evaluate, predict, diagnose, export."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from blocklab.cli.app import app
from blocklab.cli.options import Json, Plugins, load_plugins
from blocklab.cli.output import print_json, print_table

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
    """Measure a run's network again, or on other images of the same classes."""
    from blocklab.report.cell_text import accuracy_percent
    from blocklab.results.named_run import find_run
    from blocklab.training.finished import FinishedRun

    load_plugins(plugin)
    record = FinishedRun.open(find_run(run)).evaluate(data, split.value)
    if json:
        print_json({"run": str(run), **record})
        return
    print_table(
        ("run", "images", "top-1 (%)", "top-5 (%)", "loss"),
        [
            (
                str(run),
                f"{record['images']:,}",
                accuracy_percent(record[f"{split.value}_top1_percent"]),
                accuracy_percent(record[f"{split.value}_top5_percent"]),
                f"{record[f'{split.value}_loss']:.4f}",
            )
        ],
    )


@app.command()
def predict(
    run: Run,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    top: Annotated[int, typer.Option(help="How many classes to name.")] = 5,
    plugin: Plugins = [],  # noqa: B006 - read only
    json: Json = False,
) -> None:
    """Name the classes that a run's network sees in images."""
    from blocklab.results.named_run import find_run
    from blocklab.training.finished import FinishedRun

    load_plugins(plugin)
    predictions = FinishedRun.open(find_run(run)).predict(images, top)
    if json:
        print_json([prediction.to_dict() for prediction in predictions])
        return
    for prediction in predictions:
        print_table(
            ("class", "probability (%)"),
            [(name, f"{100 * share:.2f}") for name, share in prediction.classes],
            str(prediction.image),
        )


@app.command()
def diagnose(
    run: Run,
    first: Annotated[int, typer.Option(help="First test batch to look at, from 1.")] = 30,
    last: Annotated[int, typer.Option(help="Last test batch to look at.")] = 40,
    plugin: Plugins = [],  # noqa: B006 - read only
    json: Json = False,
) -> None:
    """Count dead neurons: outputs of each activation that are zero over test batches."""
    from blocklab.results.named_run import find_run
    from blocklab.training.finished import FinishedRun, diagnose_run

    load_plugins(plugin)
    diagnosis = diagnose_run(FinishedRun.open(find_run(run)), first, last)
    if json:
        print_json(diagnosis.to_dict())
        return
    print_table(diagnosis.headings, diagnosis.cells(), diagnosis.title)


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
    plugin: Plugins = [],  # noqa: B006 - read only
) -> None:
    """Write a run's network for other programs, and check what was written."""
    from blocklab.results.named_run import find_run
    from blocklab.training.finished import FinishedRun, export_run

    load_plugins(plugin)
    print(export_run(FinishedRun.open(find_run(run)), format.value, to, deploy))
