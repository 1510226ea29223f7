"""``blocklab``, ``blocklab models`` and ``blocklab describe``."""

import json
from pathlib import Path
from typing import Any

import pytest

from blocklab import list_models
from blocklab.blocks.registry import registered_blocks
from blocklab.measure.block_list import block_lines

Blocklab = Any
OWN_BACKBONE = Path(__file__).parents[2] / "examples" / "my_backbone.py"
SE = {"reduction": 16, "gate_bias": None}


def test_help_names_every_command(blocklab: Blocklab) -> None:
    said = blocklab()
    assert said.status == 0
    for verb in ("quickstart", "models", "describe", "train", "study", "report", "evaluate"):
        assert verb in said.out
    for verb in ("predict", "diagnose", "export", "bench", "check"):
        assert verb in said.out
    assert blocklab("--help").out == said.out
    assert blocklab("--version").out.startswith("blocklab 0.")


def test_models_lists_names(blocklab: Blocklab) -> None:
    assert blocklab("models").out.split() == list_models()
    assert blocklab("models", "res2net50*").out.split() == list_models("res2net50*")


def test_models_of_ones_own_are_listed(blocklab: Blocklab, registry_as_it_was: None) -> None:
    own = ("--plugin", OWN_BACKBONE)
    assert blocklab("models", "fire*", *own).out == "fire_net\n"
    assert blocklab("models", *own).out.splitlines()[-1] == "fire_net"
    (line,) = json.loads(blocklab("models", "fire_net", *own, "--cost", "--json").out)
    assert line["model"] == "fire_net" and line["macs"] > 0


def test_models_with_costs(blocklab: Blocklab) -> None:
    said = blocklab("models", "resnet50", "--cost", "--json")
    assert json.loads(said.out) == [
        {"model": "resnet50", "macs": 4089184256, "params": 25557032, "input_size": 224}
    ]
    shown = blocklab("models", "resnet50", "--cost").out
    assert "4.089" in shown and "25.557" in shown and "224\u00d7224" in shown
    small = blocklab("models", "resnet20*", "--cost")  # by the 3x3 stem, made for 32x32
    lines = {line.split()[0]: line.split()[1:] for line in small.out.splitlines() if "32" in line}
    assert lines["resnet20"] == ["32\u00d732", "0.04061", "0.3341"]
    assert lines["resnet20_se"] == ["32\u00d732", "0.04062", "0.3364"]
    smaller = blocklab("models", "resnet50", "--cost", "--input-size", 32, "--json")
    assert json.loads(smaller.out)[0]["macs"] < 4089184256 / 40


def test_blocks_are_listed_with_paper_cost_and_options(blocklab: Blocklab) -> None:
    listed = {
        (line["kind"], line["name"]): line
        for line in json.loads(blocklab("models", "--blocks", "--json").out)
    }
    assert listed.keys() == {(info.kind, info.name) for info in registered_blocks()}
    se = listed["attention", "se"]
    assert (se["year"], se["arxiv"], se["options"]) == (2018, "1709.01507", SE)
    # Two layers of 256 x 16, and their biases.
    assert (se["macs"], se["params"]) == (2 * 256 * 16, 2 * 256 * 16 + 16 + 256)
    plain = listed["mixer", "conv3x3"]
    assert (plain["macs"], plain["params"]) == (9 * 256 * 256 * 14 * 14, 9 * 256 * 256)
    shown = blocklab("models", "se", "--blocks").out
    assert "0.008192" in shown and "reduction=16" in shown and "1709.01507" in shown


def test_every_shipped_block_names_its_paper() -> None:
    shipped = {
        (info.kind, info.name)
        for info in registered_blocks()
        if info.cls.__module__.startswith("blocklab.")
    }
    for line in block_lines():
        if (line.kind, line.name) in shipped and line.name != "mean":  # of what others make
            assert line.year and line.year > 2010, line.name
            assert line.macs is not None and line.params is not None, line.name


def test_a_pattern_without_a_block_names_the_closest(blocklab: Blocklab) -> None:
    said = blocklab("models", "tripet", "--blocks")
    assert said.status == 2 and "did you mean 'triplet'" in said.err


@pytest.mark.parametrize(
    ("model", "macs", "params"),
    [
        ("resnet50", "4.089", "25.557"),
        ("res2net50", "2.586", "16.360"),
        ("van_b0", "0.8642", "4.106"),
        ("van_b1", "2.495", "13.862"),
    ],
)
def test_describe_counts_as_published(
    blocklab: Blocklab, model: str, macs: str, params: str
) -> None:
    said = blocklab("describe", model)
    total = next(line for line in said.out.splitlines() if line.lstrip().startswith("total"))
    assert total.split() == ["total", macs, params]


def test_describe_tells_shapes_and_live_taps(blocklab: Blocklab) -> None:
    described = json.loads(blocklab("describe", "van_b0", "--input-size", 32, "--json").out)
    shapes = [part["shape"] for part in described["parts"]]
    assert shapes == [[32, 8, 8], [64, 4, 4], [160, 2, 2], [256, 1, 1], [1000]]
    assert sum(part["params"] for part in described["parts"]) == described["params"]
    assert described["large_kernels"]
    assert "taps" in blocklab("describe", "van_b0", "--input-size", 32).out


def test_height_and_width_differ(blocklab: Blocklab) -> None:
    described = json.loads(blocklab("describe", "van_b0", "--input-size", "32x64", "--json").out)
    assert described["input_size"] == [32, 64]
    assert described["parts"][0]["shape"] == [32, 8, 16]
    assert "at 32\u00d764" in blocklab("describe", "van_b0", "--input-size", "32X64").out
    (counted,) = json.loads(
        blocklab("models", "van_b0", "--cost", "--input-size", "32x64", "--json").out
    )
    assert counted["macs"] == described["macs"] and counted["input_size"] == [32, 64]
    assert "32\u00d764" in blocklab("models", "van_b0", "--cost", "--input-size", "32x64").out


def test_a_small_network_is_described_at_its_native_size(blocklab: Blocklab) -> None:
    described = json.loads(blocklab("describe", "resnet20", "--json").out)
    assert described["input_size"] == 32 and described["parts"][0]["shape"] == [16, 32, 32]
    assert "resnet20 at 32\u00d732" in blocklab("describe", "resnet20").out
    asked = blocklab("describe", "resnet20", "--input-size", 64, "--json")
    assert json.loads(asked.out)["input_size"] == 64


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("frobnicate",), "frobnicate"),
        (("models", "--cots"), "--cots"),
        (("models", "nosuch*"), "no model matches"),
        (("describe",), "model"),
        (("describe", "resnet500"), "did you mean 'resnet50'"),
        (("describe", "resnet50", "--input-size", 0), "positive"),
        (("describe", "resnet50", "--input-size", "wide"), "positive"),
        (("describe", "resnet50", "--input-size", "64x"), "a height and a width (64x96)"),
        (("describe", "resnet50", "--input-size", "64x96x3"), "not '64x96x3'"),
        (("bench", "resnet20", "--input-size", "0x32"), "not (0, 32)"),
        (("models", "--cost", "--input-size", -3), "positive"),
        (("models", "--input-size", 64), "goes with --cost"),
        (("models", "--plugin", "nowhere.py"), "nowhere.py"),
        (("describe", "resnet50", "--num-classes", -1), "num_classes"),
    ],
)
def test_wrong_input_is_one_line(
    blocklab: Blocklab, arguments: tuple[object, ...], says: str
) -> None:
    said = blocklab(*arguments)
    assert said.status == 2
    assert said.out == ""
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    assert says in said.err
