"""A study with a user's own block, in worker processes; what a changed or a faulty file does."""

import json
from pathlib import Path
from typing import Any

import pytest

STUDY = """\
title: A block of one's own
data: {source: digits, train_images: 48, test_images: 60}
recipe: {base: quick, epochs: 1, batch_size: 16}
varies: [attention]
model: {widths: [4, 4, 8], depths: [1, 1, 1]}
rows:
  plain: resnet20
  mine: {base: resnet20, attention: mine}
"""
BLOCK = """\
import torch
from torch import nn

from blocklab import register_block


@register_block("mine")
class Mine(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x):
        return x * self.weight
"""


pytestmark = pytest.mark.usefixtures("registry_as_it_was")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A study and a block."""
    study, block = tmp_path / "study.yaml", tmp_path / "mine.py"
    study.write_text(STUDY)
    block.write_text(BLOCK)
    return study, block


def _runs(out: Path) -> dict[str, list[str]]:
    """Folders of finished runs by row, with what their definition calls the block."""
    found: dict[str, list[str]] = {}
    for path in sorted(out.glob("*/result.json")):
        run = json.loads((path.parent / "run.json").read_text())
        blocks = [block["type"] for block in run["definition"]["model"]["attention"]]
        found.setdefault(run["label"], []).append(" ".join(blocks))
    return found


def test_workers_know_the_block_and_a_changed_file_trains_again(
    blocklab: Any, files: tuple[Path, Path], tmp_path: Path
) -> None:
    study, block = files
    command = ("study", study, "--plugin", block, "--out", tmp_path / "runs", "--json")
    said = blocklab(*command)
    assert said.status == 0, said.err
    first = _runs(tmp_path / "runs")
    assert first["plain"] == [""] and first["mine"][0].startswith("mine@")
    again = blocklab(*command)
    assert json.loads(again.out) == json.loads(said.out)
    assert _runs(tmp_path / "runs") == first
    block.write_text(BLOCK.replace("x * self.weight", "x * self.weight * 2"))
    changed = blocklab(*command)
    assert changed.status == 0, changed.err
    second = _runs(tmp_path / "runs")
    assert second["plain"] == first["plain"]  # what the file is not part of is kept
    assert len(second["mine"]) == 2 and set(second["mine"]) > set(first["mine"])


def test_without_the_plugin_the_block_is_unknown(blocklab: Any, files: tuple[Path, Path]) -> None:
    said = blocklab("study", files[0])
    assert said.status == 2 and said.err.count("\n") == 1
    assert "no attention 'mine'" in said.err and "--plugin FILE" in said.err


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("x * self.weight", "x[:, :2]", "the network does not run: RuntimeError"),
        ("x * self.weight", "x * self.none", "(mine.py, line 14); `blocklab check "),
        ("self.weight =", "self.w = self.none or", "attribute 'none' (mine.py, line 11)"),
        ("self.weight\n", "self.weight[:: 1 // (not self.training)]\n", "ZeroDivisionError"),
        (
            "self.weight =",
            "self.l = nn.LazyConv2d(3, 1); self.weight =",
            "the network does not run",
        ),
        ("x * self.weight", "x.nothing", "AttributeError: 'Tensor' object has no attribute"),
        ("self.weight =", "self.w = self.none or", "'mine' cannot be built with {'channels': 4}"),
        ("import torch\n", "import torch_\n", "mine.py, line 1: ModuleNotFoundError"),
    ],
)
def test_a_faulty_block_is_refused_before_anything_is_trained(
    blocklab: Any, files: tuple[Path, Path], tmp_path: Path, was: str, becomes: str, said: str
) -> None:
    study, block = files
    block.write_text(BLOCK.replace(was, becomes, 1))
    answer = blocklab("study", study, "--plugin", block, "--out", tmp_path / "runs")
    assert answer.status == 2 and answer.err.count("\n") == 1, answer.err
    assert said in answer.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("1 // (x.is_meta or not self.training)", "trained in float32: ZeroDivisionError"),
        (
            "(1 if x.is_meta or not torch.is_autocast_enabled('cpu') else self.none)",
            "trained in bf16 and channels_last: AttributeError",
        ),
        ("(x.is_meta or self.training or len(x) // 0)", "evaluated: ZeroDivisionError"),
        ("len(self.__dict__.setdefault('kept', [lambda: 0]))", ""),  # which is nobody's fault
        ("len(self.__dict__.setdefault('kept', (i for i in 'a')) and [0])", "averaged, which cop"),
    ],
)
def test_what_only_a_real_network_meets_is_refused_before_and_by_check_too(
    blocklab: Any, files: tuple[Path, Path], tmp_path: Path, fault: str, said: str
) -> None:
    study, block = files
    block.write_text(BLOCK.replace("x * self.weight", f"x * self.weight * ({fault})"))
    answer = blocklab("study", study, "--plugin", block, "--out", tmp_path / "runs")
    assert answer.status == (2 if said else 0)
    checked = blocklab("check", block)
    assert checked.status == (1 if said else 0)
    if said:
        assert answer.err.count("\n") == 1
        assert f"row 'mine': the network cannot be {said}" in answer.err
        assert "(mine.py, line 14)" in answer.err or "averaged" in said
        assert not _runs(tmp_path / "runs")


def test_a_block_that_fails_in_training_fails_its_row_alone(
    blocklab: Any, files: tuple[Path, Path], tmp_path: Path
) -> None:
    study, block = files
    fails = "1 // (len(x) != 16)"  # as the study's batches are, and no image before them is
    block.write_text(BLOCK.replace("x * self.weight", f"x * self.weight * ({fails})"))
    answer = blocklab("study", study, "--plugin", block, "--out", tmp_path / "runs")
    assert answer.status == 1
    assert "mine seed 0" in answer.err and "ZeroDivisionError" in answer.err
    assert "(mine.py, line 14)" in answer.err
    assert list(_runs(tmp_path / "runs")) == ["plain"]
