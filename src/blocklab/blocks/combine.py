"""Several attentions in one place, as a mean instead of a chain."""

import torch
from torch import Tensor, nn

from blocklab.blocks.registry import AttentionChain, create_block, parse_chain, register_block
from blocklab.errors import InputError


@register_block("mean")
class MeanOfAttentions(nn.Module):
    """The mean of what several attentions make of x: (B, C, H, W) -> same.

    As Triplet Attention combines its three branches (arXiv:2010.03045, section 3.3), for any
    attentions: ``{type: mean, of: [se, triplet]}``.

    Args:
        of: the attentions, each a name or a mapping with its options.
    """

    def __init__(self, channels: int, *, of: AttentionChain = []) -> None:  # noqa: B006
        super().__init__()
        if not of:
            raise InputError("'mean' needs attentions to average, such as of: [se, triplet]")
        self.branches = nn.ModuleList(
            create_block("attention", spec, channels=channels) for spec in parse_chain(of)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([branch(x) for branch in self.branches]).mean(0)
