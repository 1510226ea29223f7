"""Gates that start open: an option of blocks that multiply a map by sigmoids.

A sigmoid of about 0 is a half, so that a block of such gates begins by halving what it gates, or by
quartering it where two gates multiply. Where training is short that looks like a bad block. A bias
of 4 makes a gate 0.98 to begin with, as the forget gates of LSTMs are opened (Jozefowicz, Zaremba
and Sutskever, ICML 2015).
"""

from typing import Annotated

from pydantic import Field
from torch import nn

from blocklab.blocks.option_types import ADDED_LATER

LARGEST = 16.0  # a sigmoid of it is 1 in bf16

# Of the layers whose outputs become gates, to begin with; None is as the paper starts them.
GateBias = Annotated[Annotated[float, Field(ge=-LARGEST, le=LARGEST)] | None, ADDED_LATER]


def open_gates(bias: float | None, *layers: nn.Conv2d) -> None:
    """Set the biases of layers before sigmoids; None leaves them as they are."""
    for layer in layers:
        if bias is not None and layer.bias is not None:
            nn.init.constant_(layer.bias, bias)
