"""``blocklab plan``: how many seeds, and hours, show a gain."""

from pathlib import Path
from typing import Annotated

import typer

from blocklab.cli.app import app
from blocklab.cli.options import Json, Out, Plugins, Settings, load_plugins, parse_settings
from blocklab.cli.output import print_json, print_table
from blocklab.errors import printable

STUDY = "A study's YAML file, the name of a shipped one, or a study's folder."


@app.command()
def plan(
    study: Annotated[str, typer.Argument(metavar="STUDY", help=STUDY)],
    gain: Annotated[
        float, typer.Option(help="The true gain that is to be shown, in points (or its unit).")
    ],
    power: Annotated[float, typer.Option(help="How probably it is shown.")] = 0.8,
    sd: Annotated[
        float | None, typer.Option(help="SD of one run, in place of finished runs' spread.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Images to use in place of the study's.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe in place of the study's.")] = None,
    out: Out = Path("runs"),
    settings: Settings = [],  # noqa: B006 - read only
    plugin: Plugins = [],  # noqa: B006 - read only
    json: Json = False,
) -> None:
    """Say how many seeds a row, and hours, show a gain: from finished runs, or from an SD.

    A few runs know their spread poorly: the seeds are given as a range.
    """
    from blocklab.execution.seed_planning import read_pilot

    plugins = load_plugins(plugin)
    changes = {"data": data, "recipe": recipe, "settings": parse_settings(settings)}
    plan = read_pilot(study, out, sd, changes, plugins).plan(gain, power)
    if json:
        print_json(plan.to_dict())
        return
    print_table(plan.headings, plan.cells(), plan.title)
    for line in plan.lines:
        print(printable(line))
