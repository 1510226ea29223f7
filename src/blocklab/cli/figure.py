"""Pictures of networks, recipes and runs, each as PNG and SVG."""

import sys
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from blocklab.cli.app import app
from blocklab.cli.options import Json, Plugins, check_folder, load_plugins, parse_size
from blocklab.cli.output import print_faults, print_json
from blocklab.errors import InputError, printable


@app.command()
def figure(
    name: Annotated[
        str,
        typer.Argument(
            help="receptive_field, kernels, dead_neurons, grad_cam, attention, learning_rate, "
            "accuracy; or figure_35, figure_36, figure_37 of the report."
        ),
    ],
    subjects: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OF]...",
            help="A run, by its folder or STUDY_DIR/ROW:SEED; a model; a recipe, or a study.",
        ),
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(help="An image, or a folder of them (default: telling test images)."),
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="A module of the network, for kernels and grad_cam.")
    ] = None,
    input_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of a model: 32 or 64x96.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            help="The folder to write to (default: pictures/ beside what it is of).",
            callback=check_folder,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the report's studies ran.")] = Path("runs"),
    plugin: Plugins = [],  # noqa: B006 - read only
    json: Json = False,
) -> int:
    """Draw one figure and write it as SVG and PNG."""
    from blocklab.report.named_figures import draw

    load_plugins(plugin)
    faults: list[InputError] = []
    if image:
        _check_images_are_named(subjects or [])
    try:
        drawn = draw(
            name,
            subjects or [],
            image or [],
            layer=layer,
            input_size=None if input_size is None else parse_size(input_size),
            out=out,
            on_fault=faults.append,
        )
    except InputError:
        print_faults(faults)  # which images could not be read, and why
        raise
    written = drawn.write(to)
    if json:
        files = [str(path) for path in written]
        print_json({"figure": name, "files": files, "notes": list(drawn.notes)})
    for path in () if json else written:
        print(printable(str(path)))
    for note in () if json else drawn.notes:
        print(printable(note), file=sys.stderr)
    print_faults(faults)
    return 1 if faults else 0


def _check_images_are_named(subjects: list[str]) -> None:
    """Find the b.png of `--image a.png b.png`, which is read as what the figure is of."""
    from blocklab.data.pictures import EXTENSIONS

    paths = [Path(one) for one in subjects]
    stray = [one for one in paths if one.suffix.lower() in EXTENSIONS and one.is_file()]
    if stray:
        raise InputError(
            f"{stray[0]} is an image; give --image before each: --image {quote(str(stray[0]))}"
        )
