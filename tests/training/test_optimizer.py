"""Optimizers: what they decay, that the fused kernels step as the others, what is refused."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from blocklab.errors import InputError
from blocklab.models.factory import create_model
from blocklab.training.optimizer import make_optimizer
from blocklab.training.recipe import Recipe, load_recipe

CPU = torch.device("cpu")
MODELS = ["resnet20", "resnet18_triplet", "res2net50_se", "resnet50_sk", "resnet50_gc", "van_b0"]


def _decay_by_name(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def _undecayed(model: nn.Module) -> set[str]:
    """Names of all that is a norm's, a bias or a layer scale, found by what owns it."""
    norms = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
    found = set()
    for owner, module in model.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            if isinstance(module, norms) or name == "bias" or "layer_scale" in name:
                found.add(f"{owner}.{name}".lstrip("."))
    return found


@pytest.mark.parametrize("name", MODELS)
def test_decay_leaves_out_norms_biases_and_layer_scales(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=10)
    recipe = Recipe(weight_decay=0.03)
    decays = _decay_by_name(model, make_optimizer(model, recipe, torch.device("meta")))
    assert decays.keys() == dict(model.named_parameters()).keys()
    without = _undecayed(model)
    assert {name for name, decay in decays.items() if decay == 0} == without
    assert {decay for name, decay in decays.items() if name not in without} == {0.03}
    if name == "van_b0":
        assert any("layer_scale" in name for name in without)


@pytest.mark.parametrize("name", MODELS)
def test_the_reports_decay_falls_on_all(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=10)
    optimizer = make_optimizer(model, load_recipe("report"), torch.device("meta"))
    decays = _decay_by_name(model, optimizer)
    assert decays.keys() == dict(model.named_parameters()).keys()
    assert set(decays.values()) == {1e-4}
    assert isinstance(optimizer, torch.optim.SGD)
    for group in optimizer.param_groups:
        assert (group["momentum"], group["nesterov"], group["dampening"]) == (0.9, False, 0)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw"])
def test_fused_kernels_step_as_the_equations_in_both_layouts(name: str) -> None:
    def train(fused: bool, memory_format: torch.memory_format) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 10, 3), nn.Conv2d(10, 10, 3, groups=10), nn.Conv2d(10, 5, 1)
        ).to(memory_format=memory_format)  # type: ignore[call-overload]
        optimizer = make_optimizer(model, Recipe(optimizer=name, lr=0.01), CPU)
        assert all(group["fused"] for group in optimizer.param_groups)
        if not fused:
            for group in optimizer.param_groups:
                group["fused"], group["foreach"] = False, False
        images = torch.randn(4, 3, 9, 9).contiguous(memory_format=memory_format)
        for _ in range(4):
            model(images).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}

    expected = train(False, torch.contiguous_format)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.testing.assert_close(train(True, memory_format), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "betas"), [("adamw", (0.7, 0.999)), ("lion", (0.7, 0.99))])
def test_momentum_is_beta1(
    network: Callable[[], nn.Module], name: str, betas: tuple[float, float]
) -> None:
    optimizer = make_optimizer(network(), Recipe(optimizer=name, momentum=0.7), CPU)
    assert all(group["betas"] == betas for group in optimizer.param_groups)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "sdg"}, "did you mean 'sgd'"),
        ({"optimizer": "lookahed_adamw"}, "did you mean 'lookahead_adamw'"),
        ({"optimizer": "8bit_adamw"}, "no optimizer '8bit_adamw'"),
        ({"optimizer": "adagrad", "momentum": 0.5}, "leave momentum out"),
        ({"optimizer": "adan", "momentum": 0.5}, "leave momentum out"),
        ({"optimizer": "adahessian"}, "second derivatives"),
        ({"optimizer": "bnbadam"}, "does not work here"),
        ({"optimizer": "sgd", "momentum": 0.0}, "Nesterov"),
    ],
)
def test_what_cannot_be_driven_is_refused_in_one_line(
    network: Callable[[], nn.Module], changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_optimizer(network(), Recipe.parse(changes), CPU)
    assert "\n" not in str(caught.value)


def test_lookahead_is_the_one_word_before_a_name(network: Callable[[], nn.Module]) -> None:
    optimizer = make_optimizer(network(), Recipe(optimizer="lookahead_adamw"), CPU)
    assert type(optimizer).__name__ == "Lookahead"
    # What has no momentum takes the default, which says nothing.
    assert make_optimizer(network(), Recipe(optimizer="adagrad"), CPU).param_groups


def test_what_a_block_names_is_left_out_wherever_it_stands() -> None:
    """As GCT's authors leave out its bias, of shape (1, C, 1, 1)."""
    model = create_model("resnet20", attention="gct", num_classes=10)
    decays = _decay_by_name(model, make_optimizer(model, Recipe(weight_decay=0.1), CPU))
    named = {name.rpartition(".")[2]: decay for name, decay in decays.items() if "att" in name}
    assert named == {"alpha": 0.1, "gamma": 0.1, "beta": 0.0}
    recipe = Recipe(weight_decay=0.1, decay_norms_and_biases=True)
    assert set(_decay_by_name(model, make_optimizer(model, recipe, CPU)).values()) == {0.1}


def test_what_a_model_names_is_left_out() -> None:
    class Scaled(nn.Conv2d):
        def no_weight_decay(self) -> set[str]:
            return {"scale"}

    model = Scaled(3, 4, 3)
    model.register_parameter("scale", nn.Parameter(torch.ones(4, 1, 1)))
    decays = _decay_by_name(model, make_optimizer(model, Recipe(weight_decay=0.1), CPU))
    assert decays == {"weight": 0.1, "bias": 0.0, "scale": 0.0}
