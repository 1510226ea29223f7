"""``blocklab check``: the contract on a user's own blocks and backbones."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from blocklab.cli.app import app
from blocklab.cli.options import Json, load_blocks
from blocklab.cli.output import output_console, print_json

if TYPE_CHECKING:
    from blocklab.contract.report_card import ReportCard

_STYLES = {"passed": "green", "failed": "bold red", "not applicable": "dim"}


@app.command()
def check(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.py", help="A Python file that registers them; run.")
    ],
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Have torch.compile make code (a minute or two) instead of tracing only.",
        ),
    ] = False,
    json: Json = False,
) -> int:
    """Try what is asked of a block or a backbone, on each one that a file registers."""
    from blocklab.contract.report_card import check_block

    blocks = load_blocks(file)
    backend = "inductor" if compile else "aot_eager"
    cards = [check_block(info.kind, info.name, compile_backend=backend) for info in blocks]
    if json:
        print_json({"file": str(file), "cards": [card.to_dict() for card in cards]})
    else:
        for card in cards:
            output_console().print(_table(card))
    return 0 if all(card.passed for card in cards) else 1


def _table(card: "ReportCard") -> Table:
    count = len(card.failures)
    verdict = f"{count} check{'s' * (count > 1)} failed" if count else "keeps the contract"
    options = ", ".join(f"{name}={value}" for name, value in card.options.items())
    title = f"{card.kind} {card.block}" + (f" ({options})" if options else "") + f": {verdict}"
    table = Table(box=box.SIMPLE_HEAD, title=escape(title), title_justify="left", pad_edge=False)
    for heading in ("check", "outcome", "what was tried, or what is wrong"):
        table.add_column(heading, no_wrap=heading != "what was tried, or what is wrong")
    for result in card.results:
        style = _STYLES[result.outcome]
        table.add_row(result.check, f"[{style}]{result.outcome}[/]", escape(result.detail))
    return table
