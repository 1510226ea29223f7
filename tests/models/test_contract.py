"""The model contract: what every named model does, whatever fills its slots.

Each is tried with its own slots but few and narrow blocks; names that differ in depth, width or
which activation alone are then one. Those that bring a filling of a slot, or a block to a kind of
residual block, are tried here; what combines the same otherwise is left to the slow tests. As they
are, at full size, a sample is tried here and all of them in the slow tests.
"""

import json
import re
from typing import Any

import pytest
import torch
from one_of_each import one_of_each
from torch import Tensor, nn

from blocklab import create_model, list_models
from blocklab.backbones.base import Backbone
from blocklab.blocks.protocol import mixed_by
from blocklab.blocks.triplet_attention import AFTER_NORM
from blocklab.errors import InputError
from blocklab.measure.cost import cost
from blocklab.models.spec import ModelSpec, model_spec

CLASSES = 7
A_BACKBONE = {
    "resnet": "resnet18",
    "van": "van_b0",
    "replknet": "replknet_31n",
    "metaformer": "convnext_tiny",
}
LARGEST_PARAMS = 70_000_000  # what a test machine trains a step of in seconds
FULL_SIZE = ("resnet18", "resnet20_se", "res2net20_celu", "van_b0", "replknet_31n")


def _narrow(name: str) -> dict[str, Any]:
    """Return a model's specification with its slots as they are and few, narrow blocks."""
    value = model_spec(name).to_dict()
    stages = len(value["widths"])
    value["depths"] = [2, *[1] * (stages - 1)]
    if value["family"] == "metaformer":  # the third stage's pattern of mixers, once
        value["depths"][2] = max(len(m) if isinstance(m, list) else 1 for m in _mixers(value))
    if value["family"] == "resnet":
        value["widths"] = [16, 32, 64, 128][:stages]
    else:
        value["widths"] = [16, 24, 32, 48][:stages]
    return _one_activation(value)


def _mixers(value: dict[str, Any]) -> list[Any]:
    return value["mixer"] if isinstance(value["mixer"], list) else [value["mixer"]]


def _one_activation(value: Any) -> Any:
    """Put CELU wherever an activation was changed: the activations have tests of their own."""
    if isinstance(value, list):
        return [_one_activation(item) for item in value]
    if not isinstance(value, dict):
        return value
    value = {key: _one_activation(item) for key, item in value.items()}
    if (inner := value.get("inner_activation")) is not None:
        value["inner_activation"] = "celu" + AFTER_NORM * inner.endswith(AFTER_NORM)
    if value.get("activation") not in (None, "relu", "gelu") or (
        value.get("activation") == "gelu" and value["family"] == "resnet"
    ):
        value["activation"] = "celu"
    return value


def _cases() -> list[Any]:
    """Every named model once narrowed, each under the first name that has it."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for name in list_models():
        value = _narrow(name)
        found.setdefault(json.dumps(value, sort_keys=True), (name, value))
    here = one_of_each(found.values())
    return [
        pytest.param(value, id=name, marks=() if name in here else pytest.mark.slow)
        for name, value in found.values()
    ]


def _images(model: Backbone, batch: int = 2, in_chans: int = 3, seed: int = 0) -> Tensor:
    """Images large enough that the last map has more than one position."""
    size = 64 if model.stem_stride > 1 else 32
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, in_chans, size, size, generator=generator)


def _built(value: dict[str, Any], **changes: Any) -> Backbone:
    torch.manual_seed(1)
    chans = changes.pop("in_chans", 3)
    return ModelSpec.from_dict({**value, **changes}).build(CLASSES, chans)


def check_training_step(value: dict[str, Any]) -> None:
    """Every parameter gets a finite gradient; what stands in a kind of place learns in one of them.

    (The one hidden ReLU of a narrow block may be closed in one place; not in all, from any start.)
    """
    learns: dict[str, bool] = {}
    for seed in range(2):
        model = _built(value)
        with torch.no_grad():  # nothing starts at zero, where it would hide what is below
            for parameter in model.parameters():
                parameter += 0.02 * torch.randn_like(parameter)
        out = model.train()(_images(model, seed=seed))
        assert out.shape == (2, CLASSES)
        nn.functional.cross_entropy(out, torch.tensor([0, 1])).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, f"{name} gets no gradient"
            assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
            place = re.sub(r"\d+", "#", name)
            learns[place] = learns.get(place, False) or bool((parameter.grad != 0).any())
    assert not [place for place, does in learns.items() if not does]


def check_evaluation(value: dict[str, Any]) -> Backbone:
    """No sample leaks into another unsaid; a fresh model with its weights gives the same."""
    model = _built(value)
    x = _images(model)
    with torch.no_grad():
        model.train()(x)  # running statistics of its own
        model.eval()
        expected = model(x)
        assert expected.isfinite().all()
        others = torch.cat([x[:1], _images(model, seed=9)[1:]])
        if mixed_by(model):  # by design, and said so
            assert not torch.allclose(model(others)[0], expected[0], rtol=1e-4, atol=1e-4)
            with pytest.raises(InputError, match="give two images or more"):
                model(x[:1])
        else:
            torch.testing.assert_close(model(x[:1]), expected[:1], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(model(others)[0], expected[0], rtol=1e-4, atol=1e-4)
        fresh = ModelSpec.from_dict(value).build(CLASSES).eval()
        assert not torch.equal(fresh(x), expected)
        fresh.load_state_dict(model.state_dict())
        assert torch.equal(fresh(x), expected)
    return model


def check_head(model: Backbone) -> None:
    """`reset_classifier` and its counterparts; changes the model."""
    model.eval()
    batch = 2 if mixed_by(model) else 1
    x = _images(model, batch)
    with torch.no_grad():
        features = model.forward_features(x)
        assert features.shape[1] == model.num_features
        torch.testing.assert_close(model.forward_head(features), model(x))
        model.reset_classifier(3)
        assert model.num_classes == 3 and model(x).shape == (batch, 3)
        assert model.get_classifier().out_features == 3
        model.reset_classifier(0)
        assert model(x).shape == (batch, model.head_hidden_size)
        torch.testing.assert_close(model(x), model.forward_head(features, pre_logits=True))


def check_trace(model: Backbone) -> None:
    """A plain symbolic trace of torch.fx sees all the way in, and computes the same."""
    graph = torch.fx.symbolic_trace(model.eval())
    x = _images(model, batch=3, seed=5)
    with torch.no_grad():
        torch.testing.assert_close(graph(x), model(x), rtol=1e-4, atol=1e-4)


def check_channels(colour: Backbone, value: dict[str, Any]) -> None:
    """Images of one channel; the rest of the network is the same."""
    grey = _built(value, in_chans=1)
    with torch.no_grad():
        assert grey.eval()(_images(grey, in_chans=1)).shape == (2, CLASSES)
    differing = [
        name
        for (name, one), three in zip(grey.named_parameters(), colour.parameters(), strict=True)
        if one.shape != three.shape
    ]
    assert len(differing) == 1  # the first convolution


def check_drop_path(plain: Backbone, value: dict[str, Any]) -> None:
    """Stochastic depth changes what is trained and nothing else."""
    with torch.no_grad():  # a layer scale that starts near zero would hide what is dropped
        for name, parameter in plain.named_parameters():
            if "layer_scale" in name:
                parameter.fill_(0.1)
    dropping = _built(value, drop_path_rate=0.5)
    assert dropping.state_dict().keys() == plain.state_dict().keys()
    dropping.load_state_dict(plain.state_dict())
    x = _images(plain)
    with torch.no_grad():
        assert torch.equal(plain.eval()(x), dropping.eval()(x))
        outputs = []
        for model in (plain, dropping):
            torch.manual_seed(3)
            outputs.append(model.train()(x))
    assert not torch.allclose(*outputs)


def check_features(whole: Backbone, model: str | dict[str, Any]) -> None:
    """`features_only` gives the maps whose channels and strides `feature_info` tells."""
    network: Any = create_model(model, features_only=True).eval()
    x = _images(whole)
    with torch.no_grad():
        maps = network(x)
    told = list(zip(network.feature_info.channels(), network.feature_info.reduction(), strict=True))
    assert [(m.shape[1], m.shape[2]) for m in maps] == [
        (channels, -(-x.shape[2] // reduction)) for channels, reduction in told
    ]
    assert all(m.shape[2] == m.shape[3] and m.isfinite().all() for m in maps)
    assert whole.feature_info.channels() == network.feature_info.channels()
    assert told[-1][0] == whole.num_features
    last = create_model(model, features_only=True, out_indices=(len(told) - 1,)).eval()
    with torch.no_grad():
        assert [m.shape for m in last(x)] == [maps[-1].shape]


def check_all(model: str | dict[str, Any], value: dict[str, Any]) -> None:
    check_training_step(value)
    built = check_evaluation(value)
    check_trace(built)
    check_channels(built, value)
    check_drop_path(built, value)
    check_features(built, model)
    check_head(built)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("value", _cases())
def test_every_named_models_slots(value: dict[str, Any]) -> None:
    slots = {key: item for key, item in value.items() if key != "family"}
    backbone = A_BACKBONE[value["family"]]
    check_all({"backbone": backbone, **slots}, value)


@pytest.mark.parametrize("name", FULL_SIZE)
def test_some_models_at_full_size(name: str) -> None:
    value = model_spec(name).to_dict()
    check_training_step(value)
    check_features(check_evaluation(value), name)


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("resnet20", ["layer3.2"]),
        ("resnet50", ["layer4.2"]),
        ("van_b0", ["block4.1"]),
        ("replknet_31n", ["stages.3.blocks.0", "stages.3.blocks.1"]),
        ("convnext_tiny", ["stages.3.blocks.2"]),
        ("poolformer_s12", ["stages.3.blocks.1"]),
        ("mambaout_femto", ["stages.3.blocks.2"]),
    ],
)
def test_a_dropped_block_is_its_shortcut(name: str, blocks: list[str]) -> None:
    """All of its residual branches are dropped: at the last block's rate, here almost 1."""
    model = _built(model_spec(name, drop_path_rate=0.9999).to_dict()).train()
    for block in map(model.get_submodule, blocks):
        x = torch.rand(2, model.num_features, 4, 3)
        assert torch.equal(block(x), x)


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_every_model_at_full_size(name: str) -> None:
    if (params := cost(name, 32).params) > LARGEST_PARAMS:
        pytest.skip(f"{params:,} parameters: too many to train a step of in a test")
    check_all(name, model_spec(name).to_dict())


@pytest.mark.parametrize("family", A_BACKBONE)
def test_an_activation_takes_the_place_of_every_other(family: str) -> None:
    """An option that only some layers honour would make a row half of what its name says."""
    with torch.device("meta"):
        model = create_model(
            {"base": A_BACKBONE[family], "activation": "celu"}, num_classes=CLASSES
        )
    kinds = {type(part).__name__ for part in model.modules()}
    named = {name for name in kinds if name.endswith(("LU", "wish", "ish"))}
    assert named == {"CELU"}
    plain = create_model(A_BACKBONE[family], num_classes=CLASSES)
    counts = [sum(type(p).__name__.endswith("LU") for p in one.modules()) for one in (plain, model)]
    assert counts[0] == counts[1] > 0
