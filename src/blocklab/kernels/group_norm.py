"""Group normalisation that takes a group of one value too."""

import torch
from torch import Tensor, nn

from blocklab.kernels.recording import is_plain_better


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm`, with its arguments; it gives a group of one value its bias.

    Such is a map of one position whose channels are normed by themselves; PyTorch's own refuses it
    where the batch is one such group.
    """

    def forward(self, input: Tensor) -> Tensor:
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def scaled(self, input: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Return scale * norm + shift, numbers of the channels, (1, C, 1, 1): same shape.

        On processors as a norm with other numbers, which spares maps; on GPUs those numbers would
        be more launches than the maps are.
        """
        if is_plain_better(input):
            return scale * self(input) + shift
        weight = scale.flatten() * self.weight
        bias = torch.addcmul(shift.flatten(), scale.flatten(), self.bias)
        return torch.group_norm(input, self.num_groups, weight, bias, self.eps)
