"""``blocklab data check``: copies of images between the splits of a data set."""

from pathlib import Path
from typing import Annotated

import typer

from blocklab.cli.app import app
from blocklab.cli.options import Json, parse_settings
from blocklab.cli.output import output_console, print_json, print_table
from blocklab.errors import InputError

data_app = typer.Typer(help="Look at a data set before anything trains on it.")
app.add_typer(data_app, name="data")


@data_app.command("check")
def check(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Images, as in --data.")],
    similar: Annotated[
        float | None,
        typer.Option(help="From which correlation of their pixels on two images are copies."),
    ] = None,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the pairs side by side.")
    ] = None,
    settings: Annotated[
        list[str],
        typer.Option("--set", metavar="data.FIELD=VALUE", help="Change how the data is read."),
    ] = [],  # noqa: B006 - read only
    json: Json = False,
) -> None:
    """List images that are copies of others: of test in training, of validation, within test."""
    from rich.progress import Progress

    from blocklab.data.copy_check import KINDS, NAMES, check_copies
    from blocklab.data.near_copies import SIMILAR
    from blocklab.data.spec import DataSpec
    from blocklab.files import write_atomically

    similar = SIMILAR if similar is None else similar
    if not 0.5 <= similar <= 1:
        raise InputError(f"--similar is from 0.5 to 1, not {similar:g}; {SIMILAR} by default")
    if png is not None and png.is_dir():
        raise InputError(f"--png {png} is a folder; name a file, such as {png / 'pairs.png'}")
    given = parse_settings(settings)
    if other := [name for name in given if not name.startswith("data.")]:
        raise InputError(f"--set {other[0]} is not of the data; write --set data.FIELD=VALUE")
    fields = {name.removeprefix("data."): value for name, value in given.items()}
    spec = DataSpec.parse({**fields, "source": source})
    console = output_console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("Comparing")
        found = check_copies(
            spec, similar, lambda done, all: progress.update(task, completed=done, total=all)
        )
    if png is not None and found.copies:
        import io

        drawn = io.BytesIO()
        found.picture().save(drawn, "PNG")
        write_atomically(png, drawn.getvalue())
    if json:
        print_json(found.to_dict())
        return
    lines = [
        (
            f"{NAMES[one.split]} {one.number}: {one.label}",
            f"{NAMES[one.of_split]} {one.of_number}: {one.of_label}",
            one.kind,
            f"{one.similarity:.3f}",
            str(one.copies),
            str(one.other_label) if one.other_label else "",
            one.name,
            one.of_name,
        )
        for one in found.copies
    ]
    if lines:
        headings = ("image", "is a copy of", "kind", "similarity", "copies", "of another label")
        print_table((*headings, "image's file", "copy's file"), lines, found.name, left=True)
    counts = [
        (
            f"{NAMES[line['split']]} images with a copy in {NAMES[line['among']]}",
            *(str(line[kind]) for kind in KINDS),
            str(line["other_label"]),
        )
        for line in found.summary
    ]
    print_table(("", *KINDS, "of another label"), counts, found.name)
