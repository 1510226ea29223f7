"""How exactly a device computes: cuDNN's choice of algorithm, TF32, deterministic operations."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"  # read when cuBLAS starts; without it, it is not deterministic


def settings(device: torch.device, deterministic: bool) -> dict[str, Any]:
    """Return what run.json says of a run's arithmetic: what is fast, unless it must repeat."""
    found: dict[str, Any] = {"deterministic": True} if deterministic else {}
    if device.type == "cuda":
        found |= {"cudnn_benchmark": not deterministic, "tf32": not deterministic}
    return found


@contextmanager
def arithmetic(device: torch.device, deterministic: bool) -> Iterator[None]:
    """Compute so within it; afterwards the process's settings are as before."""
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    empty: Any = torch.utils.deterministic
    before = (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32)
    was = torch.are_deterministic_algorithms_enabled()
    filled = empty.fill_uninitialized_memory
    try:
        if device.type == "cuda":
            cudnn.benchmark = cudnn.allow_tf32 = matmul.allow_tf32 = not deterministic
        if deterministic:
            os.environ.setdefault(CUBLAS, ":4096:8")
            torch.use_deterministic_algorithms(True)
            # Else each new tensor is filled with NaN first, which doubles the launches of a step.
            empty.fill_uninitialized_memory = False
        yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before
        torch.use_deterministic_algorithms(was)
        empty.fill_uninitialized_memory = filled
