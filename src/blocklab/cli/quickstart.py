"""``blocklab quickstart``: a whole study in a minute or two, on data that is embedded."""

from pathlib import Path

from blocklab.cli.app import app
from blocklab.cli.options import Json, Out
from blocklab.cli.study import study


@app.command()
def quickstart(out: Out = Path("runs"), json: Json = False) -> int:
    """Compare three attentions on handwritten digits, and name the page that tells what came."""
    return study("quickstart", out=out, json=json)
