"""Options that several commands share."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blocklab.errors import InputError, shortened
from blocklab.yaml_files import parse_yaml

if TYPE_CHECKING:
    from blocklab.blocks.registry import BlockInfo
    from blocklab.study.collection import StudyCollection


def check_folder(parameter: typer.CallbackParam, given: Path | None) -> Path | None:
    """Refuse a folder to write to that is a file, or would lie in one, before any work.

    Raises:
        InputError: naming the file.
    """
    for place in () if given is None else (given, *given.parents):
        if place.exists():
            if not place.is_dir():
                name = parameter.opts[0] if parameter.opts[0].startswith("-") else "the folder"
                raise InputError(f"{name} {given}: {place} is a file; name a folder")
            break
    return given


Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Out = Annotated[Path, typer.Option(help="The folder of run folders.", callback=check_folder)]
Settings = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="FIELD=VALUE", help="Change a field of the recipe, or of the data (data.…)"
    ),
]
Plugins = Annotated[
    list[Path],
    typer.Option("--plugin", help="A Python file that registers blocks or backbones; it is run."),
]


def complete_trackers(incomplete: str) -> list[str]:
    """Return the trackers that begin so."""
    from blocklab.tracking.tracker import MODULES

    return [name for name in MODULES if name.startswith(incomplete)]


Track = Annotated[
    list[str],
    typer.Option(
        "--track",
        metavar="TRACKER",
        help="Tell tensorboard, wandb, mlflow or trackio too; may be repeated.",
        autocompletion=complete_trackers,
    ),
]
InputSize = Annotated[
    str,
    typer.Option(
        metavar="SIZE", help="Pixels a side of the image, or its height and width: 64x96."
    ),
]


def complete_models(incomplete: str) -> list[str]:
    """Return the named models that begin so, for a shell to complete."""
    from blocklab.models.names import catalogue

    return [name for name in catalogue() if name.startswith(incomplete)]


def complete_studies(incomplete: str) -> list[str]:
    """Return the shipped studies that begin so."""
    from blocklab.study.schema import study_names

    return [name for name in study_names() if name.startswith(incomplete)]


def complete_recipes(incomplete: str) -> list[str]:
    """Return the shipped recipes that begin so."""
    from blocklab.training.recipe import recipe_names

    return [name for name in recipe_names() if name.startswith(incomplete)]


# What a study has in place of its file's: whatever finds its folder again takes them too.
StudyData = Annotated[str | None, typer.Option("--data", help="Images in place of the study's.")]
StudyRecipe = Annotated[
    str | None,
    typer.Option(
        "--recipe", help="Recipe in place of the study's.", autocompletion=complete_recipes
    ),
]
StudySeeds = Annotated[
    str | None, typer.Option("--seeds", metavar="N", help="How many seeds, or which: 0,1,5.")
]
StudyRows = Annotated[
    list[str] | None, typer.Option("--rows", help="Rows to keep, A,B (and baseline).")
]


def parse_size(given: str) -> tuple[int, int]:
    """Read ``64`` or ``64x96``: height and width in pixels.

    Raises:
        InputError: if it is neither.
    """
    sides = given.lower().replace("\N{MULTIPLICATION SIGN}", "x").split("x")
    # No size has ten digits; an int() of thousands of them would be refused in other words.
    if len(sides) > 2 or not all(s.isascii() and s.isdigit() and len(s) < 10 for s in sides):
        raise InputError(
            "input_size must be a positive number of pixels, or a height and a width (64x96), not "
            f"'{given}'"
        )
    return int(sides[0]), int(sides[-1])


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Read ``field=value`` items, the value as YAML: ``epochs=3 flip=true ema_decay=null``.

    Raises:
        InputError: for an item without a field and a value, or a field set twice.
    """
    found: dict[str, Any] = {}
    for item in settings:
        field, equals, value = item.partition("=")
        if not equals or not field.strip():
            raise InputError(f"--set takes FIELD=VALUE, not '{item}'; for example --set epochs=3")
        if field.strip() in found:
            raise InputError(f"--set gives '{field.strip()}' twice; give it once")
        found[field.strip()] = parse_yaml(value, f"--set {field.strip()}")
    return found


def parse_seed(text: str) -> int:
    """Read a seed as a study's file has it: 0100, 1.0 and true are none.

    Raises:
        InputError: if it is no whole number.
    """
    seed = parse_yaml(text, "--seed")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise InputError(f"--seed is a whole number, not '{text[:40]}'")
    return seed


def parse_seeds(text: str | None) -> Any:
    """Read how many seeds, or which (``0,1,5``), as a study's file has them; not yet checked."""
    if text is None:
        return None
    listed = "," in text and not text.lstrip().startswith("[")
    seeds = parse_yaml(f"[{text}]" if listed else text, "--seeds")
    return text if seeds is None else seeds


def load_studies(
    file: str,
    data: str | None,
    recipe: str | None,
    seeds: str | None,
    rows: list[str] | None,
    settings: list[str],
) -> "StudyCollection":
    """Load a study, or several, with what the options above and ``--set`` put in place."""
    from blocklab.study.collection import StudyCollection

    return StudyCollection.load(
        file,
        data=data,
        recipe=recipe,
        seeds=parse_seeds(seeds),
        rows=parse_names(rows),
        settings=parse_settings(settings),
    )


def parse_names(given: Iterable[str] | None, option: str = "--rows") -> list[str] | None:
    """Split ``A,B`` into names; one with a comma in it stands in double quotes.

    Raises:
        InputError: if they cannot be told apart.
    """
    if not given:
        return None
    try:
        lines = list(csv.reader(given, skipinitialspace=True, strict=True))
    except csv.Error as error:
        shown = shortened(",".join(given))
        raise InputError(f"{option} takes names, A,B, not {shown} ({error})") from None
    names = [name.strip() for line in lines for name in line or [""]]
    if not all(names):
        raise InputError(f"{option} takes names, A,B; one of {shortened(','.join(given))} is empty")
    return names


def load_plugins(paths: Iterable[Path]) -> tuple[str, ...]:
    """Run the files that register a user's blocks; return their paths, for worker processes."""
    paths = [path.resolve() for path in paths]
    for path in paths:
        load_blocks(path)
    return tuple(map(str, paths))


def load_blocks(path: Path) -> tuple["BlockInfo", ...]:
    """Run a file that registers blocks; return them."""
    from blocklab.blocks.plugins import load_plugin
    from blocklab.models.timm_registry import register_with_timm

    register_with_timm()  # as `import blocklab` does in a program of the user's own
    return load_plugin(path)
