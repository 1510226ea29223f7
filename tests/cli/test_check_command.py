"""``blocklab check``: a report card, its exit status, and files that are refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blocklab.blocks import plugins, registry

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "my_block.py"
BROKEN = """\
from torch import nn
from blocklab import register_block


@register_block("leaky")
class Leaky(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, track_running_stats=False)

    def forward(self, x):
        return self.norm(x)
"""


@pytest.fixture(autouse=True)
def _registry_as_it_was() -> Iterator[None]:
    blocks, loaded = dict(registry._REGISTRY), dict(plugins._LOADED)
    yield
    registry._REGISTRY.clear()
    registry._REGISTRY.update(blocks)
    plugins._LOADED.clear()
    plugins._LOADED.update(loaded)


def test_the_example_keeps_the_contract(blocklab: Any) -> None:
    said = blocklab("check", EXAMPLE)
    assert said.status == 0 and said.err == ""
    assert "contrast_gate (eps=0.001): keeps the contract" in said.out
    lines = [line.split() for line in said.out.splitlines() if " passed " in line]
    assert len(lines) == 13
    assert "aot_eager" in said.out and "no code was made" in said.out


def test_a_broken_block_ends_in_1(blocklab: Any, tmp_path: Path) -> None:
    path = tmp_path / "leaky.py"
    path.write_text(BROKEN)
    said = blocklab("check", path)
    assert said.status == 1 and "checks failed" in said.out
    assert "an image's output changes" in said.out
    described = json.loads(blocklab("check", path, "--json").out)
    (card,) = described["cards"]
    assert card["block"] == "leaky" and card["passed"] is False
    failed = {result["check"] for result in card["results"] if result["outcome"] == "failed"}
    assert "samples" in failed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("x = (\n", "line 1: '(' was never closed"),
        ("import no_such_package\n", "line 1: ModuleNotFoundError"),
        ("x = 1\n", "registers no block"),
        (BROKEN.replace("leaky", "se"), "'se' is already"),
        (BROKEN.replace("channels: int", "width: int"), "'width', which no attention slot tells"),
    ],
)
def test_a_wrong_file_ends_in_2(blocklab: Any, tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "wrong.py"
    if text is not None:
        path.write_text(text)
    answer = blocklab("check", path)
    assert answer.status == 2 and answer.out == ""
    assert answer.err.startswith("error: ") and answer.err.count("\n") == 1
    assert said in answer.err and str(path) in answer.err
