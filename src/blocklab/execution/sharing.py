"""How a study shares a machine: so many workers, so many threads each, and why.

Runs are independent, so cores are best used across them: two runs of one thread each beat one
after the other on two (the parts of a step that do not parallelise then overlap). The split is a
function of the machine and the study alone, never of what else the machine does, so that the same
study on the same machine has the same threads, and so the same bits.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from blocklab.blocks.plugins import plugin_errors
from blocklab.errors import InputError
from blocklab.models.meta_device import QuickShapes
from blocklab.models.probe import blank_images
from blocklab.training.device import available_cores
from blocklab.training.run import RunDefinition

PROCESS_BYTES = 600 << 20  # Python, PyTorch and its buffers, before any network
SHARE_OF_MEMORY = 0.8


@dataclass(frozen=True)
class Sharing:
    """Workers beside each other, threads of each, GPUs to give them, and the reason."""

    workers: int
    threads: int
    devices: int
    reason: str

    def __str__(self) -> str:
        runs = f"{self.workers} run{'s' * (self.workers > 1)} at a time"
        return f"{runs}, {self.threads} thread{'s' * (self.threads > 1)} each: {self.reason}"


def share_machine(
    runs: int,
    workers: int | None = None,
    threads: int | None = None,
    kept_threads: int | None = None,
    run_bytes: int = 0,
) -> Sharing:
    """Decide how many workers and threads; what is given is kept to, or refused.

    Args:
        runs: all of the study's, finished ones too, so that a rerun is shared as the first was.
        workers: None is decided here.
        threads: of each run; None is decided here.
        kept_threads: that the study's runs began with.
        run_bytes: memory of the largest run, as `run_memory` estimates it.

    Raises:
        InputError: if the machine has fewer cores.
    """
    cores, devices = available_cores(), torch.cuda.device_count()
    for what, number in (("workers", workers), ("threads", threads)):
        if number is not None and not 1 <= number <= cores:
            raise InputError(
                f"this machine has {cores} cores to share: set --{what} from 1 to {cores}"
            )
    reason = "as asked"
    if threads is None and kept_threads is not None:
        threads, reason = kept_threads, "as the study's runs began"
    if workers is None:
        most = min(devices or cores, cores // (threads or 1)) or 1
        workers = min(most, max(1, runs))
        if devices:
            reason = f"a run a GPU ({devices})"
        elif workers < most:
            reason = f"the study has {runs} run{'s' * (runs > 1)}"
        elif threads is None:
            reason = "cores are used best across runs"
        memory = machine_memory()
        fitting = max(1, int(SHARE_OF_MEMORY * memory / run_bytes)) if run_bytes else workers
        if not devices and fitting < workers:
            workers = fitting
            reason = f"more runs of about {run_bytes >> 20:,} MB would not fit the memory"
    threads = threads or max(1, cores // workers)
    if workers == 1 and threads == kept_threads:  # of a larger machine: they are kept, for the bits
        return Sharing(workers, threads, devices, reason)
    if workers * threads > cores:
        raise InputError(
            f"{workers} workers of {threads} threads are more than the {cores} cores of this "
            f"machine; set --workers {max(1, cores // threads)} or --threads {cores // workers}"
        )
    return Sharing(workers, threads, devices, reason)


def machine_memory() -> int:
    """Bytes of memory that this process's group may use at most."""
    found = []
    with suppress(OSError, ValueError, IndexError):
        line = Path("/proc/meminfo").read_text().split("MemTotal:")[1]
        found.append(int(line.split()[0]) * 1024)
    for file in ("memory.max", "memory/memory.limit_in_bytes"):  # control groups, new and old
        with suppress(OSError, ValueError):
            found.append(int((Path("/sys/fs/cgroup") / file).read_text()))
    return min(found, default=8 << 30)


@plugin_errors()
def run_memory(definition: RunDefinition, classes: int, image_size: int) -> int:
    """Estimate the bytes of memory that training takes on a CPU.

    The process itself; weights, gradients, the optimizer's two buffers and the average's; what
    the backward pass needs of a batch, counted without memory on the meta device, and a quarter
    more for what comes and goes.
    """
    model = definition.model.build_meta(classes).train()
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with QuickShapes(), hooks:
        logits = model(blank_images(model, image_size, 2))
    del logits
    recipe = definition.recipe
    copies = 4 + (recipe.ema_decay is not None)
    weights = copies * sum(4 * parameter.numel() for parameter in model.parameters())
    activations = sum(kept.values()) // 2 * recipe.batch_size
    return PROCESS_BYTES + weights + activations * 5 // 4
