"""Chooses what a row computes with; run on the null device by `test_choices.py`.

    choose_on_null.py '[{"model": ..., "recipe": {...}, "size": 32, "free": 1e9}]' FOLDER

FOLDER is where the null device lies, `free` are the bytes of memory that the process may take,
`algorithm` is that of all large kernels, `blocks` a file that registers some. Each row has a
process of its own, and PyTorch is imported once. Prints a line of JSON for each: the choice, what
a step of it asks for, how many of its kernels are PyTorch's own for depth-wise convolutions, and
the bytes that choosing kept.
"""

import json
import os
import runpy
import sys
from dataclasses import asdict, replace
from typing import Any

import torch

sys.path.insert(0, sys.argv[2])
from null_device import Counter

from blocklab.measure import timing
from blocklab.measure.timing import Step
from blocklab.models.spec import model_spec
from blocklab.training import gate_form
from blocklab.training.algorithms import _large_kernels
from blocklab.training.autotune import choose, whole_step
from blocklab.training.recipe import Recipe
from blocklab.training.workload import Workload


def main() -> None:
    for given in json.loads(sys.argv[1]):
        child = os.fork()  # before the device is begun, which no fork survives
        if not child:
            choose_and_count(given)
        if os.waitpid(child, 0)[1]:
            sys.exit(1)


def choose_and_count(given: dict[str, Any]) -> None:
    """Print what one row comes to, and end this process."""
    counter = Counter()

    def by_launches(step: Step) -> float:
        """Time a step by what it launches: the device does nothing, whose time means nothing."""
        counter.reset()
        step()
        counts = counter.counts()
        return 1e-5 * (counts.get("kernel", 0) or 1)

    timing._between_events = by_launches
    if "blocks" in given:
        runpy.run_path(given["blocks"])
    recipe = Recipe.parse({"epochs": 1, "batch_size": 64, "precision": "bf16"} | given["recipe"])
    images = given.get("steps", 4000) * recipe.batch_size
    work = Workload(model_spec(given["model"]), recipe, given["size"], 10, images, 1)
    if "free" in given:
        total = torch.cuda.mem_get_info()[1]
        torch.cuda.set_per_process_memory_fraction(given["free"] / total)
        gate_form.free_memory = lambda: int(given["free"])
    choice = choose(work, "bf16-mixed")
    if "algorithm" in given:
        choice = replace(choice, graph=False)
        choice.algorithms.update(dict.fromkeys(_large_kernels(work), given["algorithm"]))
    allocated = torch.cuda.memory_allocated()
    step = whole_step(work, choice.setup(work))
    for _ in range(5):
        step()
    counter.reset()
    step()
    own = sum(n for name, n in counter.kernels().items() if "conv_depthwise2d" in name)
    counts = counter.counts()
    found = {"choice": asdict(choice), "kept": allocated, "counts": counts, "own_depthwise": own}
    print(json.dumps(found), flush=True)
    os._exit(0)  # PyTorch's threads cannot be ended in order on a device that is none


if __name__ == "__main__":
    main()
