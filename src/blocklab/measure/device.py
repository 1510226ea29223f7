"""What there is to compute on: devices, their names and memory, layouts and precisions.

The one place that speaks to CUDA and to Apple's MPS by name, but for what only one of them has
(CUDA graphs): all else asks here, so that no other kind of GPU is met unprepared.
"""

import os
import platform
from collections.abc import Mapping
from pathlib import Path

import torch

from blocklab.measure.launcher import local_rank

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}  # of products; weights are float32


def probe_device() -> torch.device:
    """Return the device that this process computes on: a GPU, else the processor.

    The first one, or where torchrun or SLURM started several processes here, this one's own.
    """
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank() % gpu_count())
    if torch.backends.mps.is_available():
        return torch.device("mps", 0)
    return torch.device("cpu")


def gpu_count() -> int:
    """How many GPUs this process may use; asking starts nothing on them."""
    if torch.backends.mps.is_available():
        return 1
    return torch.cuda.device_count()


def visible_gpus(count: int, environment: Mapping[str, str] = os.environ) -> tuple[str, list[str]]:
    """Return the variable that says which GPUs a process sees, and its value for each one of them.

    Where the variable is set, the GPUs are those that it names, by number or by UUID, in its
    order: the second of ``2,3`` is 3. PyTorch for AMD reads HIP_VISIBLE_DEVICES before CUDA's.
    """
    name = "CUDA_VISIBLE_DEVICES"
    if torch.version.hip and ("HIP_VISIBLE_DEVICES" in environment or name not in environment):
        name = "HIP_VISIBLE_DEVICES"
    given = environment.get(name)
    named = [] if given is None else [entry.strip() for entry in given.split(",")]
    return name, (named if given is not None else [str(n) for n in range(count)])[:count]


def wait(device: torch.device) -> None:
    """Wait until the device has done what it was given; a processor has at once."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def widest(device: torch.device) -> torch.dtype:
    """Return the widest floats that the device computes with: Apple's GPUs have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, check, lambda: False)() for check in checks)
    return False


def device_name(device: torch.device) -> str:
    """Name the GPU, or the processor, of which Apple's GPUs are a part."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()} GPU" if device.type == "mps" else processor()


def device_identity(device: torch.device) -> str:
    """Return what tells a GPU from the others of the machine, whichever of them a process sees."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_properties(device).uuid)
    return device.type


def free_memory(device: torch.device) -> int:
    """Return the bytes of a GPU's memory that nobody holds."""
    if device.type == "mps":  # it is the machine's, of which the system recommends so much
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return torch.accelerator.get_memory_info(device)[0]


def reset_peak(device: torch.device) -> None:
    """Begin to count a GPU's memory anew."""
    if device.type == "cuda":
        torch.cuda.init()  # before it has begun, PyTorch 2.11 refuses
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "mps":
        torch.mps.empty_cache()


def allocated(device: torch.device) -> int:
    """Return the bytes of a GPU's memory that tensors hold now."""
    if device.type == "mps":
        return torch.mps.current_allocated_memory()
    return torch.accelerator.memory_allocated(device)


def most_allocated(device: torch.device) -> int:
    """Return the most bytes that tensors held since `reset_peak`.

    On Apple's GPUs, which do not count those, what was reserved for tensors.
    """
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return torch.accelerator.max_memory_allocated(device)


def reserved(device: torch.device) -> int:
    """Return the bytes of a GPU's memory that are reserved for tensors now."""
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return torch.accelerator.memory_reserved(device)


def most_reserved(device: torch.device) -> int:
    """Return the most bytes that were reserved for tensors since `reset_peak`."""
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return torch.accelerator.max_memory_reserved(device)


def empty_cache(device: torch.device) -> None:
    """Give back the GPU's memory that is reserved for tensors and holds none."""
    if device.type == "mps":
        torch.mps.empty_cache()
    elif device.type == "cuda":
        torch._C._cuda_clearCublasWorkspaces()  # 32 MB a stream that anything was multiplied on
        torch.accelerator.empty_cache()


def processor() -> str:
    """Name the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
