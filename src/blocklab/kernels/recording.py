"""Which form of a kernel a call takes: the plain one, in the papers' operators, or the lean one."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor  # type: ignore[import-not-found]
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

_lean_on_gpus = False  # of the process, which trains one run at a time, its backward threads too
_memory_counted = ContextVar("_memory_counted", default=False)


@contextmanager
def lean_on_gpus(lean: bool) -> Iterator[None]:
    """Within it, gates and poolings take their lean forms on a GPU too, or do not."""
    global _lean_on_gpus
    before, _lean_on_gpus = _lean_on_gpus, lean
    try:
        yield
    finally:
        _lean_on_gpus = before


@contextmanager
def memory_counted() -> Iterator[None]:
    """Within it, maps on the meta device take the forms that a processor trains by.

    Elsewhere they take the plain ones, whose costs are the papers'; but what is counted here is
    what training keeps in memory, and that is why the others are there.
    """
    before = _memory_counted.set(True)
    try:
        yield
    finally:
        _memory_counted.reset(before)


def is_memory_counted(x: Tensor) -> bool:
    """Whether `x` is a map whose memory is counted, and nothing of it computed.

    On the meta device its order in memory is not known; a processor trains in channels_last.
    """
    return _memory_counted.get() and type(x) is Tensor and x.is_meta


def is_compiled() -> bool:
    """Whether `torch.compile` looks at the call to make code of it, for maps of these sizes.

    It orders and merges operations itself, so that gates and poolings take their plain form; but
    which taps of a kernel meet a map is not for it to find out. An export, which is for maps of
    any size, is not meant.
    """
    return torch.compiler.is_compiling() and not torch.compiler.is_exporting()


def is_recorded(x: Tensor) -> bool:
    """Whether an operation on `x` is traced, exported, transformed or counted.

    Then a kernel takes its plain form, in the operators of the papers: hand-written backward passes
    and cut kernels are for values, and a cost is that of the nominal convolution.
    """
    if torch.compiler.is_compiling():
        return torch.compiler.is_exporting()
    return (
        torch.jit.is_tracing()
        or type(x) not in (Tensor, torch.nn.Parameter)  # first: of a proxy nothing can be asked
        or x.is_meta
        or torch._C._len_torch_dispatch_stack() > 0  # counters, fake tensors, torch.export
        or is_functorch_wrapped_tensor(x)  # vmap, jvp, functional gradients
    )


def is_counted() -> bool:
    """Whether operations are counted as they are computed, and none is written down."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() == 0:
        return False
    return not any(isinstance(one, FakeTensorMode) for one in _get_current_dispatch_mode_stack())


def is_traced(x: Tensor) -> bool:
    """Whether a call on `x` is recorded or compiled: what is computed is then written down."""
    return is_compiled() or is_recorded(x)


def is_plain_better(x: Tensor) -> bool:
    """Whether the plain form of a gate or pooling is the better one for `x`.

    Besides where the call is recorded or compiled, on a GPU: there each operation is launched, the
    lean forms have more of them, and maps are read and written more often. What those save is
    memory: where that is short, `lean_on_gpus` takes them.
    """
    if is_memory_counted(x):
        return False
    return is_traced(x) or (x.device.type != "cpu" and not _lean_on_gpus)
