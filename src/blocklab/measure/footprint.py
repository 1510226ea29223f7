"""What training takes of memory, estimated before any is taken; and what the machine has."""

from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from torch import nn

from blocklab.blocks.plugins import plugin_errors
from blocklab.errors import InputError
from blocklab.kernels.recording import memory_counted
from blocklab.measure.device import gpu_count
from blocklab.models.meta_device import QuickShapes
from blocklab.models.probe import ImageSize, blank_images
from blocklab.models.timm_models import image_errors

PROCESS_BYTES = 850 << 20  # what Python takes that has imported all that trains, before any network


@dataclass(frozen=True)
class Footprint:
    """Bytes of a network's parameters, and of what a training step keeps of each image.

    `once` are those that it keeps whatever the batch, such as standardised kernels.
    """

    weights: int
    activations: int
    once: int = 0

    def training_bytes(self, batch_size: int, copies: int = 4) -> int:
        """Estimate the bytes that training takes on a CPU.

        The process itself; `copies` of the weights (themselves, gradients, the optimizer's two
        buffers); what the backward pass needs of a batch, and a quarter more for what comes and
        goes.
        """
        activations = self.once + self.activations * batch_size
        return PROCESS_BYTES + copies * self.weights + activations * 5 // 4


@plugin_errors()
def footprint(model: nn.Module, image_size: ImageSize, lean: bool = True) -> Footprint:
    """Count what a network on the meta device, in training mode, would keep; takes no memory.

    By the lean forms of kernels, as a processor trains, or by the plain ones, as a GPU does.
    """
    # Of what grows with the batch alone the backward pass needs more for more images.
    fewer, more = (_kept(model, image_size, lean, images) for images in (2, 4))
    weights = sum(4 * parameter.numel() for parameter in model.parameters())
    per_image = max(0, more - fewer) // 2
    return Footprint(weights, per_image, max(0, fewer - 2 * per_image))


def _kept(model: nn.Module, image_size: ImageSize, lean: bool, images: int) -> int:
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    forms = memory_counted() if lean else nullcontext()
    with forms, QuickShapes(), hooks, image_errors(model, image_size):
        logits = model(blank_images(model, image_size, images))
    del logits
    return sum(kept.values())


def machine_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory that this process's group, and all that it stands in, may use at most."""
    found = []
    with suppress(OSError, ValueError, IndexError):
        line = (proc / "meminfo").read_text().split("MemTotal:")[1]
        found.append(int(line.split()[0]) * 1024)
    for file in _limits(proc, groups):
        with suppress(OSError, ValueError):
            found.append(int(file.read_text()))
    return min(found, default=8 << 30)


def _limits(proc: Path, groups: Path) -> Iterator[Path]:
    """Return where limits of memory may stand: of control groups, new and old, up to the root."""
    kinds = {"": ("", "memory.max"), "memory": ("memory", "memory.limit_in_bytes")}
    places = dict.fromkeys(kinds, "/")  # in a container that does not say, the root is its own
    with suppress(OSError):
        for line in (proc / "self/cgroup").read_text().splitlines():
            _, controllers, place = (*line.split(":", 2), "", "")[:3]
            for kind in kinds:
                if kind in controllers.split(","):
                    places[kind] = place
    for kind, (folder, file) in kinds.items():
        inner = PurePosixPath(places[kind].lstrip("/"))
        for group in (inner, *inner.parents):
            yield groups / folder / group / file


def fits_machine(needed: int) -> bool:
    """Whether so many bytes are there; on a GPU it is its allocator that says so."""
    return gpu_count() > 0 or needed <= machine_memory()


def check_memory(needed: int, what: str) -> None:
    """Refuse what would need more memory than the machine has, before it takes any.

    Raises:
        InputError: if it would; `what` begins the message.
    """
    if not fits_machine(needed):
        raise InputError(
            f"{what} would take about {needed >> 20:,} MB and this machine has "
            f"{machine_memory() >> 20:,} MB; use a smaller batch_size, network or image_size"
        )
