"""The loop against a slow one in plain PyTorch, bit by bit; and what ends, resumes or breaks it."""

import io
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from timm.data import Mixup
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from blocklab.data.image_data import ImageData
from blocklab.data.loader import Batches
from blocklab.training import loop
from blocklab.training.batches import make_batches
from blocklab.training.device import Setup, choose_setup
from blocklab.training.evaluation import evaluate
from blocklab.training.loop import State, prepare, train
from blocklab.training.recipe import Recipe

Make = Callable[[], nn.Module]

PLAIN: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 16,
    "lr": 0.05,
    "precision": "fp32",
    "memory_format": "contiguous",
}


def _recipe(changes: Mapping[str, Any] | None = None) -> Recipe:
    return Recipe.parse({**PLAIN, **(changes or {})})


def _setup(recipe: Recipe) -> Setup:
    return choose_setup(recipe)


def _run(make: Make, data: ImageData, seed: int = 3, **changes: Any) -> State:
    recipe = _recipe(changes)
    setup = _setup(recipe)
    state = prepare(make(), recipe, setup)
    for _ in train(state, data, recipe, setup, seed):
        pass
    return state


def _seed(seed: int, epoch: int) -> None:
    drawn = np.random.SeedSequence([seed, epoch, 1]).generate_state(2)
    torch.manual_seed(int(drawn[0]))
    np.random.seed(int(drawn[1]))


def _soft_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    targets = torch.full((len(labels), classes), smoothing / classes)
    targets[range(len(labels)), labels] += 1 - smoothing
    return targets


class _Equations:
    """SGD from its equations: g = dL/dw + decay w; m = momentum m + g; w = w - rate m."""

    def __init__(self, parameters: list[nn.Parameter], recipe: Recipe) -> None:
        self.parameters, self.recipe = parameters, recipe
        self.momenta: list[Tensor] = []

    @torch.no_grad()
    def step(self, rate: float) -> None:
        momentum = self.recipe.momentum
        for number, parameter in enumerate(self.parameters):
            gradient = parameter.grad
            assert gradient is not None
            if self.recipe.decay_norms_and_biases or parameter.ndim > 1:
                gradient = gradient + self.recipe.weight_decay * parameter
            if number == len(self.momenta):
                self.momenta.append(gradient.clone())
            else:
                self.momenta[number] = momentum * self.momenta[number] + gradient
            direction = self.momenta[number]
            if self.recipe.optimizer == "sgd":  # Nesterov's
                direction = gradient + momentum * direction
            parameter -= rate * direction


class _Torch:
    """PyTorch's SGD, the parameters parted by hand."""

    def __init__(self, parameters: list[nn.Parameter], recipe: Recipe) -> None:
        decayed = [p for p in parameters if recipe.decay_norms_and_biases or p.ndim > 1]
        rest = [p for p in parameters if not any(p is other for other in decayed)]
        groups = [
            {"params": decayed, "weight_decay": recipe.weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]
        nesterov = recipe.optimizer == "sgd"
        self.sgd = torch.optim.SGD(
            [group for group in groups if group["params"]],
            momentum=recipe.momentum,
            nesterov=nesterov,
            fused=True,
        )

    def step(self, rate: float) -> None:
        for group in self.sgd.param_groups:
            group["lr"] = rate
        self.sgd.step()


def _slow_loop(
    model: nn.Module,
    batches: Batches,
    recipe: Recipe,
    seed: int,
    mix: Mixup | None = None,
    update: type[_Equations] | type[_Torch] = _Torch,
) -> tuple[list[float], list[float], dict[str, Tensor]]:
    """Train as a script does; returns losses, accuracies and averaged weights."""
    updater = update(list(model.parameters()), recipe)
    average: dict[str, Tensor] = {}
    losses, accuracies = [], []
    for epoch in range(recipe.epochs):
        _seed(seed, epoch)
        model.train()
        loss_sum, correct, seen = 0.0, 0, 0
        for step, (images, labels) in enumerate(batches.epoch(epoch)):
            targets: Tensor = labels
            if mix is not None:
                images, targets = mix(images, labels)
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
                logits = model(images)
            smoothing = 0.0 if mix else recipe.label_smoothing
            loss = F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)
            model.zero_grad()
            loss.backward()
            if recipe.clip_grad_norm is not None:
                # Summed in the order of the optimizer's groups: those without decay come first.
                in_order = sorted(model.parameters(), key=lambda parameter: parameter.ndim > 1)
                nn.utils.clip_grad_norm_(in_order, recipe.clip_grad_norm)
            updater.step(recipe.learning_rate(epoch + step / len(batches)))
            if recipe.ema_decay is not None:
                done = epoch * len(batches) + step  # steps before this one
                decay = recipe.ema_decay if done else 0.0
                if recipe.ema_warmup:
                    decay = min(decay, 1 - (1 + done) ** (-2 / 3))
                for name, tensor in model.state_dict().items():
                    if name not in average:
                        average[name] = tensor.clone()
                    elif tensor.is_floating_point():
                        average[name].lerp_(tensor, 1 - decay)
            loss_sum += loss.double().item() * len(labels)
            correct += int((logits.argmax(1) == labels).sum())
            seen += len(labels)
        losses.append(loss_sum / seen)
        accuracies.append(100 * correct / seen)
    return losses, accuracies, average


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "momentum", "decay_norms_and_biases": True, "drop_last": False},
        {"optimizer": "sgd", "label_smoothing": 0.1, "crop_padding": 1, "flip": True},
        {"optimizer": "sgd", "clip_grad_norm": 0.1, "normalize": "half", "cutout": 2},
        {"optimizer": "sgd", "precision": "bf16", "memory_format": "channels_last"},
    ],
    ids=["report", "smooth", "clip", "bf16"],
)
def test_the_loop_is_the_slow_loop_to_the_bit(
    network: Make, data: ImageData, changes: dict[str, Any]
) -> None:
    recipe = _recipe({"weight_decay": 0.01, **changes})
    setup = _setup(recipe)
    batches = make_batches(data.train, data, recipe, setup, 3, train=True)
    assert len(batches) == (3 if recipe.drop_last else 4)  # 52 images: the last batch has 4
    model = network().to(memory_format=setup.memory_format)  # type: ignore[call-overload]
    losses, accuracies, _ = _slow_loop(model, batches, recipe, 3)
    state = _run(network, data, **{"weight_decay": 0.01, **changes})
    assert [record["train_loss"] for record in state.log] == losses
    assert [record["train_top1_percent"] for record in state.log] == accuracies
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state.model.state_dict()[name]), name


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
@pytest.mark.parametrize("all_decay", [True, False])
def test_sgd_is_its_equations(
    network: Make, data: ImageData, optimizer: str, all_decay: bool
) -> None:
    changes = {
        "optimizer": optimizer,
        "decay_norms_and_biases": all_decay,
        "weight_decay": 0.1,
        "epochs": 2,
        "lr": 0.01,
    }
    recipe = _recipe(changes)
    batches = make_batches(data.train, data, recipe, _setup(recipe), 3, train=True)
    model = network()
    losses = _slow_loop(model, batches, recipe, 3, update=_Equations)[0]
    state = _run(network, data, **changes)
    assert [record["train_loss"] for record in state.log] == pytest.approx(losses, rel=1e-5)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(state.model.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "alphas", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 1.0}], ids=str
)
def test_mixed_images_train_as_in_the_slow_loop(
    network: Make, data: ImageData, alphas: dict[str, float]
) -> None:
    changes = {**alphas, "label_smoothing": 0.1, "epochs": 2}
    recipe = _recipe(changes)
    mix = Mixup(recipe.mixup, recipe.cutmix, label_smoothing=0.1, num_classes=7)
    batches = make_batches(data.train, data, recipe, _setup(recipe), 3, train=True)
    model = network()
    losses, _, _ = _slow_loop(model, batches, recipe, 3, mix)
    state = _run(network, data, **changes)
    assert [record["train_loss"] for record in state.log] == losses
    assert state.log[0]["train_top1_percent"] is None  # of mixed images it would mean nothing
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state.model.state_dict()[name]), name


def test_smoothing_is_the_formula_with_and_without_mixing() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 7), torch.randint(7, (6,))
    expected = -(_soft_targets(labels, 7, 0.2) * logits.log_softmax(1)).sum(1).mean()
    loss = F.cross_entropy(logits, labels, label_smoothing=0.2)
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    mix = loop._mixing(_recipe({"mixup": 0.4, "label_smoothing": 0.2}), 7)
    assert mix is not None
    images = torch.randn(6, 3, 2, 2)
    np.random.seed(0)
    mixed, targets = mix(images.clone(), labels)
    pair = _soft_targets(labels, 7, 0.2)
    share = ((mixed - images.flip(0)) / (images - images.flip(0))).median()
    assert 0 < share < 1
    torch.testing.assert_close(targets, share * pair + (1 - share) * pair.flip(0))


@pytest.mark.parametrize("warmup", [True, False])
def test_averaged_weights_are_what_is_evaluated(
    network: Make, data: ImageData, warmup: bool
) -> None:
    recipe = _recipe(
        {"ema_decay": 0.8, "ema_warmup": warmup, "epochs": 4}
    )  # 12 steps: the decay rises to it, and holds
    batches = make_batches(data.train, data, recipe, _setup(recipe), 3, train=True)
    model = network()
    average = _slow_loop(model, batches, recipe, 3)[2]
    state = _run(network, data, ema_decay=0.8, ema_warmup=warmup, epochs=4)
    judged = state.evaluated.state_dict()
    for name, tensor in average.items():
        if name.endswith("num_batches_tracked"):
            continue
        torch.testing.assert_close(judged[name], tensor, rtol=1e-5, atol=1e-6)
    assert not torch.equal(judged["0.weight"], state.model.state_dict()["0.weight"])
    setup = _setup(recipe)
    found = evaluate(state.evaluated, data, "validation", recipe, setup)[0]
    assert found["validation_loss"] == state.log[-1]["validation_loss"]
    other = evaluate(state.model, data, "validation", recipe, setup)[0]
    assert found["validation_loss"] != other["validation_loss"]


@pytest.mark.parametrize("optimizer", ["lookahead_sgd", "lookahead_adamw"])
def test_lookaheads_slow_weights_are_evaluated(
    network: Make, data: ImageData, optimizer: str
) -> None:
    """Wherever in its cycle of six steps an epoch ends; before the first cycle it has none yet."""
    recipe = _recipe({"optimizer": optimizer, "lr": 0.01, "schedule": "constant", "freeze": []})
    assert (steps := len(data.train) // recipe.batch_size) % 6
    state = prepare(network(), recipe, setup := _setup(recipe))
    for _ in train(state, data, recipe, setup, 3):
        for parameter in state.model.parameters():
            found = state.optimizer.state_dict()["state"]
            slow = [one["lookahead_slow_buff"] for one in found.values()]
            assert any(torch.equal(parameter, one) for one in slow)
            assert parameter.grad is None
    assert state.log[-1]["epoch"] * steps > 6


@pytest.mark.parametrize(
    "changes",
    [
        {"flip": True, "crop_padding": 1, "drop_last": False},
        {"ema_decay": 0.9, "mixup": 0.2, "cutmix": 1.0},
        {"optimizer": "adamw", "lr": 0.01, "clip_grad_norm": 1.0, "memory_format": "channels_last"},
        {"precision": "bf16", "schedule": "onecycle"},
        {"optimizer": "lookahead_adamw", "lr": 0.01, "epochs": 4},
    ],
    ids=["augmented", "averaged", "adamw", "bf16", "lookahead"],
)
def test_resuming_after_any_epoch_gives_the_same_bits(
    network: Make, data: ImageData, changes: dict[str, Any]
) -> None:
    recipe = _recipe(changes)
    setup = _setup(recipe)
    whole = prepare(network(), recipe, setup)
    checkpoints = []
    for _ in train(whole, data, recipe, setup, 3):
        buffer = io.BytesIO()
        torch.save(whole.to_dict(), buffer)
        checkpoints.append(buffer)
    for epochs, buffer in enumerate(checkpoints, 1):
        buffer.seek(0)
        torch.manual_seed(99)  # nothing may depend on where the generators were
        np.random.seed(99)
        state = prepare(network(), recipe, setup)
        state.load(torch.load(buffer, weights_only=True))
        assert state.epochs_done == epochs
        for _ in train(state, data, recipe, setup, 3):
            pass
        assert _untimed(state) == _untimed(whole)
        for name, tensor in whole.evaluated.state_dict().items():
            assert torch.equal(tensor, state.evaluated.state_dict()[name]), name


def _untimed(state: State) -> list[dict[str, Any]]:
    timings = {"train_seconds", "images_per_second", "loop_overhead_percent"}
    return [{k: v for k, v in record.items() if k not in timings} for record in state.log]


def test_other_seeds_give_other_bits_and_the_same_seed_the_same(
    network: Make, data: ImageData
) -> None:
    first, again, other = (_run(network, data, seed) for seed in (1, 1, 2))
    assert _untimed(first) == _untimed(again)
    assert _untimed(first) != _untimed(other)


class _Draws(nn.Module):
    """A network that leaves a batch as it is or halves it, as a draw from one generator says."""

    def __init__(self, inner: nn.Module, draw: Callable[[], float]) -> None:
        super().__init__()
        self.inner, self.draw = inner, draw

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images if self.training and self.draw() < 0.5 else images / 2)


@pytest.mark.parametrize("draw", [random.random, np.random.random, lambda: float(torch.rand(1))])
def test_whatever_generator_a_block_draws_from_a_seed_gives_the_same_bits(
    network: Make, data: ImageData, draw: Callable[[], float]
) -> None:
    recipe = _recipe({"epochs": 2})
    setup = _setup(recipe)
    losses = []
    for _ in range(2):
        state = prepare(_Draws(network(), draw), recipe, setup)
        losses.append([record["train_loss"] for record in train(state, data, recipe, setup, 1)])
    assert losses[0] == losses[1]


class _Breaks(nn.Module):
    """A network whose outputs are not numbers from a given step on."""

    def __init__(self, inner: nn.Module, step: int, value: float) -> None:
        super().__init__()
        self.inner, self.step, self.value, self.steps = inner, step, value, 0

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.steps += 1
        logits = self.inner(images)
        return logits * self.value if self.training and self.steps == self.step else logits


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_run_with_its_epoch(
    network: Make, data: ImageData, value: float
) -> None:
    state = _run(lambda: _Breaks(network(), 5, value), data)  # 3 steps an epoch: in the second
    assert state.diverged
    assert [record["epoch"] for record in state.log] == [1, 2]
    assert state.log[1]["train_loss"] is None
    assert "validation_loss" not in state.log[1]
    assert state.log[0]["train_loss"] is not None


def test_weights_that_overflow_in_the_last_step_are_not_a_result(
    network: Make, data: ImageData
) -> None:
    class LastStep(_Breaks):
        def forward(self, images: Tensor) -> Tensor:
            logits = super().forward(images)
            if self.training and self.steps == self.step:
                logits.register_hook(lambda gradient: gradient * math.inf)
            return logits

    state = _run(lambda: LastStep(network(), 3, 1.0), data, epochs=1)
    assert state.log[0]["train_loss"] is not None  # the loss was still a number
    assert state.diverged
    assert "validation_loss" not in state.log[0]


@pytest.mark.parametrize("clip", [None, 1.0])
def test_exploding_gradients_end_in_divergence_not_in_an_error(
    network: Make, data: ImageData, clip: float | None
) -> None:
    state = _run(network, data, lr=1e30, clip_grad_norm=clip)
    assert state.diverged


@pytest.mark.parametrize("every", [False, True])
def test_the_test_set_is_read_only_where_the_recipe_says(
    network: Make, data: ImageData, every: bool
) -> None:
    class Guarded(ImageData):
        @property
        def test(self) -> Any:  # type: ignore[override]
            raise AssertionError("the test set was read")

    if every:
        state = _run(network, data, test_every_epoch=True)
        assert all("test_top1_percent" in record for record in state.log)
        return
    guarded = object.__new__(Guarded)
    fields = (name for name in data.__dataclass_fields__ if name != "test")
    guarded.__dict__.update({name: getattr(data, name) for name in fields})
    state = _run(network, guarded)
    assert all("test_top1_percent" not in record for record in state.log)


def test_without_validation_images_none_are_measured(network: Make, data: ImageData) -> None:
    none = replace(data.validation, indices=data.validation.indices[:0])
    state = _run(network, replace(data, validation=none), epochs=1)
    assert "validation_loss" not in state.log[0]


@pytest.mark.parametrize(("drop_last", "steps"), [(True, 3), (False, 4)])
def test_on_step_is_told_of_each_step(
    network: Make, data: ImageData, drop_last: bool, steps: int
) -> None:
    recipe = _recipe({"epochs": 2, "drop_last": drop_last})
    setup = _setup(recipe)
    told: list[tuple[int, int]] = []
    state = prepare(network(), recipe, setup)
    for _ in train(state, data, recipe, setup, 0, lambda *step: told.append(step)):
        pass
    assert told == 2 * [(step + 1, steps) for step in range(steps)]


def test_compiling_goes_through_torch_compile_with_fixed_shapes(
    network: Make, data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def compile(model: nn.Module, **options: Any) -> nn.Module:
        asked.append(options)
        return model

    monkeypatch.setattr(torch, "compile", compile)
    for how in ("on", "max-autotune", "off"):
        recipe = _recipe({"epochs": 1, "compile": how})
        setup = choose_setup(recipe)
        list(train(prepare(network(), recipe, setup), data, recipe, setup, 0))
    # A graph for any size, made when the last batch comes, would make bits depend on a resume.
    assert asked == [
        {"dynamic": False, "mode": None},
        {"dynamic": False, "mode": "max-autotune"},
    ]


@pytest.mark.slow
def test_a_compiled_network_trains_to_rounding(network: Make, data: ImageData) -> None:
    plain, compiled = (_run(network, data, compile=how, drop_last=False) for how in ("off", "on"))
    for old, new in zip(plain.log, compiled.log, strict=True):
        assert new["train_loss"] == pytest.approx(old["train_loss"], rel=1e-4)


def _images(batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    return batches.epoch(0)


def test_evaluation_is_torchmetrics_and_says_each_image(network: Make, data: ImageData) -> None:
    recipe = _recipe()
    setup = _setup(recipe)
    model = network()
    record, images = evaluate(model, data, "test", recipe, setup)
    batches = make_batches(data.test, data, recipe, setup, 0, train=False)
    logits, labels = (torch.cat(rows) for rows in zip(*_forward(model, batches), strict=True))
    for name, k in (("top1", 1), ("top5", 5)):
        metric = MulticlassAccuracy(7, top_k=k, average="micro")
        expected = 100 * metric(logits, labels).item()
        assert record[f"test_{name}_percent"] == pytest.approx(expected, rel=1e-6)
    losses = F.cross_entropy(logits, labels, reduction="none")
    assert record["test_loss"] == pytest.approx(losses.double().mean().item())
    assert np.array_equal(images["labels"], data.test.targets)
    assert np.array_equal(images["top5"], logits.topk(5).indices.numpy())
    np.testing.assert_allclose(images["loss"], losses.numpy(), rtol=1e-6)


def _forward(model: nn.Module, batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    model.eval()
    with torch.no_grad():
        for images, labels in _images(batches):
            yield model(images), labels


def test_fewer_classes_than_five_count_as_far_as_they_go(network: Make, data: ImageData) -> None:
    few = replace(data, class_names=("a", "b", "c"))
    few = replace(few, test=replace(data.test, labels=data.test.labels % 3))
    model = nn.Sequential(network(), nn.Linear(7, 3))
    record, images = evaluate(model, few, "test", _recipe(), _setup(_recipe()))
    assert record["test_top5_percent"] == 100
    assert images["top5"].shape == (23, 3)
