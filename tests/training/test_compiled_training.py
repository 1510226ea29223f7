"""Whole networks through `torch.compile`: one graph each, and made once a size of batch.

Every family with every block in its slots is trained by the loop itself for two epochs, whose last
batches are smaller. The networks are traced without code being made of them, which is where graphs
break and are made again; slow tests make the code too.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
import torch._dynamo.config
from torch import Tensor, nn

from blocklab.blocks.registry import registered_blocks
from blocklab.data.image_data import ImageData
from blocklab.models.spec import model_spec
from blocklab.training.device import choose_setup
from blocklab.training.loop import prepare, train
from blocklab.training.recipe import Recipe

Compile = Callable[..., nn.Module]
NEEDED: dict[str, dict[str, Any]] = {"mean": {"of": ["se", "coordinate"]}}
# Two stages, the second with a stride; a stem that makes 8x8 images 2x2 maps.
SMALL = {
    "basic": {"base": "resnet18", "depths": [1, 1], "widths": [16, 32]},
    "bottleneck": {"base": "resnet50", "depths": [1, 1], "widths": [16, 32]},
    "van": {"base": "van_b0", "depths": [1, 1], "widths": [16, 32], "ffn_ratios": [2, 2]},
    "metaformer": {
        "base": "convnextv2_atto",
        **{"depths": [1, 1], "widths": [16, 32], "mlp_ratios": [2, 2]},
    },
    "replknet": {"base": "replknet_31b", "kernels": [7, 5], "depths": [1, 1], "widths": [16, 32]},
}
SLOTS = {  # family -> slot -> the kinds of blocks that fit it; replknet has one mixer
    "basic": {"mixer": ("mixer",), "attention": ("attention",)},
    "bottleneck": {"mixer": ("mixer",), "attention": ("attention",)},
    "van": {"mixer": ("token_mixer", "attention"), "ffn_mixer": ("ffn_mixer",)},
    "metaformer": {"mixer": ("token_mixer", "mixer")},
}
# Every kernel that chooses how to compute by device or by map is in one of FAST.
FAST = {
    "bottleneck": {
        **SMALL["bottleneck"],
        "mixer": "selective_kernel",
        "attention": {"type": "mean", "of": ["triplet", "coordinate"]},
    },
    "van": {
        **SMALL["van"],
        **{"depths": [1], "widths": [16], "ffn_ratios": [2], "ffn_mixer": "hierarchical_split"},
    },
    "metaformer": {**SMALL["metaformer"], "mixer": "slak"},
    "replknet": SMALL["replknet"],
}
ROWS = [pytest.param(row, id=family) for family, row in FAST.items()]
ROWS += [
    pytest.param(
        {**SMALL[family], slot: {"type": info.name, **NEEDED.get(info.name, {})}},
        marks=pytest.mark.slow,
        id=f"{family}-{slot}-{info.name}",
    )
    for family, slots in SLOTS.items()
    for slot, kinds in slots.items()
    for info in registered_blocks()
    if info.kind in kinds and info.digest is None
]


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """Let `torch.compile` refuse graphs that break, and say what it was asked."""
    original = cast(Compile, torch.compile)

    def begin(backend: str) -> list[dict[str, Any]]:
        asked: list[dict[str, Any]] = []

        def compile(model: nn.Module, **options: Any) -> nn.Module:
            asked.append(options)
            return original(model, fullgraph=True, backend=backend, dynamic=options["dynamic"])

        monkeypatch.setattr(torch, "compile", compile)
        return asked

    yield begin
    torch._dynamo.reset()


def train_and_evaluate(row: dict[str, Any], data: ImageData, **changes: Any) -> nn.Module:
    """Train a row for two epochs and run its last batches' sizes in evaluation, twice each.

    In the second epoch and the second time nothing may be made anew.
    """
    fields = {"epochs": 2, "batch_size": 20, "drop_last": False, "precision": "bf16"}
    recipe = Recipe.parse({**fields, "compile": "on", "ema_decay": 0.9, **changes})
    setup = choose_setup(recipe)
    torch.manual_seed(0)
    state = prepare(model_spec(row).build(len(data.class_names)), recipe, setup)
    epochs = train(state, data, recipe, setup, 0)
    next(epochs)
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert next(epochs)["epoch"] == 2
    network = cast(nn.Module, torch.compile(state.model, dynamic=False, fullgraph=True)).eval()
    for again in (False, True):
        with (
            torch._dynamo.config.patch(error_on_recompile=again),
            torch.inference_mode(),
            setup.fabric.autocast(),
        ):
            for images in (20, 12):
                x = torch.randn(images, 3, 8, 8).contiguous(memory_format=setup.memory_format)
                assert network(x).shape == (images, 7)
    return state.model


@pytest.mark.parametrize("row", ROWS)
def test_every_family_is_one_graph_made_once_a_size(
    row: dict[str, Any], data: ImageData, whole: Callable[[str], list[dict[str, Any]]]
) -> None:
    asked = whole("eager")
    train_and_evaluate(row, data)
    assert asked[0] == {"dynamic": False, "mode": None}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50_triplet", "res2net50_celu_cd_st", "van_b0_replk"])
def test_named_networks_are_one_graph_with_their_backward_passes(
    name: str, data: ImageData, whole: Callable[[str], list[dict[str, Any]]]
) -> None:
    whole("aot_eager")
    train_and_evaluate({"base": name, "depths": [1, 1, 1, 1]}, data)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bottleneck", "replknet"])
def test_code_is_made_once_a_size(
    family: str, data: ImageData, whole: Callable[[str], list[dict[str, Any]]]
) -> None:
    whole("inductor")
    row = SMALL[family] | ({"attention": "triplet"} if family == "bottleneck" else {})
    row = {name: value[:1] if isinstance(value, list) else value for name, value in row.items()}
    train_and_evaluate(row, data, precision="fp32")


def test_a_graph_that_breaks_or_is_made_again_is_seen(
    data: ImageData,
    whole: Callable[[str], list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The tests above can fail."""
    from blocklab.blocks.squeeze_excitation import SqueezeExcitation as Block

    whole("eager")
    forward, row = Block.forward, {**SMALL["basic"], "attention": "se"}

    def reads(self: Block, x: Tensor) -> Tensor:
        return forward(self, x) if x.mean() > -1e9 else x

    monkeypatch.setattr(Block, "forward", reads)
    with pytest.raises(Exception, match=r"[Dd]ata-dependent"):
        train_and_evaluate(row, data)

    def counts(self: Any, x: Tensor) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        return forward(self, x) * self.calls

    monkeypatch.setattr(Block, "forward", counts)  # each call asks for a graph of its own
    with pytest.raises(Exception, match=r"[Rr]ecompil"):
        train_and_evaluate(row, data)


def test_the_last_of_many_networks_of_a_process_is_compiled_too(
    data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch keeps 256 graphs of a class of networks, here four, and runs others as they are."""
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        graphs[-1] += 1
        return graph.forward

    original = cast(Compile, torch.compile)
    monkeypatch.setattr(
        torch, "compile", lambda model, **options: original(model, backend=backend, dynamic=False)
    )
    recipe = Recipe.parse({"epochs": 1, "batch_size": 20, "compile": "on", "drop_last": False})
    setup = choose_setup(recipe)
    few = replace(data, train=replace(data.train, indices=data.train.indices[:32]))
    for width in range(8, 12):
        graphs.append(0)
        row = {"base": "resnet20", "depths": [1], "widths": [width]}
        with torch._dynamo.config.patch(accumulated_recompile_limit=4):
            list(train(prepare(model_spec(row).build(7), recipe, setup), few, recipe, setup, 0))
    assert graphs == [2] * len(graphs)
