"""Drawings of blocks, made from what they compute: what is in them, and that they can be read."""

import re
import runpy
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor, nn

from blocklab.blocks.registry import BlockInfo, register_block, registered_blocks
from blocklab.measure.block_list import block_in_place, block_lines

EXTENSIONS = Path(__file__).parent.parent / "docs" / "_ext"
BLOCKS = [info for info in registered_blocks() if info.cls.__module__.startswith("blocklab.")]
MOST_BOXES = 20


@pytest.fixture(scope="module")
def docs() -> Iterator[Any]:
    """What the extension's files define; they find one another."""
    sys.path.insert(0, str(EXTENSIONS))
    names = ("block_trace", "block_graph", "block_drawing", "block_pages")
    yield SimpleNamespace(**{k: v for name in names for k, v in _defined(name).items()})
    sys.path.remove(str(EXTENSIONS))


def _defined(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXTENSIONS / f"{name}.py"))


class Gate(nn.Module):
    """Two poolings, one convolution over both, and the map times its gate, twice."""

    def __init__(self, channels: int, *, reduction: int = 4) -> None:
        super().__init__()
        self.inner = nn.Conv2d(2 * channels, channels // reduction, 1)
        self.outer = nn.Conv2d(channels // reduction, channels, (1, 3), padding=(0, 1), groups=4)
        self.unused = nn.Conv2d(channels, channels, 1)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated map."""
        self.unused(x)
        both = torch.cat([x.mean((2, 3), keepdim=True), x.flatten(2).amax(2)[..., None, None]], 1)
        gate = self.outer(self.inner(both).relu()).sigmoid() * 1.0
        return x * gate * (x.mean(3, keepdim=True) * self.scale)


def test_steps_are_written_with_letters(docs: Any) -> None:
    steps = docs.trace(lambda channels: (Gate(channels).to("meta"), channels))
    assert [(step.text, step.inputs, step.shape) for step in steps] == [
        ("x", (), "C × H × W"),
        ("conv 1 × 1", (0,), "C × H × W"),
        ("mean over H, W", (0,), "C × 1 × 1"),
        ("maximum over H, W", (0,), "C"),
        ("concatenate", (2, 3), "2C × 1 × 1"),
        ("conv 1 × 1 → C/4", (4,), "C/4 × 1 × 1"),
        ("ReLU", (5,), "C/4 × 1 × 1"),
        ("conv 1 × 3 in 4 groups → C", (6,), "C × 1 × 1"),
        ("sigmoid", (7,), "C × 1 × 1"),
        ("×", (0, 8), "C × H × W"),
        ("mean over W", (0,), "C × H × 1"),
        ("× a learned weight", (10,), "C × H × 1"),
        ("×", (9, 11), "C × H × W"),
        ("y", (12,), "C × H × W"),
    ]


def test_rows_of_steps_are_one_box_and_what_leads_nowhere_none(docs: Any) -> None:
    graph = docs.boxes(docs.trace(lambda channels: (Gate(channels).to("meta"), channels)))
    assert list(docs.in_words(graph)) == [
        "mean over H, W, of x: C × 1 × 1",
        "maximum over H, W, of x: C",
        "concatenate, conv 1 × 1 → C/4 · ReLU, conv 1 × 3 in 4 groups → C, sigmoid, "
        "of (1) and (2): C × 1 × 1",
        "mean over W, × a learned weight, of x: C × H × 1",
        "x × (3) × (4): C × H × W",
        "the output is (5): C × H × W",
    ]


@pytest.mark.parametrize("alike", [True, False])
def test_branches_are_grouped(docs: Any, alike: bool) -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sides = (3, 3, 3, 3) if alike else (3, 5, 7, 9)
            self.paths = nn.ModuleList(nn.Conv2d(256, 7, n, padding=n // 2) for n in sides)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([path(x[:, :256]) for path in self.paths], 1)

    graph = docs.boxes(docs.trace(lambda channels: (Branches().to("meta"), channels)))
    said = next(docs.in_words(graph))
    kinds = "conv 3 × 3 → 7" if alike else ", ".join(f"conv {n} × {n} → 7" for n in (3, 5, 7, 9))
    assert said == f"4 {'times' if alike else 'branches'}: {kinds}, of x: 7 × H × W"


@pytest.mark.parametrize(
    ("lengths", "written"),
    [
        ((256, 512), "C"),
        ((16, 32), "C/16"),
        ((768, 1536), "3C"),
        ((14 * 28, 42 * 140), "HW"),
        ((7, 21), "H/2"),
        ((42, 182), "(H + W)"),
        ((8, 8), "8"),
        ((256 * 256, 512 * 512), "C²"),
        ((13, 40), "13"),  # nothing that is known
    ],
)
def test_lengths(docs: Any, lengths: tuple[int, int], written: str) -> None:
    assert docs.in_letters(*lengths, *docs.SIZES) == written


@pytest.mark.parametrize("info", BLOCKS, ids=lambda info: f"{info.kind}-{info.name}")
def test_a_block_has_a_drawing_that_can_be_read(docs: Any, info: BlockInfo) -> None:
    html = docs.drawing(info)
    drawn = ElementTree.fromstring(re.findall(r"<svg.*</svg>", html)[0])
    boxes = [_edges(one) for one in drawn.iter() if one.tag in ("rect", "circle")]
    assert 3 <= len(boxes) <= MOST_BOXES
    for (left, top, right, bottom), other in combinations(boxes, 2):
        apart = other[0] >= right or other[2] <= left or other[1] >= bottom or other[3] <= top
        assert apart, "boxes lie on one another"
    shapes = [one.text for one in drawn.iter("text") if one.get("class") == "shape"]
    assert shapes[0] == "C × H × W"  # of the input
    texts = [one.text or "" for one in drawn.iter("text")]
    assert "y" in texts and not any("256" in text for text in texts), texts
    # the widest line has its place within the drawing
    assert max(map(len, texts)) * 6 < float(drawn.attrib["width"])
    assert drawn.attrib["aria-label"] and "<li>the output is" in html
    if info.name != "mean":  # which has no default
        block, channels = block_in_place(info, {"type": info.name})
        given = block(torch.empty(2, channels, 14, 28, device="meta")).shape[1]
        letter = {1: "C", 3: "3C", 4: "4C"}[given // channels]
        assert html.endswith(f": {letter} × H × W</li></ol></details>")


def _edges(box: ElementTree.Element) -> tuple[float, float, float, float]:
    told = {key: float(value) for key, value in box.attrib.items() if key != "class"}
    if box.tag == "circle":
        x, y, r = told["cx"], told["cy"], told["r"]
        return x - r, y - r, x + r, y + r
    return told["x"], told["y"], told["x"] + told["width"], told["y"] + told["height"]


class Asks(nn.Module):
    """Looks at the values of a map, which a map without memory has not."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Return the map, halved where it is large."""
        return x / 2 if x.max().item() > 1 else x


@pytest.mark.usefixtures("registry_as_it_was")
def test_a_block_of_a_user_is_drawn_where_it_can_be(docs: Any) -> None:
    register_block("gate_of_mine")(Gate)
    register_block("asks")(Asks)
    mine = {info.name: info for info in registered_blocks()}
    assert "conv 1 × 3 in 4 groups → C" in docs.drawing(mine["gate_of_mine"])
    assert docs.drawing(mine["asks"]) == ""
    line = next(line for line in block_lines() if line.name == "asks")
    assert line.macs is None  # nor counted


def test_a_map_that_is_turned_is_seen_to_be(docs: Any) -> None:
    class Turned(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            both = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)], 2)
            return x * both.mean(2, keepdim=True)

    steps = docs.trace(lambda channels: (Turned(), channels))
    told = [(step.text, step.inputs, step.shape) for step in steps[1:5]]
    assert told == [
        ("mean over W", (0,), "C × H × 1"),
        ("mean over H", (0,), "C × 1 × W"),
        ("transpose", (2,), "C × W × 1"),
        ("concatenate", (1, 3), "C × (H + W) × 1"),
    ]
