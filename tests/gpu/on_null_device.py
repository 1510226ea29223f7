"""Run on the null device by `test_devices.py`: trains, evaluates, tunes, benches and diagnoses.

    on_null_device.py FOLDER [SEED]

Prints a line of JSON: the bytes that are left reserved after each measurement, the needs of a run,
and every operation that met float64 on the GPU, which Apple's have not. With a seed it trains that
one alone, as a worker does that finds its row's setup chosen, and nothing before it on the GPU.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from null_device import Counter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from blocklab.data.spec import DataSpec
from blocklab.execution.gpu_memory import measure_needs
from blocklab.measure import speed
from blocklab.measure.activations import count_zeros
from blocklab.models.factory import create_model
from blocklab.models.spec import model_spec
from blocklab.training import autotune, loop, step
from blocklab.training.recipe import load_recipe
from blocklab.training.run import execute_run
from blocklab.training.run_definition import RunDefinition


class Float64OnGpu(TorchDispatchMode):
    """Notes the operations that take or give float64 there."""

    def __init__(self) -> None:
        super().__init__()
        self.met: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, result)):
            if isinstance(leaf, torch.Tensor) and leaf.is_cuda and leaf.dtype == torch.float64:
                self.met.append(str(func))
        return result


def main() -> None:
    out = Path(sys.argv[1])
    Counter()  # registers what cuDNN would do
    loop._is_finite = lambda model: True  # no value means anything here
    step.widest = lambda device: torch.float32  # as on Apple's GPUs
    autotune.FEWEST_STEPS = 1  # so that this little is measured
    fields = {"epochs": 1, "batch_size": 20, "ema_decay": 0.9, "mixup": 0.2, "cutout": 4}
    recipe = load_recipe("quick", {**fields, "clip_grad_norm": 1.0, "cuda_graph": "auto"})
    data = DataSpec(source="digits", train_images=100, test_images=60)
    definition = RunDefinition(model_spec("resnet20_se"), data, recipe, 0)
    if sys.argv[2:]:
        assert not torch.cuda.is_initialized()
        folder = execute_run(replace(definition, seed=int(sys.argv[2])), out, threads=1)
        print(json.dumps(json.loads((folder / "result.json").read_text())), flush=True)
        os._exit(0)
    reserved = {}
    with Float64OnGpu() as float64:
        needs = measure_needs(definition)
        reserved["needs"] = torch.cuda.memory_reserved()
        folder = execute_run(definition, out, threads=1)
        speed.PEAK_SIDE = 64
        speed.bench("resnet20_se", 32, batch_size=4, rounds=1)
        reserved["bench"] = torch.cuda.memory_reserved()
        network = create_model("resnet20_se", num_classes=10).cuda()
        count_zeros(network, [torch.zeros(2, 3, 32, 32, device="cuda")], first=1, last=1)
    del network
    found = {"reserved": reserved, "run": needs.run, "measuring": needs.measuring}
    found |= {"free": needs.free, "float64": sorted(set(float64.met))}
    found |= {"note": json.loads((folder / "run.json").read_text())["setup_note"]}
    print(json.dumps(found), flush=True)
    os._exit(0)  # PyTorch's threads cannot be ended in order on a device that is none


if __name__ == "__main__":
    main()
