"""Training speed: this loop against a plain PyTorch loop and against timm's, side by side.

    BLOCKLAB_DATA=... python benchmarks/training.py [--models resnet18,res2net50] [--images 2560]
        [--rounds 3] [--batch-size 128] [--data cifar100] [--threads 2] [--compile]

The same network, batch size and optimizer, in alternation: every round is a pass over the images
with each of these, which wait for their turn in processes of their own, so that none has another's
memory or settings:

- ours: the recipe `strong` with everything left to `auto`;
- plain: float32, contiguous, a DataLoader of two workers whose images go through PIL and
  torchvision's transforms one by one, and `loss.item()` each step, as CIFAR repositories do; for
  Res2Net also with timm's code of the same design;
- timm, defaults: the parts that timm's `train.py` is made of, put together as its
  `train_one_epoch` does (the script itself is not in the package): `create_loader` with the
  script's default augmentation and its prefetcher, `create_optimizer_v2`, `create_scheduler_v2`,
  label smoothing of 0.1, float32;
- timm, best flags: as well `--channels-last --amp --amp-dtype bfloat16 --no-prefetcher` (faster on
  a CPU), two workers and no colour jitter; with `--compile` also `--torchcompile`.

A pass is timed from the end of its first step to the end of its last, so that the start of workers
and of a compiler is in no figure. Median and spread over rounds. Prints Markdown.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import date
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from PIL import Image
from timm.data import create_loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from blocklab.data.image_data import ImageData, open_data
from blocklab.data.spec import DataSpec
from blocklab.errors import BlocklabError
from blocklab.measure.device import probe_device, processor
from blocklab.models.spec import ModelSpec, model_spec
from blocklab.training.autotune import choose
from blocklab.training.device import choose_precision, make_setup
from blocklab.training.loop import prepare, train
from blocklab.training.recipe import load_recipe
from blocklab.training.workload import Workload

MODELS: dict[str, Any] = {
    "resnet18": {"base": "resnet18", "stem": "cifar"},
    "resnet18_imagenet_stem": "resnet18",
    "res2net50": "res2net50",
    "res2net50_cifar_stem": {"base": "res2net50", "stem": "cifar"},
    "resnet20": "resnet20",
    "van_b0": "van_b0",
}
# The same design as others wrote it, where its own code is plain.
TIMMS_OWN: dict[str, Callable[[int], nn.Module]] = {
    "res2net50": lambda classes: timm.create_model(
        "res2net50_26w_4s", num_classes=classes, base_width=16
    )
}
LR, MOMENTUM, DECAY = 0.05, 0.9, 5e-4

Pass = Callable[[], Iterator[int]]  # one pass over the images; yields the images of each step


class ArrayImages(Dataset):
    """Images as CIFAR repositories hold them: arrays, made PIL images when they are asked for."""

    def __init__(self, data: ImageData, transform: Any = None) -> None:
        self.images = np.asarray(data.train.images[data.train.indices])
        self.labels = data.train.targets
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.fromarray(self.images[index])
        return self.transform(image), int(self.labels[index])


def ours(spec: ModelSpec, data: ImageData, batch: int, passes: int, threads: int) -> Any:
    """This project's loop; returns a pass, and what `auto` chose."""
    recipe = load_recipe(
        "strong", {"batch_size": batch, "lr": LR, "epochs": passes, "warmup_epochs": 0}
    )
    precision = choose_precision(recipe, probe_device())
    long = Workload(spec, recipe, data.image_size, len(data.class_names), 10**6, threads)
    choice = choose(long, precision)
    setup = make_setup(
        precision, choice.memory_format, choice.compiled, algorithms=choice.algorithms
    )
    torch.manual_seed(0)
    state = prepare(spec.build(len(data.class_names)), recipe, setup)
    ends: list[float] = []
    records = train(state, data, recipe, setup, 0, lambda *_: ends.append(time.perf_counter()))
    overheads: list[float] = []

    def one_pass() -> list[float]:
        ends.clear()
        overheads.append(next(records)["loop_overhead_percent"])
        return list(ends)

    return one_pass, f"{precision}, {choice.note}", overheads


def plain(make: Callable[[int], nn.Module], data: ImageData, batch: int) -> Pass:
    """The loop of a CIFAR repository."""
    transform = transforms.Compose(
        [
            transforms.RandomCrop(data.image_size, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(data.mean, data.std),
        ]
    )
    images = ArrayImages(data, transform)
    loader = DataLoader(images, batch, shuffle=True, num_workers=2, drop_last=True)
    torch.manual_seed(0)
    model = make(len(data.class_names))
    optimizer = torch.optim.SGD(
        model.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=DECAY, nesterov=True
    )
    criterion = nn.CrossEntropyLoss()

    def one_pass() -> Iterator[int]:
        model.train()
        train_loss, correct, total = 0.0, 0, 0
        for inputs, targets in loader:
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = criterion(outputs, targets)
            loss.backward()
            optimizer.step()
            train_loss += loss.item()
            total += targets.size(0)
            correct += outputs.max(1)[1].eq(targets).sum().item()
            yield len(targets)

    return one_pass


def timms(spec: ModelSpec, data: ImageData, batch: int, best: bool, compile: bool = False) -> Pass:
    """Timm's loop, at the defaults of its script or with the flags that are fastest here."""
    device = torch.device("cpu")
    images: Any = ArrayImages(data)  # whose transform it sets
    loader = create_loader(
        images,
        input_size=(3, data.image_size, data.image_size),
        batch_size=batch,
        is_training=True,
        use_prefetcher=not best,
        scale=(0.08, 1.0),
        ratio=(3 / 4, 4 / 3),
        hflip=0.5,
        color_jitter=0.0 if best else 0.4,
        interpolation="random",
        mean=data.mean,
        std=data.std,
        num_workers=2 if best else 4,
        device=device,
    )
    torch.manual_seed(0)
    model: Any = spec.build(len(data.class_names))
    if best:
        model = model.to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(model, "sgd", lr=LR, weight_decay=DECAY, momentum=MOMENTUM)
    scheduler, _ = create_scheduler_v2(
        optimizer, "cosine", num_epochs=300, updates_per_epoch=len(loader)
    )
    amp = partial(torch.autocast, "cpu", torch.bfloat16) if best else nullcontext
    loss_function = LabelSmoothingCrossEntropy(0.1)
    task = torch.compile(model) if compile else model
    updates = 0

    def one_pass() -> Iterator[int]:
        nonlocal updates
        model.train()
        losses = AverageMeter()
        for inputs, target in loader:
            if best:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            with amp():
                loss = loss_function(task(inputs), target)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.update(loss.item(), inputs.size(0))
            updates += 1
            if scheduler is not None:
                scheduler.step_update(num_updates=updates, metric=losses.avg)
            yield len(target)

    return one_pass


def ends_of(one_pass: Pass) -> Callable[[], list[float]]:
    """Return when each step of a pass ended."""
    return lambda: [time.perf_counter() for _ in one_pass()]


OURS, PLAIN, THEIR_NETWORK = "ours, auto", "plain PyTorch", "plain PyTorch, timm's network"
DEFAULTS, BEST, COMPILED = "timm, defaults", "timm, best flags", "timm, best flags, compiled"


def serve(loop: str, name: str, given: argparse.Namespace, pipe: Connection) -> None:
    """Run one loop in this process: a pass whenever the pipe says so, and a word at the end."""
    warnings.filterwarnings("ignore", "This DataLoader will create")  # timm's default is 4 workers
    torch.set_num_threads(given.threads)
    data, spec, batch = load(given), model_spec(MODELS.get(name, name)), given.batch_size
    chosen, overheads = "", []
    if loop == OURS:
        one_pass, chosen, overheads = ours(spec, data, batch, given.rounds + 1, given.threads)
    elif loop in (PLAIN, THEIR_NETWORK):
        make = spec.build if loop == PLAIN else TIMMS_OWN[name]
        one_pass = ends_of(plain(make, data, batch))
    else:
        one_pass = ends_of(timms(spec, data, batch, loop != DEFAULTS, loop == COMPILED))
    while pipe.recv():
        ends = one_pass()
        pipe.send(batch * (len(ends) - 1) / (ends[-1] - ends[0]))
    pipe.send((chosen, overheads))


def compare(name: str, given: argparse.Namespace) -> None:
    """Measure one model and print its table."""
    loops = [OURS, PLAIN, DEFAULTS, BEST]
    loops += [THEIR_NETWORK] * (name in TIMMS_OWN) + [COMPILED] * given.compile
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for loop in loops:
        pipes[loop], theirs = context.Pipe()
        context.Process(target=serve, args=(loop, name, given, theirs)).start()
        theirs.close()
    rates: dict[str, list[float]] = {loop: [] for loop in loops}
    for number in range(given.rounds + 1):
        for loop, pipe in pipes.items():
            pipe.send(True)
            rate = pipe.recv()
            if number:  # the first pass warms up
                rates[loop].append(rate)
    said = {}
    for loop, pipe in pipes.items():
        pipe.send(False)
        said[loop] = pipe.recv()
    medians = {loop: statistics.median(values) for loop, values in rates.items()}
    print(f"\n### `{name}`, batch {given.batch_size}\n")
    print("| loop | images/s, median | lowest to highest | times plain | ours, times this |")
    print("|---|--:|--:|--:|--:|")
    for loop, values in rates.items():
        print(
            f"| {loop} | {medians[loop]:,.1f} | {min(values):,.1f} to {max(values):,.1f} | "
            f"{medians[loop] / medians[PLAIN]:.2f} | {medians[OURS] / medians[loop]:.2f} |"
        )
    chosen, overheads = said[OURS]
    print(f"\nAuto: {chosen}. Overhead of our loop, median: {statistics.median(overheads):.1f} %.")


def load(given: argparse.Namespace) -> ImageData:
    """The images of a pass."""
    spec = DataSpec(
        source=given.data, train_images=given.images, test_images=None, validation_fraction=0
    )
    return open_data(spec)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default="resnet18,res2net50", help=", ".join(MODELS))
    parser.add_argument("--images", type=int, default=2560)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--data", default="cifar100")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action="store_true", help="also timm's --torchcompile")
    given = parser.parse_args()
    if given.images < 3 * given.batch_size:
        parser.error(f"--images {given.images} is less than three batches")
    load(given)  # so that what is wrong with it is said here
    print(f"`python benchmarks/training.py` on {date.today()}: {processor()}, ", end="")
    print(f"{os.cpu_count()} cores, {given.threads} threads, PyTorch {torch.__version__}, ", end="")
    print(f"timm {timm.__version__}, torchvision {torchvision.__version__}; ", end="")
    print(f"{given.images:,} images a pass, {given.rounds} passes after one to warm up.")
    for name in given.models.split(","):
        compare(name, given)


if __name__ == "__main__":
    try:
        main()
    except BlocklabError as error:
        sys.exit(str(error))
