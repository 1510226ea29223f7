"""Freezing parts, rates of the head and of layers: by name, in the optimizer, and in training."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from blocklab.data.image_data import ImageData
from blocklab.errors import InputError
from blocklab.models.factory import create_model
from blocklab.models.parts import parameters_of
from blocklab.training.device import make_setup
from blocklab.training.freezing import rate_scales
from blocklab.training.loop import prepare, train
from blocklab.training.recipe import Recipe, load_recipe

SMALL = {"widths": (8, 8, 8, 8), "depths": (1, 1, 1, 1)}


def _resnet(classes: int = 7) -> nn.Module:
    torch.manual_seed(0)
    return create_model("resnet18", classes, stem="cifar", **SMALL)


def _recipe(**fields: Any) -> Recipe:
    usual = {"epochs": 2, "batch_size": 13, "lr": 0.1, "schedule": "constant", "precision": "fp32"}
    return Recipe.parse({**usual, "memory_format": "contiguous", **fields})


def _trained(model: nn.Module, recipe: Recipe, data: ImageData) -> nn.Module:
    state = prepare(model, recipe, make_setup("32-true", "contiguous"))
    for _ in train(state, data, recipe, make_setup("32-true", "contiguous"), seed=3):
        pass
    return state.model


@pytest.mark.parametrize("name", ["resnet18", "van_b0", "replknet_31b"])
def test_stem_and_backbone_are_names_in_each_family(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, 7)
    names = {name for name, _ in model.named_parameters()}
    head = {name for name in names if name.startswith(("fc.", "head."))}
    assert head and parameters_of(model, ["backbone"]) == names - head
    stem = parameters_of(model, ["stem"])
    assert stem and not stem & head and len(stem) < len(names) / 2


def test_stem_and_backbone_of_a_timm_model_are_the_same_parameters() -> None:
    with torch.device("meta"):
        ours, theirs = create_model("resnet18", 7), timm.create_model("resnet18", num_classes=7)
    for part in ("stem", "backbone", "layer1", "layer2.0.conv1"):
        assert parameters_of(ours, [part]) == parameters_of(theirs, [part])


def test_what_has_no_weights_in_a_frozen_backbone_is_frozen_and_the_heads_is_not() -> None:
    """A ViT drops positions and patches beside its parts, and features before its head."""
    size = {"img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 3, "num_classes": 7}
    model = timm.create_model("vit_tiny_patch16_224", drop_rate=0.1, patch_drop_rate=0.1, **size)
    state = prepare(model, _recipe(freeze=["backbone"]), make_setup("32-true", "contiguous"))
    state.set_training()
    training = {name for name, part in model.named_children() if part.training}
    assert {"head", "head_drop"} <= training
    assert not training & {"patch_embed", "pos_drop", "patch_drop", "norm_pre", "blocks", "norm"}
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(model.forward_features(x), model.forward_features(x))


def test_a_frozen_part_keeps_its_weights_and_its_statistics(data: ImageData) -> None:
    before = {name: value.clone() for name, value in _resnet().state_dict().items()}
    after = _trained(_resnet(), _recipe(freeze=["stem", "layer1"]), data).state_dict()
    still = {name for name in before if name.startswith(("conv1.", "bn1.", "layer1."))}
    for name, value in before.items():
        assert torch.equal(value, after[name]) is (name in still), name


def test_a_linear_probe_trains_the_head_on_the_features_of_evaluation(data: ImageData) -> None:
    model = _resnet()
    for norm in model.modules():  # statistics that no batch of these images has
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.uniform_(-0.1, 0.1), norm.running_var.uniform_(0.5, 2)
    recipe = _recipe(
        freeze=["backbone"], optimizer="momentum", momentum=0.0, weight_decay=0.0, epochs=1
    )
    trained = _trained(copy.deepcopy(model), recipe, data)

    from blocklab.training.batches import make_batches

    setup = make_setup("32-true", "contiguous")
    head = copy.deepcopy(model.get_classifier())
    model.eval()
    for images, labels in make_batches(data.train, data, recipe, setup, 3, train=True).epoch(0):
        with torch.no_grad():
            features = model.forward_head(model.forward_features(images), pre_logits=True)
        loss = nn.functional.cross_entropy(head(features), labels)
        gradients = torch.autograd.grad(loss, list(head.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(head.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
    torch.testing.assert_close(trained.get_classifier().weight, head.weight, rtol=1e-4, atol=1e-6)


def test_layers_decay_as_timm_has_it_and_the_head_has_its_own_rate() -> None:
    model = _resnet()
    recipe = _recipe(layer_decay=0.5, head_lr=0.4)
    optimizer = prepare(model, recipe, make_setup("32-true", "contiguous")).optimizer
    shares = {
        id(parameter): group.get("lr_scale", 1.0)
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    expected = {
        id(parameter): group["lr_scale"]
        for group in param_groups_layer_decay(model, layer_decay=0.5)
        for parameter in group["params"]
    }
    head = {id(parameter) for parameter in model.get_classifier().parameters()}
    assert len(set(expected.values())) > 4 and shares.keys() == expected.keys()
    for key, share in shares.items():
        assert share == pytest.approx(4.0 if key in head else expected[key])


@pytest.mark.parametrize("name", ["convnextv2_atto", "mambaout_femto", "inception_next_atto"])
def test_what_follows_the_pool_has_the_heads_rate_as_timms_twin_has(name: str) -> None:
    def shares(model: Any) -> tuple[dict[str, float], int]:
        found = rate_scales(model, _recipe(layer_decay=0.5))
        return {name: found.get(name, 1.0) for name, _ in model.named_parameters()}, len(
            set(found.values())
        )

    ours, layers = shares(create_model(name, num_classes=4))
    theirs, twins = shares(timm.create_model(name, num_classes=4))
    behind = {share for name, share in ours.items() if name.startswith(("pre_logits", "head"))}
    assert behind == {1.0} and layers == twins > 4
    assert sorted(ours.values()) == sorted(theirs.values())


def test_a_head_steps_by_its_own_rate(data: ImageData) -> None:
    def moved(**fields: Any) -> tuple[float, float]:
        recipe = _recipe(
            epochs=1, batch_size=52, optimizer="momentum", momentum=0.0, weight_decay=0.0, **fields
        )
        before, after = _resnet(), _trained(_resnet(), recipe, data)
        return (
            float((after.get_classifier().weight - before.get_classifier().weight).norm()),
            float((after.conv1.weight - before.conv1.weight).norm()),
        )

    (head, stem), (faster, same) = moved(), moved(head_lr=0.3)
    assert faster == pytest.approx(3 * head, rel=1e-4) and same == pytest.approx(stem, rel=1e-6)


def test_a_resumed_run_has_the_bits_of_one_that_was_not_stopped(data: ImageData) -> None:
    recipe = _recipe(freeze=["layer1"], head_lr=0.3, layer_decay=0.9, epochs=3)
    setup = make_setup("32-true", "contiguous")
    whole = _trained(_resnet(), recipe, data)
    state = prepare(_resnet(), recipe, setup)
    next(train(state, data, recipe, setup, seed=3))
    saved = copy.deepcopy(state.to_dict())
    state = prepare(_resnet(), recipe, setup)
    state.load(saved)
    for _ in train(state, data, recipe, setup, seed=3):
        pass
    for name, value in whole.state_dict().items():
        assert torch.equal(value, state.model.state_dict()[name]), name


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"freeze": ["layr1"]}, "no part 'layr1'.*layer1.*Parts: backbone, stem, conv1"),
        ({"freeze": ["layer1.0.act1"]}, "'layer1.0.act1' has no weights"),
        ({"freeze": ["backbone", "fc"]}, "leaves nothing to train"),
    ],
)
def test_parts_that_are_not_there_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        prepare(_resnet(), _recipe(**fields), make_setup("32-true", "contiguous"))


@pytest.mark.parametrize("fields", [{"layer_decay": 0.5}, {"head_lr": 0.5}])
def test_networks_that_do_not_tell_their_parts_are_refused(
    fields: dict[str, Any], network: Callable[[], nn.Module]
) -> None:
    with pytest.raises(InputError, match="does not tell"):
        prepare(network(), _recipe(**fields), make_setup("32-true", "contiguous"))


def test_recipes_of_old_have_no_such_fields() -> None:
    assert not {"freeze", "head_lr", "layer_decay"} & load_recipe("quick").model_dump().keys()
    assert load_recipe("linear_probe").model_dump()["freeze"] == ["backbone"]
    assert load_recipe("finetune").model_dump()["head_lr"] == 5e-3
