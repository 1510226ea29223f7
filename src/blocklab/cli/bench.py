"""``blocklab bench``: how fast and how large a model is on this machine."""

from typing import Annotated

import typer

from blocklab.cli.app import app
from blocklab.cli.options import InputSize, Json, Plugins, complete_models, load_plugins, parse_size
from blocklab.cli.output import print_json, print_table


@app.command()
def bench(
    model: Annotated[str, typer.Argument(help="A named model.", autocompletion=complete_models)],
    input_size: InputSize = "32",
    batch_size: Annotated[int, typer.Option(help="Images at once.")] = 64,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Time torch.compile too (minutes; a GPU always does).")
    ] = False,
    plugin: Plugins = [],  # noqa: B006 - read only
    json: Json = False,
) -> None:
    """Measure training and inference speed and memory: layouts, precisions, deployed or not.

    On a GPU also as one CUDA graph. Beside it, one image in ONNX Runtime on the processor.
    """
    from blocklab.measure.speed import bench as bench_model

    load_plugins(plugin)
    report = bench_model(
        model,
        input_size=parse_size(input_size),
        batch_size=batch_size,
        compiled=True if compiled else None,
    )
    if json:
        print_json(report.to_dict())
        return
    print_table(report.headings, report.cells(), report.title)
