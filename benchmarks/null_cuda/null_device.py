"""PyTorch's CUDA backend on a device that does nothing: launches, copies and waits are counted.

The runtime, cuBLAS and the driver are replaced by the libraries that `build` makes of the C files
here; cuDNN's convolutions and norms, which have no place in those, by operators registered below.
Device memory is main memory, and no kernel runs, so that no value means anything. What is counted
is what a GPU would be told. It needs a C++ compiler and a CUDA build of PyTorch, and no GPU.
"""

import ctypes
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LIBRARY = "libnullcuda.so"


def missing() -> str | None:
    """Say what this machine lacks for it, or None if nothing."""
    import torch

    if torch.version.cuda is None:
        return "PyTorch here has no CUDA"
    if not shutil.which("g++") or not shutil.which("gcc"):
        return "there is no C++ compiler"
    if _headers() is None:
        return "the headers of the CUDA runtime are not installed"
    return None


def build(out: Path) -> None:
    """Compile the stand-ins into a folder."""
    include, common = [f"-I{HERE / 'inc'}", f"-I{_headers()}"], ["-O1", "-w", "-shared", "-fPIC"]
    sources = [str(HERE / name) for name in ("cudart_null.cpp", "cublas_null.cpp")]
    subprocess.run(["g++", *common, *include, *sources, "-o", str(out / LIBRARY)], check=True)
    driver = ["gcc", *common, str(HERE / "cuda_null.c"), "-o", str(out / "libcuda.so.1")]
    subprocess.run(driver, check=True)


def run(script: Path, arguments: Sequence[str], built: Path, timeout: float) -> str:
    """Run a script of this folder on the null device; return what it printed."""
    paths = [str(built), os.environ.get("LD_LIBRARY_PATH", "")]
    added = {
        "LD_PRELOAD": str(built / LIBRARY),
        "NULLGPU_LIB": str(built / LIBRARY),
        "LD_LIBRARY_PATH": ":".join(path for path in paths if path),
        "OMP_NUM_THREADS": "1",
        "BLOCKLAB_CACHE": str(built / "cache"),
        "TORCHINDUCTOR_CACHE_DIR": str(built / "inductor"),
        "TRITON_CACHE_DIR": str(built / "triton"),
    }
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env=os.environ | added,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if done.returncode:
        raise RuntimeError(f"{script.name} failed:\n{done.stderr[-4000:]}")
    return done.stdout


def _headers() -> Path | None:
    packages = Path(sysconfig.get_paths()["purelib"]) / "nvidia"
    found = sorted(packages.rglob("driver_types.h"))
    return found[0].parent if found else None


class Counter:
    """The counts of this process, which runs on the null device."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ["NULLGPU_LIB"])
        self._library.nullgpu_report.restype = ctypes.c_char_p
        self._register()

    def reset(self) -> None:
        """Begin anew."""
        self._library.nullgpu_reset()

    def counts(self) -> dict[str, int]:
        """Return how often what was asked for: ``kernel``, ``memcpy:H2D-pageable``, …"""
        lines = self._library.nullgpu_report(0).decode().splitlines()
        return {name: int(count) for name, _, count in (line.rpartition("\t") for line in lines)}

    def kernels(self) -> dict[str, int]:
        """Return how often each kernel was launched, by its mangled name."""
        lines = self._library.nullgpu_report(1).decode().splitlines()
        return {name: int(count) for name, _, count in (line.rpartition("\t") for line in lines)}

    def _launched(self, name: str) -> None:
        self._library.nullgpu_kernel(name.encode())

    def _register(self) -> None:
        import torch

        self._aten = torch.library.Library("aten", "IMPL")
        for name, operator in (
            ("cudnn_convolution", self._convolution),
            ("convolution_backward", self._convolution_backward),
            ("cudnn_batch_norm", self._batch_norm),
            ("cudnn_batch_norm_backward", self._batch_norm_backward),
        ):
            self._aten.impl(name, operator, "CUDA")
        # Attention by PyTorch's own kernels: cuDNN, which is not there, would be asked first.
        torch.backends.cuda.enable_cudnn_sdp(False)

    def _convolution(self, x: Any, weight: Any, padding: Any, stride: Any, dilation: Any, *_: Any):
        import torch

        backend: Any = torch._C._ConvBackend.Cudnn
        layout = torch._C._conv_determine_backend_memory_format(x, weight, backend)
        x, weight = (t.contiguous(memory_format=layout) for t in (x, weight))
        sizes = [
            (size + 2 * pad - spread * (taps - 1) - 1) // step + 1
            for size, pad, spread, taps, step in zip(
                x.shape[2:], padding, dilation, weight.shape[2:], stride, strict=True
            )
        ]
        shape = (x.shape[0], weight.shape[0], *sizes)
        self._launched("cudnn:convolution_forward")
        return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)

    def _convolution_backward(
        self,
        grad: Any,
        x: Any,
        weight: Any,
        bias_sizes: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        transposed: Any,
        output_padding: Any,
        groups: Any,
        mask: Any,
    ) -> Any:
        import torch

        bias = torch.empty(list(bias_sizes or []), device=x.device, dtype=weight.dtype)
        backend: Any = torch._C._select_conv_backend(
            x,
            weight,
            bias if mask[2] else None,
            *(list(stride), list(padding), list(dilation)),
            *(transposed, list(output_padding), groups, list(bias_sizes or [])),
        )
        layout = torch._C._conv_determine_backend_memory_format(x, weight, backend)
        grad, x, weight = (t.contiguous(memory_format=layout) for t in (grad, x, weight))
        found: list[Any] = [None, None, None]
        for number, like in ((0, x), (1, weight)):
            if mask[number]:
                self._launched(f"{str(backend).rpartition('.')[2]}:convolution_backward")
                found[number] = torch.empty_like(like)
        if mask[2]:
            found[2] = grad.sum((0, *range(2, grad.ndim)))
        return tuple(found)

    def _batch_norm(self, x: Any, weight: Any, *others: Any) -> Any:
        import torch

        self._launched("cudnn:batch_norm_forward")
        size = x.shape[1] if others[3] else 0
        kept = [torch.empty(size, device=x.device) for _ in range(2)]
        return torch.empty_like(x), *kept, torch.empty(1024, dtype=torch.uint8, device=x.device)

    def _batch_norm_backward(self, x: Any, grad: Any, weight: Any, *_: Any) -> Any:
        import torch

        self._launched("cudnn:batch_norm_backward")
        kept = [torch.empty(x.shape[1], device=x.device) for _ in range(2)]
        return torch.empty_like(x), *kept
