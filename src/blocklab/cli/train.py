"""``blocklab train``: one run."""

from pathlib import Path
from typing import Annotated, Any

import typer

from blocklab.cli.app import app
from blocklab.cli.bar import TrainingBar
from blocklab.cli.options import (
    Json,
    Out,
    Plugins,
    Settings,
    Track,
    complete_models,
    complete_recipes,
    load_plugins,
    parse_seed,
    parse_settings,
)
from blocklab.cli.output import accuracy_cells, output_console, print_json, print_table
from blocklab.errors import Stopped
from blocklab.tracking.tracker import check_trackers


@app.command()
def train(
    model: Annotated[str, typer.Argument(help="A named model.", autocompletion=complete_models)],
    data: Annotated[str, typer.Option(help="Images: digits, cifar100, folder:PATH, …")],
    recipe: Annotated[
        str,
        typer.Option(
            help="A recipe's name, or a YAML file of one.", autocompletion=complete_recipes
        ),
    ] = "quick",
    seed: Annotated[
        str, typer.Option(metavar="S", help="Decides initial weights, order and draws.")
    ] = "0",
    pretrained: Annotated[
        str | None,
        typer.Option(help="Weights to start from: a file, a run's folder, hf:USER/NAME, …"),
    ] = None,
    out: Out = Path("runs"),
    settings: Settings = [],  # noqa: B006 - read only
    threads: Annotated[int | None, typer.Option(help="Threads of the run.")] = None,
    devices: Annotated[int, typer.Option(help="Devices (or processes) of one machine.")] = 1,
    nodes: Annotated[int, typer.Option(help="Machines, each with that many devices.")] = 1,
    plugin: Plugins = [],  # noqa: B006 - read only
    track: Track = [],  # noqa: B006 - read only
    json: Json = False,
) -> int:
    """Train one model; a rerun goes on where it stopped."""
    from blocklab.data.spec import DataSpec
    from blocklab.models.pretrained import Pretrained
    from blocklab.models.spec import model_spec
    from blocklab.study.rows import split_settings
    from blocklab.tracking.tracking import Tracking
    from blocklab.training.distributed import launch
    from blocklab.training.recipe import check_schedule, load_recipe
    from blocklab.training.run_definition import RunDefinition
    from blocklab.training.run_reader import RunReader, logged
    from blocklab.training.shorter_run import why_anew

    check_trackers(track)
    plugins = load_plugins(plugin)
    recipe_changes, data_changes = split_settings(parse_settings(settings))
    loaded = load_recipe(recipe, recipe_changes)
    check_schedule(recipe_changes, load_recipe(recipe).model_dump(mode="json"), {loaded.schedule})
    definition = RunDefinition(
        model_spec(model),
        DataSpec.parse({"source": data, **data_changes}),
        loaded,
        parse_seed(seed),
        None if pretrained is None else Pretrained.parse(pretrained),
    )
    try:
        with (
            TrainingBar(output_console(stderr=True), model, loaded.epochs) as bar,
            Tracking(track, out, bar.note) as tracking,
        ):
            run, name = out / definition.hash, f"{model} seed {definition.seed}"

            def epoch(record: dict[str, Any]) -> None:
                bar.epoch(record)
                tracking.follow(run, name)

            if anew := why_anew(definition.to_dict(), out, devices * nodes):
                bar.note(f"it {anew}")
            folder = launch(
                definition,
                out,
                label=model,
                devices=devices,
                nodes=nodes,
                threads=threads,
                plugins=plugins,
                on_epoch=epoch,
                on_step=bar.step,
                on_note=bar.note,
            )
            tracking.follow(run, name)
    except KeyboardInterrupt:
        kept, folder = len(logged(out / definition.hash)), out / definition.hash
        raise Stopped(
            f"{kept} of {loaded.epochs} epochs are kept in {folder}; the same command goes on there"
            if kept
            else "no epoch had ended; the same command starts again"
        ) from None
    reader = RunReader(folder)
    result = reader.require_result()
    if json:
        print_json({"run": str(folder), **result})
    else:
        shown = {
            "model": model,
            **accuracy_cells(result, "test", (reader.run or {})["class_names"]),
        }
        shown |= {"seconds": f"{result['train_seconds']:.0f}", "run": str(folder)}
        print_table(list(shown), [list(shown.values())])
    return 0 if result["status"] == "finished" else 1
