"""``blocklab check``: a report card, its exit status, and files that are refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from blocklab.blocks import plugins, registry
from blocklab.measure.cost import cost
from blocklab.models.spec import model_spec
from blocklab.yaml_files import parse_yaml

ROOT = Path(__file__).parent.parent.parent
BACKBONE = ROOT / "examples" / "my_backbone.py"
EXAMPLES = sorted({*(ROOT / "examples").glob("*.py")} - {BACKBONE})
GUIDE = (ROOT / "docs" / "your_own_block.md").read_text()
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


pytestmark = pytest.mark.usefixtures("registry_as_it_was")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_each_example_keeps_the_contract(example: Path, blocklab: Any) -> None:
    assert f"{{literalinclude}} ../examples/{example.name}" in GUIDE
    said = blocklab("check", example)
    assert said.status == 0 and said.err == "", said.out
    assert ": keeps the contract" in said.out
    passed = {line.split()[0] for line in said.out.splitlines() if " passed " in line}
    assert {"builds", "shape", "compile", "study"} <= passed
    assert "aot_eager" in said.out and "no code was made" in said.out
    assert "with 3, 16, 64 and 100 channels" in said.out


def test_the_guide_has_an_example_for_each_kind_and_rows_that_use_them() -> None:
    kinds = set()
    for example in EXAMPLES:
        kinds |= {info.kind for info in plugins.load_plugin(example)}
    assert kinds == set(registry.SLOT_PARAMETERS) - {"backbone"}
    (rows,) = re.findall(r"```yaml\nrows:\n(.*?)```", GUIDE, re.DOTALL)
    for model in parse_yaml(rows, "the guide").values():
        assert cost(model_spec(model), 32, 10).params > 0


def test_the_backbone_of_the_guide_keeps_timms_conventions(blocklab: Any) -> None:
    guide = (ROOT / "docs" / "your_own_backbone.md").read_text()
    assert f"{{literalinclude}} ../examples/{BACKBONE.name}" in guide
    said = blocklab("check", BACKBONE)
    assert said.status == 0 and said.err == "", said.out
    assert "backbone fire_net (widths=[32, 64, 128], depth=2): keeps the contract" in said.out
    (rows,) = re.findall(r"```yaml\nrows:\n(.*?)```", guide, re.DOTALL)
    for model in parse_yaml(rows, "the guide").values():
        assert cost(model_spec(model), 32, 10).params > 0


def test_an_error_that_repeats_is_shown_once_with_its_line(blocklab: Any, tmp_path: Path) -> None:
    path = tmp_path / "fails.py"
    path.write_text(BROKEN.replace("return self.norm(x)", "return self.absent(x)"))
    said = blocklab("check", path, "--json")
    assert said.status == 1
    (card,) = json.loads(said.out)["cards"]
    failed = [result for result in card["results"] if result["outcome"] == "failed"]
    assert len(failed) > 5
    first, *others = [result["detail"] for result in failed]
    assert "AttributeError: 'Leaky' object has no attribute 'absent'" in first
    assert first.endswith("(fails.py, line 12)")
    assert set(others) == {f"the same error as in '{failed[0]['check']}'"}


def test_widths_that_are_refused_in_words_are_named(blocklab: Any, tmp_path: Path) -> None:
    path = tmp_path / "pairs.py"
    refusal = """
        if channels % 2:
            raise ValueError(f"channels must be even, not {channels}")"""
    text = BROKEN.replace(", track_running_stats=False", "")
    text = text.replace("super().__init__()", f"super().__init__(){refusal}")
    path.write_text(text)
    (card,) = json.loads(blocklab("check", path, "--json").out)["cards"]
    builds = card["results"][0]
    assert builds["outcome"] == "failed" and builds["detail"].endswith("(pairs.py, line 10)")
    path.write_text(f"from blocklab.errors import InputError\n{text.replace('Value', 'Input')}")
    said = blocklab("check", path)
    assert said.status == 0, said.out
    assert "refuses 3: channels must be even, not 3" in said.out


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
