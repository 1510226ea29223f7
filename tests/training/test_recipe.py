"""Recipes: fields to the letter, rates against PyTorch's and timm's, what is refused."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, StepLR

from blocklab.data.image_data import open_data
from blocklab.data.spec import DataSpec
from blocklab.errors import InputError
from blocklab.study.study import Study
from blocklab.training.batches import make_batches
from blocklab.training.recipe import Recipe, load_recipe, recipe_names


def test_report_is_the_reports_section_three_to_the_letter() -> None:
    recipe = load_recipe("report")
    said = {
        "epochs": 50,
        "batch_size": 256,
        "drop_last": False,
        "optimizer": "momentum",  # timm's name of SGD without Nesterov
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "decay_norms_and_biases": True,
        "lr": 0.1,
        "schedule": "step",
        "step_epochs": 30,
        "step_factor": 0.1,
        "warmup_epochs": 0,
        "label_smoothing": 0,
        "mixup": 0,
        "cutmix": 0,
        "flip": True,
        "crop_padding": 0,
        "cutout": 0,
        "normalize": "half",
        "ema_decay": None,
        "clip_grad_norm": None,
        "test_every_epoch": True,
    }
    assert {name: getattr(recipe, name) for name in said} == said


def test_the_reports_res2net_scripts_crop_and_normalise_otherwise() -> None:
    base, res2net = load_recipe("report").model_dump(), load_recipe("report_res2net").model_dump()
    changed = {name: value for name, value in res2net.items() if value != base[name]}
    assert changed == {"crop_padding": 4, "normalize": "cifar10"}


@pytest.mark.parametrize(
    ("normalize", "mean", "std"),
    [
        ("half", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("cifar10", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        ("dataset", None, None),
    ],
)
def test_images_are_normalised_as_the_recipe_says(
    normalize: str, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> None:
    data = open_data(DataSpec.parse({"source": "digits", "train_images": 20, "test_images": 20}))
    recipe = Recipe.parse({"normalize": normalize, "batch_size": 20})
    place = {"device": torch.device("cpu"), "memory_format": torch.contiguous_format}
    batches = make_batches(data.test, data, recipe, cast(Any, SimpleNamespace(**place)), 0, False)
    images, _ = next(iter(batches.epoch(0)))
    rows = data.test.images[data.test.indices]
    pixels = torch.from_numpy(rows).permute(0, 3, 1, 2).double() / 255
    by = torch.tensor([mean or data.mean, std or data.std]).double().view(2, 3, 1, 1)
    torch.testing.assert_close(images.double(), (pixels - by[0]) / by[1], rtol=0, atol=1e-5)


def test_strong_is_what_the_field_does() -> None:
    recipe = load_recipe("strong")
    assert (recipe.schedule, recipe.warmup_epochs) == ("cosine", 5)
    assert (recipe.label_smoothing, recipe.crop_padding, recipe.flip) == (0.1, 4, True)
    assert (recipe.weight_decay, recipe.decay_norms_and_biases) == (5e-4, False)
    assert not recipe.test_every_epoch
    for change in ({"ema_decay": 0.999}, {"schedule": "onecycle", "warmup_epochs": 0}):
        load_recipe("strong", change)


def test_quick_is_quick() -> None:
    assert load_recipe("quick").epochs <= 10
    assert not load_recipe("quick").test_every_epoch


def _optimizer(lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)


def _rates(optimizer: torch.optim.Optimizer, scheduler: LRScheduler, count: int) -> list[float]:
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_step_is_pytorchs() -> None:
    recipe = load_recipe("report")
    optimizer = _optimizer(0.1)
    expected = _rates(optimizer, StepLR(optimizer, 30, 0.1), 50)
    for part in (0.0, 0.5, 0.999):  # a rate holds for the whole of its epoch
        ours = [recipe.learning_rate(epoch + part) for epoch in range(50)]
        assert ours == pytest.approx(expected)


def test_cosine_is_pytorchs() -> None:
    recipe = Recipe(epochs=4, lr=0.3, min_lr_ratio=0.1)
    optimizer = _optimizer(0.3)
    expected = _rates(optimizer, CosineAnnealingLR(optimizer, 40, 0.03), 41)
    assert [recipe.learning_rate(step / 10) for step in range(41)] == pytest.approx(expected)


def test_cosine_with_warm_up_is_timms() -> None:
    recipe = Recipe(epochs=6, lr=0.3, warmup_epochs=1.5, min_lr_ratio=0.01)
    scheduler = CosineLRScheduler(
        _optimizer(0.3),
        t_initial=45,
        lr_min=0.003,
        warmup_t=15,
        warmup_lr_init=0.0,
        warmup_prefix=True,
        t_in_epochs=False,
    )
    for step in range(60):
        scheduler.step_update(step)
        rate = scheduler.optimizer.param_groups[0]["lr"]
        assert recipe.learning_rate(step / 10) == pytest.approx(rate), step


def test_one_cycle_is_pytorchs() -> None:
    recipe = Recipe(epochs=5, lr=0.2, schedule="onecycle", onecycle_peak=0.3)
    optimizer = _optimizer(0.2)
    # PyTorch counts its peak and its end one step early: 51 steps end where our 50 do.
    scheduler = OneCycleLR(optimizer, 0.2, total_steps=51, pct_start=16 / 51, final_div_factor=1e12)
    expected = _rates(optimizer, scheduler, 50)
    assert [recipe.learning_rate(step / 10) for step in range(50)] == pytest.approx(expected)
    assert recipe.learning_rate(5) == pytest.approx(0)


def test_constant_stays() -> None:
    recipe = Recipe(epochs=3, schedule="constant", lr=0.05, warmup_epochs=1)
    assert [recipe.learning_rate(e) for e in (0.5, 1, 2.9)] == pytest.approx([0.025, 0.05, 0.05])


def test_augmentations_that_are_not_used_are_no_part_of_a_run() -> None:
    later = ("random_resized_crop", "trivial_augment", "random_erasing")
    plain = load_recipe("quick").model_dump(mode="json")
    assert not set(later) & set(plain)
    assert load_recipe("quick", {"random_resized_crop": False}).model_dump(mode="json") == plain
    fields = {"crop_padding": 0, "random_resized_crop": True, "trivial_augment": True}
    recipe = load_recipe("quick", {**fields, "random_erasing": 0.25})
    given = recipe.model_dump(mode="json")
    assert given["random_resized_crop"] == {"scale": [0.08, 1.0], "ratio": [0.75, 4 / 3]}
    assert Recipe.parse(given) == recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epohcs": 3}, "did you mean 'epochs'"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": -1}, "epochs"),
        ({"epochs": 2.5}, "epochs"),
        ({"batch_size": 1}, "BatchNorm needs two"),
        ({"batch_size": -8}, "batch_size"),
        ({"crop_padding": -1}, "crop_padding"),
        ({"cutout": -4}, "cutout"),
        ({"warmup_epochs": 9, "schedule": "cosine"}, "longer than the 5 epochs"),
        ({"warmup_epochs": 1}, "one-cycle rises by itself"),
        ({"mixup": 0.2, "batch_size": 33}, "even batch_size"),
        ({"cutmix": 1.0, "drop_last": False}, "drop_last=true"),
        ({"lr": "fast"}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"lr": None}, "lr"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"cutout": True}, "cutout is a number, not true"),  # YAML's yes; it was 1 pixel
        ({"lr": True}, "lr is a number, not true"),
        ({"ema_decay": False}, "ema_decay is a number, not false"),
        ({"clip_grad_norm": 0}, "clip_grad_norm"),
        ({"schedule": "cosin"}, "schedule"),
        ({"memory_format": "channel_last"}, "'contiguous' or 'channels_last'"),
        ({"precision": "fp8"}, "'bf16' or 'fp16'"),
        ({"accumulate": 9, "batch_size": 16}, "set accumulate=8 or less"),
        ({"cuda_graph": "maybe"}, "'off', 'auto' or 'on'"),
        ({"compile": "maybe"}, "'off', 'auto', 'on', 'reduce-overhead', 'max-autotune' or"),
        ({"compile": "reduced-overhead"}, "did you mean 'reduce-overhead'"),
        ({"compile": "reduce-overhead", "cuda_graph": "on"}, "set cuda_graph=off, or compile=on"),
        ({"compile": "max-autotune", "accumulate": 2}, "set accumulate=1, or compile=on"),
        ({"random_erasing": 1.5}, "random_erasing"),
        ({"random_erasing": True}, "random_erasing is a number, not true"),
        ({"trivial_augment": 3}, "trivial_augment: .*true or false"),
        ({"random_resized_crop": True, "crop_padding": 4}, "set crop_padding=0, or random_res"),
        ({"random_resized_crop": {"scale": [0, 1]}}, "scale is two shares .* .0.08, 1"),
        ({"random_resized_crop": {"scale": [1, 0.5]}}, "the smaller first, not .1.0, 0.5"),
        ({"random_resized_crop": {"scale": 0.5}}, "random_resized_crop.scale"),
        ({"random_resized_crop": {"scael": [0.1, 1]}}, "did you mean 'scale'"),
        ({"random_resized_crop": {"ratio": [-1, 1]}}, "ratio is two ratios .* .0.75, 1.333"),
        ({"random_resized_crop": {"ratio": [0.5, float("inf")]}}, "ratio"),
        ({"random_resized_crop": 3}, "random_resized_crop"),
    ],
)
def test_wrong_fields_are_refused_in_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_recipe("quick", changes)
    assert "\n" not in str(caught.value)


def test_what_yaml_reads_as_text_or_truth_is_taken_for_what_was_meant(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("lr: 1e-3\nweight_decay: 5e-4\ncompile: on\nflip: no\n")
    recipe = load_recipe(str(file))
    assert (recipe.lr, recipe.weight_decay) == (0.001, 0.0005)
    assert (recipe.compile, recipe.flip) == ("on", False)
    assert load_recipe("quick", {"compile": False}).compile == "off"


@pytest.mark.parametrize(
    ("text", "message"),
    [("- 1\n", "holds no recipe"), ("epohcs: 1\n", "did you mean"), ("lr: [\n", "mine.yaml")],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_recipe(str(file))
    assert "\n" not in str(caught.value)


def test_unknown_recipe_names_the_closest() -> None:
    assert recipe_names() == [
        "finetune",
        "linear_probe",
        "quick",
        "report",
        "report_res2net",
        "strong",
    ]
    with pytest.raises(InputError, match="did you mean 'quick'"):
        load_recipe("quik")


def test_an_average_longer_than_a_tenth_of_the_run_is_said() -> None:
    recipe = load_recipe("quick", {"epochs": 24, "batch_size": 100, "ema_decay": 0.999})
    assert recipe.steps(950) == 216
    assert recipe.warning(950) == (
        "ema_decay 0.999 averages over some 36 steps, more than a tenth of the run's 216; "
        "0.95 or less suits it"
    )
    whole = recipe.model_copy(update={"ema_warmup": False}).warning(950)
    assert whole and "over some 1,000 steps" in whole
    # timm's usual one, of a run of 35,100 steps, has risen to 0.99907 when it ends.
    usual = {"epochs": 100, "batch_size": 128, "ema_decay": 0.9999}
    assert load_recipe("quick", usual).warning(45_000) is None
    always = load_recipe("quick", {**usual, "ema_warmup": False}).warning(45_000)
    assert always and always.endswith("35,100; 0.9997 or less suits it")
    short = load_recipe("quick", {"epochs": 1, "batch_size": 16, "ema_decay": 0.9}).warning(64)
    assert short and short.endswith("leave ema_decay out")
    assert load_recipe("quick", {"ema_decay": 0.95}).warning(1_000_000) is None
    assert load_recipe("quick").warning(10) is None
    assert load_recipe("report", {"batch_size": 100}).steps(950) == 500  # the last batch of half


def test_a_warmed_average_is_part_of_a_runs_definition_where_there_is_one() -> None:
    assert "ema_warmup" not in load_recipe("quick").model_dump(mode="json")
    averaged = load_recipe("quick", {"ema_decay": 0.9})
    assert averaged.model_dump(mode="json")["ema_warmup"] is True  # not the runs of before
    assert load_recipe("quick", averaged.model_dump(mode="json")) == averaged


def test_the_page_of_recipes_has_every_field_and_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    said = {}
    for names, defaults, *_ in rows:
        fields = re.findall(r"`(\w+)`", names)
        values = [value.strip(" `") for value in defaults.split(",")]
        said |= dict(
            zip(fields, values * len(fields) if len(values) == 1 else values, strict=False)
        )
    usual = {name: getattr(Recipe(), name) for name in Recipe.model_fields}
    words = {None: "none", True: "true", False: "false"}
    for name, value in usual.items():
        plain = words[value] if value is None or isinstance(value, bool) else f"{value}"
        shown = {"[]": "none", "0.0": "0"}.get(plain, plain)
        assert said.get(name) == shown, name
    assert said.keys() == usual.keys()


@pytest.mark.parametrize(
    ("base", "changes", "said"),
    [
        ("report", {"schedule": "cosine", "step_epochs": 10}, "step_epochs .* schedule=step"),
        ("quick", {"min_lr_ratio": 0.1, "schedule": "constant"}, "schedule=cosine or onecycle"),
        ("quick", {"schedule": "cosine", "onecycle_peak": 0.5}, "schedule=onecycle"),
    ],
)
def test_a_field_that_the_schedule_does_not_read_is_refused(
    base: str, changes: dict[str, Any], said: str
) -> None:
    study = {"title": "One", "data": "digits", "varies": ["recipe"], "baseline": "a"}
    rows: dict[str, Any] = {"a": "resnet20", "b": {"model": "resnet20", "recipe": changes}}
    with pytest.raises(InputError, match=f"row 'b': .*{said}"):
        Study.parse({**study, "recipe": base, "rows": rows}, "one")
    with pytest.raises(InputError, match=f"study 'one': .*{said}"):
        Study.parse(
            {**study, "recipe": {"base": base, **changes}, "rows": {"a": "resnet20"}}, "one"
        )
    reads = {"model": "resnet20", "recipe": {"schedule": said.rpartition(" ")[2].split("=")[-1]}}
    rows = {"a": "resnet20", "b": reads}  # one of the rows reads it
    Study.parse({**study, "recipe": {"base": base, **changes}, "rows": rows}, "one")
