"""Training on a GPU: our loop eager, as a graph and compiled, against others', in some 15 minutes.

    python benchmarks/gpu.py [--minutes 15] [--out gpu.json] [--models A,B] [--batches 128,512]
    python benchmarks/gpu.py --device null     counts alone, on a device that computes nothing
    python benchmarks/gpu.py --device cpu --quick      goes through it all where there is no GPU

Noise of 32x32 pixels, 100 classes. Ours is the whole loop: `strong` with MixUp, cutout, an average
of the weights and clipping, crop and flip among them. The others train on one batch that lies on
the device already, without any of these:

- plain: float32, contiguous, SGD, and `loss.item()` each step, as CIFAR repositories do;
- timm, best flags: channels_last, automatic mixed precision, a fused optimizer; and compiled.

Of each: images a second (median of epochs after the first), launches a step, what PyTorch's sync
debug mode says of a step, and the fraction of the roofline: three forward passes' MACs at the peak
measured here, or what is kept for the backward pass written and read once at the bandwidth measured
here, whichever takes longer. Then, whether 20 deterministic steps give the same weights as a graph
as without. What compiles comes last; what the minutes do not suffice for is named. Each model runs
in a process of its own, so that one that fails ends no other.
"""

import argparse
import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SIZE = 32
MODELS: dict[str, Any] = {
    "resnet18": {"base": "resnet18", "stem": "cifar"},
    "resnet50_triplet": "resnet50_triplet",
    "res2net50_celu_cd_st": "res2net50_celu_cd_st",
    "van_b0_replk": "van_b0_replk",
}
PLAIN, TIMM, TIMM_COMPILED = "plain", "timm, best flags", "timm, best flags, compiled"
FIRST = ("eager", "graph", PLAIN, TIMM)
COMPILED = ("compiled", TIMM_COMPILED)
EQUAL_STEPS, EQUAL_BATCH = 20, 64
END = "end"


# What follows runs in a child, of one model.


def measured(task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a line for each loop of the task, and one of the weights."""
    import gpu_steps as steps
    import torch

    from blocklab.errors import error_line
    from blocklab.measure.device import device_name, probe_device
    from blocklab.measure.memory import release_memory

    device, model, quick = probe_device(), MODELS[task["model"]], task["quick"]
    cuda = device.type == "cuda"
    floor = roofline(model, task["side"])
    for batch in task["batches"]:
        for loop in task["loops"]:
            line = {"model": task["model"], "batch": batch, "loop": loop}
            line["device"] = device_name(device)
            try:
                if loop in (PLAIN, TIMM, TIMM_COMPILED):
                    rate = others_rate(model, loop, batch, 2 if quick else 30)
                else:
                    rate = our_rate(model, loop, batch, 2 if quick else 30)
                    if cuda:
                        line["launches"] = steps.launches_in_a_step(model, loop, batch, SIZE)
                        line["waits"] = steps.waits_in_a_step(model, loop, batch, SIZE) or "none"
                line["images_per_second"] = rate
                line["roofline_percent"] = 100 * rate * floor
            except Exception as error:  # of one loop, or out of memory: the others go on
                line["failed"] = error_line(error)
            torch.compiler.reset()
            release_memory()
            yield line
    if "eager" in task["loops"]:
        count = 2 if quick else EQUAL_STEPS
        line = {"model": task["model"], "loop": "weights"}
        try:
            one, other = (
                steps.weights_after(model, mode, EQUAL_BATCH if cuda else 8, count, SIZE)
                for mode in ("eager", "graph")
            )
            line["differing"] = steps.differing(one, other)
            line["steps"] = count
        except Exception as error:
            line["failed"] = error_line(error)
        torch.use_deterministic_algorithms(False)
        yield line


def roofline(model: Any, side: int) -> float:
    """Return the least seconds an image's training takes on this device."""
    import torch

    from blocklab.measure.cost import cost
    from blocklab.measure.device import probe_device
    from blocklab.measure.footprint import footprint
    from blocklab.measure.numerics import arithmetic
    from blocklab.measure.timing import shortest_times
    from blocklab.measure.ways import best_of_matrices
    from blocklab.models.spec import model_spec

    device, spec = probe_device(), model_spec(model)
    with arithmetic(device, deterministic=False):
        peak = max(best_of_matrices(side).values())
    large = torch.empty(side**2, dtype=torch.float32, device=device)
    copy = torch.empty_like(large)
    seconds = shortest_times({"copy": lambda: copy.copy_(large)})["copy"]
    bytes_per_second = 2 * 4 * side**2 / seconds
    kept = footprint(spec.build_meta(100).train(), SIZE).activations / 2  # in half precision
    return max(3 * cost(spec, SIZE).macs / peak, 2 * kept / bytes_per_second)


def our_rate(model: Any, mode: str, batch: int, count: int) -> float:
    """Return the images a second of our loop."""
    import gpu_steps as steps

    count = max(count, steps.CAPTURED + 1) if mode == "graph" else count
    recipe = steps.recipe_of(batch, epochs=4)
    _, records = steps.train(model, recipe, mode, steps.made_up(batch * count, SIZE))
    return statistics.median(record["images_per_second"] for record in records[1:])


def others_rate(model: Any, loop: str, batch: int, count: int) -> float:
    """Return the images a second of another's loop, on a batch that lies on the device."""
    import torch
    from torch.nn import functional as F

    from blocklab.measure.device import probe_device, wait
    from blocklab.measure.numerics import arithmetic
    from blocklab.models.spec import model_spec

    device, plain = probe_device(), loop == PLAIN
    torch.manual_seed(0)
    layout = torch.contiguous_format if plain else torch.channels_last
    network: Any = model_spec(model).build(100).to(device, memory_format=layout).train()
    images = torch.rand(batch, 3, SIZE, SIZE, device=device).contiguous(memory_format=layout)
    labels = torch.randint(100, (batch,), device=device)
    fused = not plain and device.type == "cuda"
    options = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True}
    optimizer = torch.optim.SGD(network.parameters(), fused=fused, **options)
    bf16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    half = torch.bfloat16 if bf16 else torch.float16
    scaler = torch.amp.GradScaler(device.type, enabled=not plain and not bf16)
    run = torch.compile(network) if loop == TIMM_COMPILED else network
    smoothing = 0.0 if plain else 0.1

    def step() -> None:
        with torch.autocast(device.type, half, enabled=not plain):
            loss = F.cross_entropy(run(images), labels, label_smoothing=smoothing)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if plain:
            loss.item()

    rates = []
    with arithmetic(device, deterministic=False):
        for _ in range(4):  # the first warms up
            wait(device)
            began = time.perf_counter()
            for _ in range(count):
                step()
            wait(device)
            rates.append(count * batch / (time.perf_counter() - began))
    return statistics.median(rates[1:])


def child(task: dict[str, Any]) -> None:
    """Print the lines of a task as JSON."""
    for line in measured(task):
        print(json.dumps(line), flush=True)
    print(json.dumps({"loop": END}), flush=True)


# What follows runs in the parent, which imports no PyTorch.


class Budget:
    """The minutes that are left."""

    def __init__(self, minutes: float) -> None:
        self.ends = time.monotonic() + 60 * minutes

    @property
    def left(self) -> float:
        """Seconds, 0 at least."""
        return max(0.0, self.ends - time.monotonic())


def lines_of(task: dict[str, Any], device: str, budget: Budget) -> Iterator[dict[str, Any]]:
    """Run a task in a child; yield its lines as they come, and a last one if it did not end."""
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    command = [sys.executable, str(Path(__file__)), "--task", json.dumps(task)]
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - gone with this generator
    process = subprocess.Popen(
        command, env=os.environ | hidden, stdout=subprocess.PIPE, stderr=errors, text=True
    )
    said: queue.Queue[str | None] = queue.Queue()

    def listen() -> None:
        assert process.stdout is not None
        for text in process.stdout:
            said.put(text)
        said.put(None)

    threading.Thread(target=listen, daemon=True).start()
    why = "the minutes were over"
    try:
        while text := said.get(timeout=budget.left):
            line = json.loads(text)
            if line["loop"] == END:
                return
            yield line
        errors.seek(0)
        why = (errors.read().strip().splitlines() or ["its process died"])[-1]
    except queue.Empty:
        pass
    finally:
        process.kill()
        process.wait()
    yield {"model": task["model"], "loop": ", ".join(task["loops"]), "skipped": why}


def shown(line: dict[str, Any]) -> str:
    """Return a line of the table."""
    if line["loop"] == "weights":
        differ = line.get("differing")
        same = f"the same to the bit after {line.get('steps')} deterministic steps"
        what = same if differ == [] else f"{len(differ or ())} tensors differ: {differ}"
        return f"{line['model']}: weights of graph and eager steps: {line.get('failed') or what}"
    if "skipped" in line:
        return f"{line['model']}: {line['loop']}: skipped, {line['skipped']}"
    start = f"{line['model']:22}{line['batch']:>6}  {line['loop']:28}"
    if "failed" in line:
        return f"{start}failed: {line['failed']}"
    return (
        f"{start}{line['images_per_second']:>12,.0f}{line['roofline_percent']:>11.1f}"
        f"{line.get('launches', ''):>10}  {line.get('waits', '')}"
    )


HEADINGS = (
    f"{'model':22}{'batch':>6}  {'loop':28}{'images/s':>12}{'roofline %':>11}{'launches':>10}  "
    "waits"
)


def run_all(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Run every task, print its lines, and return them."""
    budget, found = Budget(given.minutes), []
    print(HEADINGS, flush=True)
    first = tuple(loop for loop in FIRST if given.device == "cuda" or loop != "graph")
    quick = {"quick": given.quick, "side": 256 if given.quick else 8192}
    for loops in (first, () if given.quick else COMPILED):
        for model in given.models if loops else ():
            task = {"model": model, "batches": given.batches, "loops": loops, **quick}
            if not budget.left:
                lines: Any = [
                    {"model": model, "loop": ", ".join(loops), "skipped": "the minutes were over"}
                ]
            else:
                lines = lines_of(task, given.device, budget)
            for line in lines:
                found.append(line)
                print(shown(line), flush=True)
    return found


def count_all(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Count a step's launches on the device that does nothing."""
    sys.path.insert(0, str(HERE / "null_cuda"))
    import launches
    import null_device

    if missing := null_device.missing():
        sys.exit(f"error: {missing}")
    found = []
    print("nothing is computed: these are counts alone", flush=True)
    print(
        f"{'model':22}{'batch':>6}  {'loop':8}{'kernels':>9}{'graphs':>8}{'waits':>7}", flush=True
    )
    with tempfile.TemporaryDirectory() as folder:
        null_device.build(Path(folder))
        for batch in given.batches:
            told = list(product(("eager", "graph"), given.models))
            graph = {"eager": "off", "graph": "on"}
            steps = [
                launches.step(MODELS[name], {"cuda_graph": graph[mode]}, batch, SIZE)
                for mode, name in told
            ]
            for (mode, name), line in zip(told, launches.counted(steps, Path(folder)), strict=True):
                counts = line["counts"]
                kernels, graphs = counts.get("kernel", 0), counts.get("GraphLaunch", 0)
                waits = launches.total(counts, "sync")
                found.append({"model": name, "batch": batch, "loop": mode, "counts": counts})
                cells = f"{kernels:>9,}{graphs:>8}{waits:>7}"
                print(f"{name:22}{batch:>6}  {mode:8}{cells}", flush=True)
    return found


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu", "null"), default="cuda")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--batches", help="128,512 unless it is quick")
    parser.add_argument("--quick", action="store_true", help="two steps each, nothing compiled")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="all that was found")
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.models = given.models.split(",")
    if wrong := [name for name in given.models if name not in MODELS]:
        parser.error(f"no model {wrong[0]}; models: {', '.join(MODELS)}")
    if given.batches is None:
        given.batches = "8" if given.quick else "128,512"
    try:
        given.batches = [int(number) for number in given.batches.split(",")]
    except ValueError:
        parser.error(f"--batches takes numbers, 128,512, not {given.batches}")
    if not given.minutes > 0:
        parser.error("--minutes is more than 0")
    return given


def main() -> int:
    given = parsed()
    if given.task is not None:
        child(given.task)
        return 0
    if given.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            print(
                "error: PyTorch sees no CUDA device here; --device null counts without one, "
                "--device cpu --quick goes through the code",
                file=sys.stderr,
            )
            return 2
        print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}", flush=True)
    found = count_all(given) if given.device == "null" else run_all(given)
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"written: {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
