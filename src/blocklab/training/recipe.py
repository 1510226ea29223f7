"""How to train, as data. A recipe is a YAML file of these fields; `--set` overrides any of them."""

import math
from collections.abc import Collection, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from blocklab.data.crop_ranges import RandomResizedCrop
from blocklab.errors import InputError, did_you_mean, one_line
from blocklab.yaml_files import PlainModel, parse_yaml, read_yaml

# Of `torch.compile`; a recipe's `on` is the first.
USUAL_MODE = "default"
COMPILE_MODES = (USUAL_MODE, "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
GRAPHED_MODES = ("reduce-overhead", "max-autotune")  # on a GPU, of CUDA graphs of their own

LARGEST_SEED = 2**32 - 1  # what every random generator takes
# Fields that runs of old were defined without, which are still the same runs.
ADDED_LATER = (
    *("cuda_graph", "accumulate", "deterministic"),
    *("freeze", "head_lr", "layer_decay"),
    *("random_resized_crop", "trivial_augment", "random_erasing"),
)


class Recipe(PlainModel):
    """Everything that decides how a model is trained, with its units.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step.
        drop_last: leave out an epoch's last batch where it is not full.
        optimizer: a name of timm's, such as ``sgd`` (with Nesterov), ``momentum`` or ``adamw``.
        lr: learning rate at the schedule's top.
        momentum: of SGD, or beta1 where the optimizer has two betas.
        weight_decay: per step, times the learning rate.
        decay_norms_and_biases: whether weight decay also falls on one-dimensional parameters.
        schedule: ``constant``, ``step``, ``cosine`` or ``onecycle``.
        warmup_epochs: linear rise from 0 (a fraction is fine); not with one-cycle, which rises by
            itself.
        step_epochs, step_factor: the step schedule multiplies by the factor every so many epochs.
        min_lr_ratio: where cosine and one-cycle end, as a part of ``lr``.
        onecycle_peak: where one-cycle has its top, as a part of all epochs.
        label_smoothing: share of the target spread over all classes.
        crop_padding: pixels of padding before a random crop; 0 is no crop.
        flip: mirror half of the images.
        cutout: side in pixels of a square that is set to the mean; 0 is none.
        random_resized_crop: cut a random part out of each picture and resize it, with ``scale`` and
            ``ratio`` as torchvision has them; ``true`` takes [0.08, 1] and [0.75, 1.333]. Pictures
            are kept larger than they are trained on by ``data.kept_size``.
        trivial_augment: one of TrivialAugment's operations an image, of its wide space.
        random_erasing: share of the images of which a random box is set to the mean; 0 is none.
        mixup, cutmix: alpha of their Beta distributions; 0 is none. With both, half of each.
        ema_decay: decay of an exponential moving average of the weights a step, which is then what
            is evaluated; None is none.
        ema_warmup: let that decay rise to its value as 1 - (1 + step)^(-2/3), so that the average
            of a short run is not mostly of the weights that training began with.
        clip_grad_norm: largest norm of all gradients; None is no limit.
        freeze: parts of the network that keep their weights and their norms' statistics, by the
            names of modules; ``stem`` is what stands before the stages, ``backbone`` all but the
            head.
        head_lr: learning rate of the head at the schedule's top; None is ``lr``.
        layer_decay: from the head down, each layer's learning rate is this part of the next one's;
            None is one rate for all.
        normalize: ``dataset`` (its mean and SD), ``half`` (0.5 and 0.5), ``imagenet`` (as most
            released weights were trained) or ``cifar10`` (what scripts for CIFAR hand on, whatever
            the data; see `blocklab.training.batches`).
        test_every_epoch: read the test set after each epoch and record the best of them beside the
            last, as optimistic. Off, the test set is read once, after the last epoch.
        precision: ``auto`` takes bf16 where the device computes it fast, ``fp16`` (with a scaled
            loss) on a GPU that has no bf16, else ``fp32``.
        memory_format: ``auto`` measures which layout trains the model faster.
        compile: ``on`` (or ``default``) trains through `torch.compile`, as do its other modes by
            name; ``auto`` tries it on a GPU, where the run is long enough to win back the time of
            compiling, and keeps it where it is faster. No processor trains faster by it.
        cuda_graph: ``on`` and ``auto`` replay a whole step as one CUDA graph, where it can be
            captured; ``auto`` only where that is faster.
        accumulate: in how many parts a step takes its batch, one after the other, so that a large
            batch fits a small memory. The gradient is the whole batch's; BatchNorm's statistics
            are those of each part.
        deterministic: take deterministic algorithms alone, at whatever cost in time: a GPU then
            gives the same bits again. A CPU does so anyway.
        sync_batchnorm: where several devices train one run, take BatchNorm's statistics over the
            images of all of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: int = Field(default=50, gt=0)
    batch_size: int = Field(default=128, gt=0)
    drop_last: bool = True
    optimizer: str = "sgd"
    lr: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    decay_norms_and_biases: bool = False
    schedule: Literal["constant", "step", "cosine", "onecycle"] = "cosine"
    warmup_epochs: float = Field(default=0.0, ge=0)
    step_epochs: int = Field(default=30, gt=0)
    step_factor: float = Field(default=0.1, gt=0)
    min_lr_ratio: float = Field(default=0.0, ge=0, le=1)
    onecycle_peak: float = Field(default=0.3, gt=0, lt=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    crop_padding: int = Field(default=0, ge=0)
    flip: bool = False
    cutout: int = Field(default=0, ge=0)
    random_resized_crop: RandomResizedCrop | None = None
    trivial_augment: bool = False
    random_erasing: float = Field(default=0.0, ge=0, le=1)
    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    ema_warmup: bool = True
    clip_grad_norm: float | None = Field(default=None, gt=0)
    freeze: list[str] = Field(default_factory=list)
    head_lr: float | None = Field(default=None, gt=0)
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    normalize: Literal["dataset", "half", "imagenet", "cifar10"] = "dataset"
    test_every_epoch: bool = False
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    compile: Literal[
        "off", "auto", "on", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"
    ] = "off"
    cuda_graph: Literal["off", "auto", "on"] = "auto"
    accumulate: int = Field(default=1, gt=0)
    deterministic: bool = False
    sync_batchnorm: bool = False

    @field_validator("compile", "cuda_graph", mode="before")
    @classmethod
    def _switch(cls, value: object) -> object:
        """Take YAML's `on` and `off`, which it reads as true and false."""
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else value

    @field_validator("compile", mode="before")
    @classmethod
    def _usual_mode(cls, value: object) -> object:
        return "on" if value == USUAL_MODE else value

    @property
    def compile_mode(self) -> str:
        """The mode of `torch.compile` that is asked for, or an empty text."""
        if self.compile in ("off", "auto"):
            return ""
        return USUAL_MODE if self.compile == "on" else self.compile

    @field_validator("random_resized_crop", mode="before")
    @classmethod
    def _usual_crop(cls, value: object) -> object:
        """Take `true` for the usual ranges, and `false` for none."""
        return {True: {}, False: None}[value] if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.batch_size == 1:
            raise InputError(
                "batch_size 1 cannot train: BatchNorm needs two images or more; set batch_size=2 "
                "or larger"
            )
        if (self.mixup or self.cutmix) and self.batch_size % 2:
            raise InputError("mixup and cutmix pair images; set an even batch_size")
        if (self.mixup or self.cutmix) and not self.drop_last:
            raise InputError("mixup and cutmix need full batches; set drop_last=true")
        if self.accumulate > 1 and self.batch_size // self.accumulate < 2:
            raise InputError(
                f"a batch of {self.batch_size} cannot be taken in {self.accumulate} parts of two "
                f"images or more; set accumulate={self.batch_size // 2} or less"
            )
        if self.compile in GRAPHED_MODES and self.cuda_graph == "on":
            raise InputError(
                f"compile={self.compile} makes CUDA graphs of its own, which none can hold; set "
                "cuda_graph=off, or compile=on"
            )
        if self.compile in GRAPHED_MODES and self.accumulate > 1:
            raise InputError(
                f"compile={self.compile} keeps gradients in CUDA graphs, where parts of a batch "
                "cannot add up; set accumulate=1, or compile=on"
            )
        if self.random_resized_crop and self.crop_padding:
            raise InputError(
                "random_resized_crop and crop_padding both choose a part of the picture; set "
                "crop_padding=0, or random_resized_crop=false"
            )
        if self.warmup_epochs > self.epochs:
            raise InputError(
                f"warmup_epochs {self.warmup_epochs:g} is longer than the {self.epochs} epochs; "
                "make it shorter"
            )
        if self.schedule == "onecycle" and self.warmup_epochs:
            raise InputError("one-cycle rises by itself; set warmup_epochs=0, or schedule=cosine")
        return self

    @model_serializer(mode="wrap")
    def _without_what_does_nothing(self, serialise: SerializerFunctionWrapHandler) -> Any:
        """Leave out what is no part of such a run: it is the run that it was without the field."""
        fields = serialise(self)
        if self.ema_decay is None:
            del fields["ema_warmup"]
        for name in ADDED_LATER:
            if fields[name] == type(self).model_fields[name].get_default(call_default_factory=True):
                del fields[name]
        return fields

    @classmethod
    def parse(cls, fields: Mapping[str, Any], what: str = "the recipe") -> Self:
        """Read a mapping of fields.

        Raises:
            InputError: if a field or value is wrong, in one line.
        """
        try:
            return cls.model_validate(dict(fields))
        except ValidationError as error:
            raise InputError(one_line(error, what, cls)) from None

    def steps(self, train_images: int) -> int:
        """Return how many steps training takes with so many images."""
        whole, rest = divmod(train_images, self.batch_size)
        return self.epochs * (whole + (rest > 0 and not self.drop_last))

    def warning(self, train_images: int) -> str | None:
        """Say in one line where the average of the weights is longer than a run should have."""
        steps = self.steps(train_images)
        if self.ema_decay is None:
            return None
        window = 1 / (1 - self.ema_decay)
        if self.ema_warmup:  # timm's, which it has reached when the run ends
            window = min(window, (1 + steps) ** (2 / 3))
        if window <= steps / 10:
            return None
        what = (
            f"ema_decay {self.ema_decay:g} averages over some {window:,.0f} steps, more than a "
            f"tenth of the run's {steps:,}"
        )
        if steps <= 10:
            return f"{what}; leave ema_decay out"
        digits = -math.floor(math.log10(10 / steps))
        most = math.floor((1 - 10 / steps) * 10**digits + 1e-6) / 10**digits
        return f"{what}; {most:g} or less suits it"

    def learning_rate(self, epoch: float) -> float:
        """Return the learning rate at a point in training, in epochs from 0 (fractions count)."""
        if epoch < self.warmup_epochs:
            return self.lr * epoch / self.warmup_epochs
        low = self.lr * self.min_lr_ratio
        if self.schedule == "constant":
            return self.lr
        if self.schedule == "step":
            return self.lr * self.step_factor ** int(epoch // self.step_epochs)
        start = self.warmup_epochs
        if self.schedule == "onecycle":
            peak = start + self.onecycle_peak * (self.epochs - start)
            if epoch < peak:
                rise = (epoch - start) / (peak - start)
                return self.lr * (0.04 + 0.96 * (1 - math.cos(math.pi * rise)) / 2)
            start = peak
        done = min(1.0, (epoch - start) / max(self.epochs - start, 1e-9))
        return low + (self.lr - low) * (1 + math.cos(math.pi * done)) / 2


USUAL: Mapping[str, Any] = Recipe().model_dump(mode="json")

_READ_BY = {  # fields that only some schedules read
    "step_epochs": ("step",),
    "step_factor": ("step",),
    "min_lr_ratio": ("cosine", "onecycle"),
    "onecycle_peak": ("onecycle",),
}


def check_schedule(
    asked: Mapping[str, Any], before: Mapping[str, Any], schedules: Collection[str]
) -> None:
    """Check that some schedule reads the fields that are asked for.

    Args:
        asked: fields that someone wrote.
        before: fields that hold where none is written, such as those of the recipe they change.
        schedules: of the recipes that they are part of.

    Raises:
        InputError: for one that would do nothing.
    """
    for name, value in asked.items():
        read = _READ_BY.get(name)
        if read and before.get(name) != value and not set(read) & set(schedules):
            raise InputError(
                f"{name} does nothing in schedule={', '.join(sorted(schedules))}; leave it out, or "
                f"set schedule={' or '.join(read)}"
            )


def recipe_names() -> list[str]:
    """Names of the recipes that are shipped with the package."""
    folder = resources.files("blocklab") / "recipes"
    return sorted(
        file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")
    )


def recipe_summaries() -> dict[str, str]:
    """Return the shipped recipes by name, each with the first line of its file's header."""
    folder = resources.files("blocklab") / "recipes"
    texts = {name: (folder / f"{name}.yaml").read_text("utf-8") for name in recipe_names()}
    return {name: text.splitlines()[0].removeprefix("# ") for name, text in texts.items()}


def load_recipe(name: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Load a shipped recipe by name, or a YAML file of one, with some fields changed.

    Raises:
        InputError: for an unknown recipe or field, or a wrong value.
    """
    names = recipe_names()
    if name in names:
        file = resources.files("blocklab") / "recipes" / f"{name}.yaml"
        fields = parse_yaml(file.read_text(encoding="utf-8"), f"recipe '{name}'")
    elif name.endswith((".yaml", ".yml")):
        fields = read_yaml(Path(name))
        if not isinstance(fields, dict):
            raise InputError(f"{name} holds no recipe; write one field a line, such as epochs: 5")
    else:
        raise InputError(
            f"no recipe '{name}'{did_you_mean(name, names) or ';'} "
            f"recipes: {', '.join(names)}, or the path of a YAML file"
        )
    return Recipe.parse({**fields, **(changes or {})}, f"recipe '{name}'")
