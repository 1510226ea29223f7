"""Frequency Channel Attention. Qin, Zhang, Wu and Li, ICCV 2021, arXiv:2012.11929, section 3.2."""

from typing import Annotated

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from blocklab.blocks.registry import register_block
from blocklab.kernels.cosine_bases import cosine_bases
from blocklab.kernels.gates import gated_product

# Frequencies (of rows, of columns) in a space of 7 x 7, the best first by what each alone gives on
# ImageNet (section 4.2 and the authors' code).
_SPACE = 7
# fmt: off
_BEST = (
    (0, 0), (0, 1), (6, 0), (0, 5), (0, 2), (1, 0), (1, 2), (4, 0), (5, 0), (1, 6), (3, 0),
    (0, 4), (0, 6), (0, 3), (3, 5), (2, 2), (4, 6), (6, 3), (3, 3), (5, 3), (5, 5), (2, 1),
    (6, 1), (5, 2), (5, 4), (3, 2), (3, 1), (4, 1), (2, 3), (2, 0), (6, 5), (1, 3),
)
# fmt: on


@register_block("fca")
class FrequencyChannelAttention(nn.Module):
    """Gate each channel by a small network of all channels' frequencies: (B, C, H, W) -> same.

    Channels are split into ``frequencies`` groups; group i is summed over positions with a basis
    B_i of length 1 of the map's two-dimensional cosine transform, z = sum_{hw}(x * B_i), and
    y = x * sigmoid(W2 relu(W1 z)), with W1 to max(1, C // reduction) channels. The groups take the
    paper's best frequencies of a space of 7 x 7 (its "top16"), spread over the map's own: u of 7 is
    floor(u * H / 7) of H, which on a map of one pixel leaves the mean. Parameters are named as the
    authors' (``fc.0``, ``fc.2``, without biases).

    Differs from the paper: nothing where both sides divide by 7; the authors pool other maps to
    7, 14, 28 or 56 pixels a side first. Channels that do not divide by ``frequencies`` are split
    as evenly as can be.

    Args:
        reduction: the gate's small network has C // reduction channels.
        frequencies: groups of channels, each summed with a frequency of its own.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: PositiveInt = 16,
        frequencies: Annotated[int, Field(ge=1, le=len(_BEST))] = 16,
    ) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.frequencies = _BEST[:frequencies]
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, channels, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2], x.shape[3]
        means = (x * cosine_bases(x, self.frequencies, _SPACE)).mean((2, 3))  # (B, C)
        # A sum over a basis of length 1 is sqrt(H * W) times such a mean. It may be beyond float16,
        # so it is multiplied in behind the network, which has no biases.
        scores = self.fc(means) * (height * width) ** 0.5
        return gated_product(x, [scores.sigmoid().unflatten(1, (-1, 1, 1))])
