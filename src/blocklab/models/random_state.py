"""The random numbers of whoever calls: the same after what draws for itself."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Give PyTorch (every device in use), NumPy and Python their random states back afterwards."""
    numpy, python = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=_in_use()):
            yield
    finally:
        np.random.set_state(numpy)
        random.setstate(python)


def _in_use() -> range:
    """The numbers of the GPUs that this process has begun to use: asking others would begin it."""
    gpu = torch.accelerator.current_accelerator()
    if gpu is None or not getattr(torch.get_device_module(gpu), "is_initialized", lambda: True)():
        return range(0)
    return range(torch.accelerator.device_count())
