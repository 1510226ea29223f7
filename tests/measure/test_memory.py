"""Memory that the C library keeps between steps; in a process of its own, whose setting it is."""

import platform
import subprocess
import sys

import pytest

COUNT = """
import resource, sys
import torch
from blocklab.measure.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(64 << 20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
mapped = faults()
keep_freed_memory()
faults()  # the memory grows once
print(mapped, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    said = subprocess.run(
        [sys.executable, "-c", COUNT], capture_output=True, text=True, check=True
    ).stdout
    mapped, kept = map(int, said.split())
    assert mapped >= 4 * 64  # each page anew, even if they are of 1 MB
    assert kept < mapped / 10


PEAKS = """
import torch
from blocklab.measure.memory import keep_freed_memory, peak_memory, reset_peak_memory

def peak():
    reset_peak_memory()
    torch.ones(8 << 20, dtype=torch.uint8)
    return peak_memory(torch.device("cpu"))

keep_freed_memory()
peak()
before = peak()
torch.ones(512 << 20, dtype=torch.uint8)  # the run of a larger network
print(before, peak())
"""


@pytest.mark.skipif(platform.system() != "Linux", reason="elsewhere a peak is the whole life's")
def test_the_peak_of_a_run_is_not_that_of_the_one_before_it() -> None:
    said = subprocess.run(
        [sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True
    ).stdout
    before, after = map(int, said.split())
    assert after < before + (256 << 20)
