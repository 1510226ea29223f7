"""Pages made from code: no option without a word, no example that a study would refuse."""

import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from blocklab.blocks.registry import BlockInfo, registered_blocks
from blocklab.files import write_checked_json
from blocklab.models.spec import model_spec
from blocklab.results.collection_file import CollectionJson
from blocklab.results.records import keep_collection, keep_records
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


@pytest.fixture
def kept(make_run: Callable[..., Path], tmp_path: Path) -> Path:
    """A folder of records, of one study: plain ResNet-20, with SE, and SE in a chain."""
    chains = {"plain": None, "se": "se", "both": ["se", {"type": "triplet", "gate": "tanh"}]}
    rows = list[dict[str, Any]]()
    for number, (name, chain) in enumerate(chains.items()):
        model = model_spec({"base": "resnet20", "attention": chain}).to_dict()
        made = {
            str(seed): make_run(
                tmp_path / "runs", name, seed, 50.0 + number + seed / 4, model=model
            )
            for seed in range(4)
        }
        runs = {seed: folder.name for seed, folder in made.items()}
        cost = {"macs": 10**9 + 2 * 10**7 * number, "params": 10**6, "input_size": 32}
        rows.append({"name": name, "model": model, "runs": runs, "cost": cost})
    content: dict[str, Any] = {"title": "Kept", "description": "", "notes": [], "claims": []}
    content |= {"data": {"source": "cifar100", "train_images": 10000}, "recipe": {"epochs": 5}}
    content |= {"recipe_name": "quick", "seeds": [0, 1, 2, 3], "varies": ["attention"]}
    content |= {"baseline": "plain", "command": None, "threads": 1, "rows": rows}
    write_checked_json(tmp_path / "runs" / "of_se" / "study.json", content)
    keep_records(tmp_path / "runs" / "of_se", tmp_path / "results" / "of_se")
    keep_collection(CollectionJson(studies=["of_se"]), tmp_path / "runs", tmp_path / "results/all")
    return tmp_path / "results"


def test_a_page_shows_what_committed_records_measured(pages: dict[str, Any], kept: Path) -> None:
    made = dict(pages["block_pages"](kept))
    rows = {
        name: [line for line in made[f"blocks/{name}.md"].splitlines() if "[of_se]" in line]
        for name in ("attention-se", "attention-triplet", "mixer-conv3x3")
    }
    first, second = rows["attention-se"]
    assert first.startswith(
        "| [of_se](../results.md) | `se` | resnet20 | cifar100, 10,000 images | quick | 4 | +1.00 ["
    )
    assert first.endswith("] points | better | 1.020 (×1.02) | 1.000 (×1.00) |")
    assert "`both`" in second and "+2.00" in second
    assert rows["attention-triplet"] == [second]
    both = "[all/of_se](../results.md), [of_se](../results.md)"  # a collection's too
    assert rows["mixer-conv3x3"] == [f"It is part of the baseline of {both}."]
    assert "| [all/of_se](../results.md) | `se` |" in made["blocks/attention-se.md"]
    assert "No committed record has this block in a row." in made["blocks/attention-eca.md"]
