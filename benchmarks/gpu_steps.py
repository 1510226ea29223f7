"""What `gpu.py` and the tests of a GPU do alike: made-up images, and the loop on some of them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from blocklab.data.image_data import ImageData
from blocklab.data.split import Split
from blocklab.measure.device import probe_device
from blocklab.measure.numerics import arithmetic
from blocklab.models.spec import model_spec
from blocklab.training import loop
from blocklab.training.device import Setup, choose_precision, make_setup, usual_layout
from blocklab.training.recipe import Recipe, load_recipe

CLASSES = 100
CAPTURED = 5  # steps after which a graph replays
EVERYTHING = {"mixup": 0.2, "cutout": 8, "ema_decay": 0.9, "clip_grad_norm": 1.0}


def made_up(images: int, size: int) -> ImageData:
    """Images (size, size, 3) of noise in 100 classes, all of them to train on."""
    rng = np.random.default_rng(0)

    def split(count: int) -> Split:
        pixels = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        return Split.whole(pixels, rng.integers(0, CLASSES, count))

    names = tuple(map(str, range(CLASSES)))
    empty = split(0)
    return ImageData("noise", split(images), empty, empty, names, (0.5,) * 3, (0.2,) * 3, size, "")


def recipe_of(batch: int, epochs: int = 1, **changes: Any) -> Recipe:
    """The recipe `strong`, with what costs a step most, and no schedule to warm up."""
    fields = {"batch_size": batch, "epochs": epochs, "warmup_epochs": 0, **EVERYTHING, **changes}
    return load_recipe("strong", fields)


def setup_of(recipe: Recipe, mode: str) -> Setup:
    """Return the setup of a ``mode``: eager, graph or compiled."""
    precision = choose_precision(recipe, probe_device())
    return make_setup(
        precision,
        usual_layout(precision),
        mode == "compiled",
        graph=mode == "graph",
        deterministic=recipe.deterministic,
    )


def train(
    model: Any, recipe: Recipe, mode: str, data: ImageData, on_step: loop.OnStep | None = None
) -> tuple[loop.State, list[loop.Record]]:
    """Run the loop to its end; return what it reached, and a record an epoch."""
    setup = setup_of(recipe, mode)
    with arithmetic(setup.device, setup.deterministic):
        torch.manual_seed(0)
        state = loop.prepare(model_spec(model).build(CLASSES), recipe, setup)
        return state, list(loop.train(state, data, recipe, setup, 0, on_step))


def weights_after(model: Any, mode: str, batch: int, steps: int, size: int) -> dict[str, Tensor]:
    """Return the weights after so many deterministic steps."""
    recipe = recipe_of(batch, deterministic=True)
    state, _ = train(model, recipe, mode, made_up(batch * steps, size))
    return {name: tensor.detach().clone() for name, tensor in state.model.state_dict().items()}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """Return the names of the tensors that are not the same to the bit."""
    return [name for name in one if not torch.equal(one[name], other[name])]


def waits_in_a_step(model: Any, mode: str, batch: int, size: int, **changes: Any) -> str | None:
    """Return what PyTorch's sync debug mode says of steps of a warm loop; None if nothing."""

    def on_step(done: int, of: int) -> None:
        watched = CAPTURED < done < of
        torch.cuda.set_sync_debug_mode("error" if watched else "default")

    recipe = recipe_of(batch, **changes)
    try:
        train(model, recipe, mode, made_up(batch * (CAPTURED + 4), size), on_step)
    except RuntimeError as error:
        if "synchronizing" not in str(error):
            raise
        return str(error).strip().splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return None


def launches_in_a_step(model: Any, mode: str, batch: int, size: int) -> int:
    """Return the kernels and graphs that a step of a warm loop launches, says the profiler."""
    from torch.profiler import ProfilerActivity, profile

    seen = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])

    def on_step(done: int, of: int) -> None:
        if done == of - 2:
            torch.cuda.synchronize()
            seen.start()
        elif done == of - 1:
            torch.cuda.synchronize()
            seen.stop()

    train(model, recipe_of(batch), mode, made_up(batch * (CAPTURED + 4), size), on_step)
    launches = ("cudaLaunch", "cuLaunch", "cudaGraphLaunch")
    return sum(event.name.startswith(launches) for event in seen.events() or ())
