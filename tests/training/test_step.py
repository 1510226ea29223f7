"""One step: parts of a batch, fp16's scaled loss, counters set aside, weights cast together."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from timm.layers.std_conv import StdConv2d
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab.kernels.depthwise import DepthwiseConv2d
from blocklab.measure.numerics import arithmetic
from blocklab.models.factory import create_model
from blocklab.training.device import Setup, make_setup
from blocklab.training.loop import State, prepare
from blocklab.training.recipe import Recipe
from blocklab.training.step import BatchCounters, TrainingStep, _pairs
from blocklab.training.weight_casts import MULTIPLYING, WeightCasts

CLASSES = 5


def network() -> nn.Module:
    """A network without BatchNorm, whose statistics would be those of each part."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)
    )


def batch(count: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, 6, 8, generator=generator)
    return images, torch.randint(CLASSES, (count,), generator=generator)


def stepped(
    recipe: Recipe, setup: Setup, steps: int = 3, model: nn.Module | None = None
) -> tuple[State, TrainingStep]:
    images, labels = batch()
    model = network() if model is None else model
    model(images)
    state = prepare(model, recipe, setup)
    wrapped, optimizer = setup.fabric.setup(state.model, state.optimizer)
    step = TrainingStep(state.model, wrapped, optimizer, state.average, recipe, setup)
    step.start_epoch()
    for number in range(steps):
        step.set_rates(recipe.lr, number)
        step(images, labels, labels, len(labels))
    return state, step


def weights(state: State) -> Tensor:
    return nn.utils.parameters_to_vector(state.model.parameters()).detach()


@pytest.mark.parametrize("parts", [2, 5, 6])
def test_a_batch_in_parts_is_the_batch_to_rounding(parts: int) -> None:
    setup = make_setup("32-true", "contiguous")
    whole, summed = stepped(Recipe(batch_size=12, lr=0.1, clip_grad_norm=1.0), setup)
    recipe = Recipe(batch_size=12, lr=0.1, clip_grad_norm=1.0, accumulate=parts)
    pieces, again = stepped(recipe, setup)
    torch.testing.assert_close(weights(pieces), weights(whole), rtol=1e-5, atol=1e-6)
    assert float(again.loss_sum) == pytest.approx(float(summed.loss_sum), rel=1e-6)
    assert int(again.correct) == int(summed.correct)


def half_setup() -> Setup:
    """fp16 on the processor, which no user may ask for: the scaler is the same."""
    plugin = MixedPrecision("16-mixed", "cpu")
    return Setup(Fabric(accelerator="cpu", devices=1, plugins=plugin), "16-mixed", "contiguous")


def test_fp16_trains_as_float32_does_and_clips_what_was_unscaled() -> None:
    recipe = Recipe(batch_size=12, lr=0.1, clip_grad_norm=0.5)
    exact, _ = stepped(recipe, make_setup("32-true", "contiguous"))
    state, step = stepped(recipe, half_setup())
    torch.testing.assert_close(weights(state), weights(exact), rtol=0.05, atol=5e-3)
    assert int(step.skipped) == 0


def network_of(_: State) -> nn.Module:
    model = network()
    model(batch()[0])
    return model


def test_a_step_that_overflows_is_left_out_and_counted() -> None:
    setup = half_setup()
    assert setup.scaler is not None
    model = network()
    model(batch()[0])
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    # At a scale beyond float16 every gradient is infinite, until it has halved often enough.
    setup.scaler.load_state_dict(setup.scaler.state_dict() | {"scale": 2.0**60})
    state, step = stepped(Recipe(batch_size=12, lr=0.1), setup, steps=2, model=model)
    assert int(step.skipped) == 2
    assert setup.scaler.get_scale() == 2.0**58
    torch.testing.assert_close(weights(state), before, rtol=0, atol=0)


def test_the_scale_is_in_the_checkpoint() -> None:
    state, _ = stepped(Recipe(batch_size=12, lr=0.1), half_setup())
    assert state.scaler is not None
    state.scaler.load_state_dict(state.scaler.state_dict() | {"scale": 128.0})
    saved = state.to_dict()
    other = prepare(network_of(state), Recipe(batch_size=12, lr=0.1), half_setup())
    other.load(saved)
    assert other.scaler is not None
    assert other.scaler.state_dict()["scale"] == 128.0


def test_counters_are_whole_after_an_epoch() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    average = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    frozen: Any = model[2].eval()
    with BatchCounters(model, average).aside(7):
        assert model[1].num_batches_tracked is None
        model(torch.randn(2, 3, 4, 5))
    assert int(model[1].num_batches_tracked) == 7  # type: ignore[arg-type]
    assert int(frozen.num_batches_tracked) == 0
    assert int(average[1].num_batches_tracked) == 7  # type: ignore[arg-type]
    assert model.state_dict().keys() == average.state_dict().keys()


def test_a_norm_that_cannot_do_without_its_counter_keeps_it() -> None:
    model = nn.Sequential(nn.SyncBatchNorm(3))
    with BatchCounters(model, None).aside(7):
        assert model[0].num_batches_tracked is not None
    assert int(model[0].num_batches_tracked) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize(("images", "parts"), [(12, 4), (7, 3), (5, 2), (2, 1)])
def test_no_part_has_a_single_image(images: int, parts: int) -> None:
    recipe = Recipe(batch_size=12, accumulate=4, drop_last=False)
    _, step = stepped(recipe, make_setup("32-true", "contiguous"), steps=0)
    assert step.parts(images) == parts
    assert all(len(part) >= 2 for part in torch.arange(images).tensor_split(parts))


def test_counters_come_back_after_an_error() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3))
    with pytest.raises(ValueError, match="midway"), BatchCounters(model, None).aside(1):
        raise ValueError("midway")
    assert model[0].num_batches_tracked is not None


def learnt(model: nn.Module, images: torch.Tensor) -> WeightCasts:
    """Return the casts of a model that has seen its first pass."""
    casts = WeightCasts(model, torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), casts.in_place():
        model(images)
    return casts


def test_weights_cast_together_give_autocasts_bits() -> None:
    images, labels = batch()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten())
    tied = model[2]
    model = nn.Sequential(*model, nn.Linear(4 * 2 * 4, CLASSES))
    found = []
    for together in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            if together:
                with learnt(model, images).in_place():
                    assert tied.weight.dtype == torch.bfloat16
                    logits = model(images)
            else:
                logits = model(images)
        F.cross_entropy(logits.float(), labels).backward()
        assert isinstance(tied.weight, nn.Parameter)
        found.append([logits.detach(), *(p.grad for p in model.parameters())])
    for one, other in zip(*found, strict=True):
        assert one is not None and other is not None and other.dtype == one.dtype
        assert torch.equal(one, other)


def test_layers_that_do_more_with_their_weights_cast_them_themselves() -> None:
    """Standardised after rounding they would be others; a hook makes them anew."""
    standardised = StdConv2d(3, 4, 3)
    normed = nn.utils.weight_norm(nn.Linear(4, 4))
    ours = DepthwiseConv2d(4, 3)
    model = nn.Sequential(standardised, ours, normed, nn.Linear(4, 4))
    with learnt(model, torch.rand(2, 3, 4, 4)).in_place():
        assert standardised.weight.dtype == torch.float32
        assert {p.dtype for p in normed.parameters()} == {torch.float32}
        assert ours.weight.dtype == model[3].weight.dtype == torch.bfloat16


class LeavesAutocast(nn.Module):
    """Multiplies by one of its layers in single precision, and reads a weight of another."""

    def __init__(self) -> None:
        super().__init__()
        self.single, self.both, self.read = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.head = nn.Linear(3, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.both(x)
        with torch.autocast(x.device.type, enabled=False):
            x = self.both(self.single(x.float()))
            x = x * self.read.weight.square().mean()
        return self.head(x.mean((2, 3)))


def test_a_block_may_leave_autocast() -> None:
    images, labels = batch()
    model, found = LeavesAutocast(), []
    for casts in (None, learnt(model, images)):
        model.zero_grad()
        together = nullcontext() if casts is None else casts.in_place()
        with torch.autocast("cpu", torch.bfloat16), together:
            assert (model.head.weight.dtype == torch.float32) == (casts is None)
            logits = model(images)
        F.cross_entropy(logits.float(), labels).backward()
        found.append([logits.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) == 8
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("name", ["resnet50_triplet", "van_b0", "replknet_31n", "convnext_tiny"])
def test_all_layers_of_our_networks_are_cast_together(name: str) -> None:
    model = create_model(name, num_classes=4).eval()
    with learnt(model, torch.rand(1, 3, 32, 32)).in_place():
        layers = [part for part in model.modules() if isinstance(part, MULTIPLYING)]
        assert layers and all(part.weight.dtype == torch.bfloat16 for part in layers)


def test_a_parameter_of_two_names_is_averaged_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(2, 2)
            self.other = self.one

    model = Tied()
    average = ModelEmaV3(model, decay=0.9).module
    with torch.no_grad():
        model.one.weight.fill_(1.0)
        average.one.weight.fill_(0.0)
    ours, averaged = _pairs(model, average)
    assert len(ours) == len(averaged) == 2  # weight and bias
    torch._foreach_lerp_(averaged, ours, weight=0.1)
    torch.testing.assert_close(average.other.weight, torch.full((2, 2), 0.1))


def test_what_is_deterministic_is_so_within_a_run_alone() -> None:
    with arithmetic(torch.device("cpu"), deterministic=True):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    described = replace(make_setup("32-true", "contiguous"), deterministic=True).describe()
    assert described["deterministic"] is True
    assert "deterministic" not in make_setup("32-true", "contiguous").describe()


def test_fields_that_change_nothing_are_no_part_of_a_run() -> None:
    plain = Recipe().model_dump(mode="json")
    assert not {"accumulate", "cuda_graph", "deterministic"} & plain.keys()
    changed = Recipe(accumulate=2, cuda_graph="off", deterministic=True).model_dump(mode="json")
    assert {"accumulate", "cuda_graph", "deterministic"} <= changed.keys()
    assert Recipe.parse(changed).accumulate == 2
