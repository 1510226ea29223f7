"""``blocklab new``: a block, a backbone or a study to start from."""

from pathlib import Path
from typing import Annotated

import typer

from blocklab.cli.app import app
from blocklab.cli.options import Plugins, check_folder, load_blocks


@app.command()
def new(
    what: Annotated[str, typer.Argument(metavar="block|backbone|study", help="What to start.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, and its file's.")],
    to: Annotated[
        Path, typer.Option(help="The folder to write to.", callback=check_folder)
    ] = Path(),
    plugin: Plugins = [],  # noqa: B006 - read only
) -> None:
    """Write a file that runs as it is, with its test, to start from; nothing is overwritten."""
    from blocklab.study.starts import next_commands, write_start

    files = write_start(what, name, to, [(path, load_blocks(path)) for path in plugin])
    print("\n".join([*(f"wrote {file}" for file in files), "", "next:"]))
    for command in next_commands(what, files, plugin):
        print(f"  {command}")
