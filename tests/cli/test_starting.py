"""What needs no PyTorch does not wait for it, each in a process of its own; help is whole."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from blocklab.cli.app import COMMANDS, app
from blocklab.study.schema import study_names
from blocklab.training.recipe import recipe_names

Blocklab = Any
HEAVY = ("torch", "timm", "numpy", "pandas", "scipy", "altair")
START = f"""\
import sys
import blocklab_command
try:
    blocklab_command.main()
finally:
    print("imported:", *(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
"""


def started(
    *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one command line as the installed program does."""
    command = [sys.executable, "-c", START, *arguments]
    known = {**os.environ, **(environment or {})}
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=known)


@pytest.mark.parametrize(
    "line",
    [
        "--version",
        "--help",
        "study --help",
        "models",
        "models res2net* --json",
        "studies",
        "recipes --json",
        "models resnot",
        "train resnet20",
        "study",
    ],
)
def test_no_heavy_import(line: str) -> None:
    done = started(*line.split())
    assert done.stderr.splitlines()[-1] == "imported:", done.stderr
    assert done.stdout or "error: " in done.stderr


def test_a_plugin_finds_the_registry_of_timm(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "import timm\n"
        "import torch\n"
        "import blocklab\n"
        "assert timm.is_model('blocklab_resnet20_se'), 'not registered'\n"
        "@blocklab.register_block('mine')\n"
        "class Mine(torch.nn.Identity):\n"
        "    def __init__(self, channels: int) -> None:\n"
        "        super().__init__()\n"
    )
    done = started("describe", "resnet20:attention=mine", "--plugin", str(plugin), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["params"] > 0
    assert "torch" in done.stderr.splitlines()[-1], "so the test above can see what is imported"


def test_help_lists_commands_in_their_order_and_every_option_has_help() -> None:
    for module in COMMANDS.values():
        importlib.import_module(f"blocklab.cli.{module}")
    group: Any = typer.main.get_command(app)
    assert group.list_commands(None) == list(COMMANDS)
    assert set(group.commands) == set(COMMANDS)
    for name, command in group.commands.items():
        assert command.help, name
        for parameter in command.params:
            assert parameter.help, f"{name}: {parameter.name}"


def test_what_is_shipped(blocklab: Blocklab) -> None:
    studies = json.loads(blocklab("studies", "--json").out)
    assert [one["study"] for one in studies] == study_names()
    titles = {one["study"]: one["title"] for one in studies}
    assert titles["table_9"].startswith("Res2Net with attention")
    assert titles["table_9"] in blocklab("studies").out
    rows = {one["study"]: one["rows"] for one in studies}
    assert rows["figure_35"] == ["tiny"] and len(rows["table_4"]) == 14
    assert {*rows["table_4"], *rows["figure_36"]} <= set(rows["report_all"])  # of a collection: all
    assert set(rows["ablation_res2net"]) > {"full", "base"}  # of an ablation
    recipes = json.loads(blocklab("recipes", "--json").out)
    assert [one["recipe"] for one in recipes] == recipe_names()
    for one in recipes:
        assert one["summary"].endswith("."), one
        assert one["summary"] in blocklab("recipes").out
    order = [name for name in study_names() if name.startswith("table_")]
    assert order == [f"table_{number}" for number in range(1, 12)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("blocklab st", ["study", "studies"]),
        ("blocklab describe resnet20_s", ["resnet20_se", "resnet20_sk"]),
        ("blocklab study quick", ["quickstart"]),
        ("blocklab train resnet20 --recipe report_", ["report_res2net"]),
    ],
)
def test_a_shell_completes_commands_and_names(words: str, expected: list[str]) -> None:
    """As bash asks for it; without PyTorch, as people wait for it at every key."""
    count = str(len(words.split()) - 1)
    asked = {"COMP_WORDS": words, "COMP_CWORD": count, "_BLOCKLAB_COMPLETE": "complete_bash"}
    done = started(environment=asked)
    assert sorted(done.stdout.split()) == sorted(expected), done.stderr
    assert done.stderr.splitlines()[-1] == "imported:", done.stderr
