"""Counts what a training step asks of a GPU; run on the null device by `launches.py`.

    count_steps.py '[{"model": ..., "recipe": {...}, "batch": 128, "size": 32}, ...]'

Prints a line of JSON for each: the counts of one step in the midst of an epoch.
"""

import json
import os
import sys
import time
from typing import Any

import numpy as np
from null_device import Counter

from blocklab.data import loader
from blocklab.data.image_data import ImageData
from blocklab.data.split import Split
from blocklab.measure.numerics import arithmetic
from blocklab.models.spec import model_spec
from blocklab.training import loop
from blocklab.training.device import choose_setup
from blocklab.training.recipe import load_recipe

STEPS = 8  # the first three and the capture come before what is counted, and one after
CLASSES = 100
FITS = loader._fits


def images(count: int, size: int) -> Split:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return Split.whole(pixels, rng.integers(0, CLASSES, count))


def step_counts(counter: Counter, given: dict[str, Any]) -> dict[str, Any]:
    model, batch, size = given["model"], given["batch"], given["size"]
    fields = {"epochs": 1, "warmup_epochs": 0, "batch_size": batch, **given["recipe"]}
    streamed = fields.pop("streamed", False)  # as where a GPU does not hold the images
    loader._fits = (lambda size, device: False) if streamed else FITS
    recipe = load_recipe("strong", fields)
    train, empty = images(batch * STEPS, size), images(0, size)
    names = tuple(map(str, range(CLASSES)))
    data = ImageData("null", train, empty, empty, names, (0.5,) * 3, (0.2,) * 3, size, "null")
    setup = choose_setup(recipe)
    found: dict[str, Any] = {"model": model, "device": setup.device.type}
    began = 0.0

    def on_step(done: int, of: int) -> None:
        nonlocal began
        if done == STEPS - 2:
            counter.reset()
            began = time.thread_time()
        elif done == STEPS - 1:
            found["python_ms"] = 1000 * (time.thread_time() - began)
            found["counts"] = counter.counts()
            counter.reset()

    with arithmetic(setup.device, setup.deterministic):
        state = loop.prepare(model_spec(model).build(CLASSES), recipe, setup)
        for _ in loop.train(state, data, recipe, setup, 0, on_step):
            pass
    return found


def main() -> None:
    counter = Counter()
    # No value means anything here, and whether the weights are numbers would be read.
    loop._is_finite = lambda model: True
    for given in json.loads(sys.argv[1]):
        print(json.dumps(step_counts(counter, given)), flush=True)
    os._exit(0)  # PyTorch's threads cannot be ended in order on a device that is none


if __name__ == "__main__":
    main()
