"""Ways to run one network: layouts and precisions, as it is, compiled, or as one CUDA graph."""

import importlib.util
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from blocklab.blocks.protocol import mixed_by
from blocklab.errors import BlocklabError
from blocklab.measure.device import LAYOUTS, PRECISIONS, has_fast_bf16, probe_device
from blocklab.measure.graphs import WARM_UP_STEPS, aside
from blocklab.measure.timing import Step, time_in_turn, training_step
from blocklab.models.graph_export import GraphForm, write_onnx
from blocklab.models.probe import ImageSize, noise_images

TRAINING, INFERENCE, DEPLOYED = "training", "inference", "inference, deployed"
EAGER, COMPILED, GRAPH = "eager", "compiled", "graph"
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Way:
    """What is done, and how: all by name."""

    work: str
    layout: str
    precision: str
    mode: str = EAGER


def precisions(device: torch.device) -> dict[str, torch.dtype]:
    """Return those to be timed, by name: fp16 in place of bf16 on a GPU that has no bf16."""
    if device.type == "cuda" and not has_fast_bf16(device):
        return {"fp32": torch.float32, "fp16": torch.float16}
    return PRECISIONS


def make_step(network: nn.Module, way: Way, size: ImageSize, images: int) -> Step:
    """Return a function that does one batch of the work, on a network of the way's layout.

    Raises:
        Exception: whatever the network does that cannot be captured as a graph.
    """
    batch = noise_images(network, size, images).contiguous(memory_format=LAYOUTS[way.layout])
    labels = torch.zeros(images, dtype=torch.long, device=batch.device)
    dtype = precisions(batch.device)[way.precision]
    half = dtype != torch.float32
    autocast = partial(torch.autocast, batch.device.type, dtype if half else None, enabled=half)
    compiled = torch.compile(network, dynamic=False, disable=way.mode != COMPILED)
    run = cast(nn.Module, compiled)

    def infer() -> None:
        with torch.inference_mode(), autocast():
            run(batch)

    step: Step = infer
    if way.work == TRAINING:
        step = training_step(run, batch, lambda logits: F.cross_entropy(logits, labels), autocast)
    return replayed(step) if way.mode == GRAPH else step


def replayed(step: Step) -> Step:
    """Capture a step as a CUDA graph; return what replays it.

    A graph holds addresses alone: what the step refers to lives for as long as what is returned.

    Raises:
        Exception: whatever the step does that no graph may.
    """
    with aside():
        for _ in range(WARM_UP_STEPS):
            step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return partial(_replay, graph, step)


def _replay(graph: torch.cuda.CUDAGraph, captured: Step) -> None:
    graph.replay()


def onnxruntime_latency(
    network: nn.Module, size: ImageSize, rounds: int
) -> tuple[float | None, str]:
    """Return the median milliseconds of one image in ONNX Runtime on the processor, and a word.

    The word says what it is of, or why there is no number. `network` is on the processor.
    """
    missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        return None, f"left out: {', '.join(missing)} not installed"
    if said := mixed_by(network):
        return None, f"left out: one image alone is none, {said}"
    import onnxruntime

    try:
        with tempfile.TemporaryDirectory(prefix="blocklab-bench-") as folder:
            path = Path(folder) / "network.onnx"
            images = noise_images(network, size, 2)  # of one alone the batch would be fixed
            run = write_onnx(network, images, path, {}, GraphForm(), ("logits",))
            times = time_in_turn({"one": partial(run, images[:1])}, max(5, rounds))["one"]
    except (BlocklabError, OSError) as error:
        return None, f"left out: {error}"
    return 1000 * sorted(times)[len(times) // 2], f"ONNX Runtime {onnxruntime.__version__}"


def best_of_matrices(side: int) -> dict[str, float]:
    """Return MACs a second of the best of a few products of square matrices, a precision each."""
    device = probe_device()
    found = {}
    for name, dtype in precisions(device).items():
        matrix = torch.randn(side, side, device=device, dtype=dtype)
        out = torch.empty_like(matrix)
        times = time_in_turn({name: partial(torch.mm, matrix, matrix, out=out)}, 3)[name]
        found[name] = side**3 / min(times)
    return found
