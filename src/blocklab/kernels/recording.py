"""Whether a call is computed, or recorded by something that must see the papers' operators."""

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor  # type: ignore[import-not-found]


def is_recorded(x: Tensor) -> bool:
    """Whether an operation on `x` is traced, compiled, exported, transformed or counted.

    Then a kernel takes its plain form, in the operators of the papers: hand-written backward passes
    and cut kernels are for values, and a cost is that of the nominal convolution.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return True
    return (
        type(x) not in (Tensor, torch.nn.Parameter)  # first: of a proxy nothing can be asked
        or x.is_meta
        or torch._C._len_torch_dispatch_stack() > 0  # counters, fake tensors, torch.export
        or is_functorch_wrapped_tensor(x)  # vmap, jvp, functional gradients
    )
