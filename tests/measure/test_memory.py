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
