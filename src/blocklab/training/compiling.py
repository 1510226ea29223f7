"""Networks through `torch.compile`."""

from typing import cast

import torch
from torch import nn

from blocklab.training.device import Setup
from blocklab.training.recipe import USUAL_MODE


def compiled_network(model: nn.Module, setup: Setup) -> nn.Module:
    """Return the model to train through: compiled where the setup says so, else as it is.

    Its code is for maps of fixed sizes: a graph for any size, made when the last batch comes, would
    make bits depend on a resume. PyTorch keeps code for eight networks of a class, last batches
    included, and runs the ninth uncompiled without a word: what a process compiled before goes.
    """
    if not setup.compiled:
        return model
    torch.compiler.reset()
    mode = None if setup.compiled == USUAL_MODE else setup.compiled
    return cast(nn.Module, torch.compile(model, dynamic=False, mode=mode))
