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
        on_cuda = range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)
        with torch.random.fork_rng(devices=on_cuda):
            yield
    finally:
        np.random.set_state(numpy)
        random.setstate(python)
