"""Group normalisation that takes a group of one value too."""

import torch
from torch import Tensor, nn


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm`, with its arguments; it gives a group of one value its bias.

    Such is a map of one position whose channels are normed by themselves; PyTorch's own refuses it
    where the batch is one such group.
    """

    def forward(self, input: Tensor) -> Tensor:
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)
