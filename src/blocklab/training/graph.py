"""A whole training step as one CUDA graph: one launch in place of hundreds or thousands."""

import pickle
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from blocklab.measure.device import wait
from blocklab.measure.graphs import WARM_UP_STEPS, aside
from blocklab.training.step import TrainingStep


class GraphedStep:
    """Replays a step on full batches; others, and the first few, run as they are.

    The graph reads its batch, its learning rate and its decay from where they lay when it was
    captured, so each is copied there before a replay. A step that cannot be captured runs as it
    is, from the first on or from then on; `why_not` then says why. Nor is one whose network counts
    or draws in Python: a graph would repeat the number of the step that was captured.
    """

    def __init__(self, step: TrainingStep, batch_size: int) -> None:
        self.step, self.batch_size = step, batch_size
        # Of another optimizer the graph would hold the numbers of the step that was captured.
        self.why_not = "" if step.capturable else "its optimizer takes no rate from the device"
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, Tensor, Tensor] | None = None
        self._warmed = 0

    def __call__(self, images: Tensor, labels: Tensor, targets: Tensor, in_batch: int) -> None:
        """Do the step; see `TrainingStep`."""
        if self.why_not or in_batch != self.batch_size:
            self.step(images, labels, targets, in_batch)
        elif self._warmed < WARM_UP_STEPS:
            self._warmed += 1
            last = self._warmed == WARM_UP_STEPS  # what is set up once stands by now
            before = _in_python(self.step.network) if last else {}
            with aside():
                self.step(images, labels, targets, in_batch)
            if last:
                self.why_not = _moved(before, _in_python(self.step.network))
        else:
            self._replay((images, labels, targets))

    def _replay(self, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        if self._inputs is None:
            self._inputs = (batch[0].clone(), batch[1].clone(), batch[2].clone())
        torch._foreach_copy_(list(self._inputs), list(batch))
        if self._graph is None:
            try:
                self._graph = self._captured(*self._inputs)
            except Exception as error:  # whatever a block does that no graph may
                self.why_not = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
                self._inputs = None
                self.step.optimizer.zero_grad()
                self.step(*batch, self.batch_size)
                return
        self._graph.replay()

    def _captured(self, images: Tensor, labels: Tensor, targets: Tensor) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        wait(self.step.setup.device)
        with torch.cuda.graph(graph):
            self.step(images, labels, targets, self.batch_size)
        return graph


def _in_python(network: nn.Module) -> dict[str, Any]:
    """Return what a network may count or draw by outside the device, each under its name."""
    numpys: Any = np.random.get_state(legacy=False)
    found: dict[str, Any] = {
        "the state of Python's random numbers": random.getstate(),
        "the state of NumPy's random numbers": pickle.dumps(numpys),
        "the state of the processor's random numbers": torch.get_rng_state().numpy().tobytes(),
    }
    for number, module in enumerate(network.modules()):
        for name, value in vars(module).items():
            if isinstance(value, bool | int | float):
                found[f"{type(module).__name__}.{name}\0{number}"] = value
    return found


def _moved(before: dict[str, Any], after: dict[str, Any]) -> str:
    for name, value in after.items():
        if name in before and not (before[name] == value or value != value):
            return f"{name.partition(chr(0))[0]} changes in each step, and would not in a graph"
    return ""
