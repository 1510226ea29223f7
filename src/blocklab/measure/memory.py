"""Peak memory: of a process on the CPU, of PyTorch's allocator on a GPU."""

import ctypes
import gc
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

from blocklab.measure.device import (
    allocated,
    empty_cache,
    most_allocated,
    probe_device,
    reset_peak,
)

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # glibc's mallopt: what is given back, what is mapped


def reset_peak_memory() -> None:
    """Begin to count anew, where the system can (Linux; elsewhere the process's whole life).

    What the C library keeps of freed memory is given back first: it would count as in use.
    """
    reset_peak(probe_device())
    release_freed_memory()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Return the largest number of bytes in use since the last reset."""
    if device.type != "cpu":
        return most_allocated(device)
    return _of_process("VmHWM")


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next step (glibc; elsewhere nothing happens).

    By default it maps each large tensor anew and the system zeroes every page of it: a tenth of a
    training step's time on processors, or more (``benchmarks/kept_memory.py``). What is kept counts
    as the process's memory until `release_freed_memory`.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def release_freed_memory() -> None:
    """Give the system back what the C library keeps of freed memory (glibc; elsewhere nothing)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def release_memory() -> None:
    """Give back what was measured with and is done with: networks, graphs and their pools, caches.

    Of a GPU; a processor's goes as the tensors go.
    """
    if (device := probe_device()).type != "cpu":
        gc.collect()  # networks, optimizers and graphs hold each other in circles
        empty_cache(device)


def current_memory(device: torch.device) -> int:
    """Return the bytes in use now (where the system does not say, the peak)."""
    if device.type != "cpu":
        return allocated(device)
    return _of_process("VmRSS")


def _of_process(field: str) -> int:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        line = next(line for line in lines if line.startswith(f"{field}:"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
