"""Pages made from code: no option without a word, no example that a study would refuse."""

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blocklab.blocks.registry import BlockInfo, registered_blocks
from blocklab.models.spec import model_spec
from blocklab.yaml_files import parse_yaml

EXTENSIONS = Path(__file__).parent.parent / "docs" / "_ext"
BLOCKS = [info for info in registered_blocks() if info.cls.__module__.startswith("blocklab.")]


@pytest.fixture(scope="module")
def pages() -> Iterator[dict[str, Any]]:
    sys.path.insert(0, str(EXTENSIONS))
    yield runpy.run_path(str(EXTENSIONS / "block_pages.py"))
    sys.path.remove(str(EXTENSIONS))


@pytest.mark.parametrize("info", BLOCKS, ids=lambda info: f"{info.kind}-{info.name}")
def test_a_block_says_what_each_option_means_and_can_be_named_so(
    info: BlockInfo, pages: dict[str, Any]
) -> None:
    assert set(pages["meanings"](info.cls)) == set(info.options.model_fields)
    row = parse_yaml(pages["row_with"](info), info.name)
    assert info.name in str(model_spec(row).to_dict())


def test_there_is_a_page_for_each_block(pages: dict[str, Any]) -> None:
    made = dict(pages["block_pages"]())
    assert len(made) == len(list(registered_blocks())) + 1  # other tests may have registered theirs
    page = made["blocks/attention-coordinate.md"]
    assert "0.1147 M MACs and 6.680 k parameters" in page
    assert "| `reduction` | `32` | a whole number above 0 | both gates are made from" in page
    assert "<svg" in page and "<summary>In words</summary>" in page
    assert "https://arxiv.org/abs/2103.02907" in page and "`resnet18_ca`" in page
    for name in made:
        if name != "blocks/index.md":
            assert f"]({Path(name).name})" in made["blocks/index.md"], name
