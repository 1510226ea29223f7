"""Networks through `torch.compile`."""

from typing import cast

import torch
from torch import nn

from blocklab.training.device import Setup
from blocklab.training.recipe import USUAL_MODE


def compiled_network(model: nn.Module, setup: Setup) -> nn.Module:
    """Return the model to train through: compiled where the setup says so, else as it is.

    Its code is for maps of fixed sizes: a graph for any size, made when the last batch comes, would
    make bits depend on a resume. What this process compiled before goes: of a class of networks
    PyTorch keeps 256 pieces of code, and runs the next ones uncompiled, with a warning at most.
    """
    if not setup.compiled:
        return model
    torch.compiler.reset()
    mode = None if setup.compiled == USUAL_MODE else setup.compiled
    return cast(nn.Module, torch.compile(model, dynamic=False, mode=mode))
