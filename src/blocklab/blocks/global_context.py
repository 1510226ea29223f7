"""Global Context. Cao, Xu, Lin, Wei and Hu, ICCV workshops 2019, arXiv:1904.11492, section 3.3."""

from typing import Literal

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from blocklab.blocks.registry import register_block
from blocklab.kernels.small_map import SmallMapConv2d


@register_block("global_context")
class GlobalContext(nn.Module):
    """Add to each position a transform of one attended mean: (B, C, H, W) -> same.

    c = sum_j softmax_j(w x_j) x_j; t = W2 relu(LN(W1 c)), W1 to max(1, C // reduction) channels;
    y = x + t, or with ``fusion="scale"`` x * sigmoid(t). Parameters are named as the authors'
    (``conv_mask``, ``channel_add_conv.0/1/3``, or ``channel_mul_conv`` where it scales). Differs
    from the paper: nothing; the authors start the last convolution at zero, which
    ``zero_init=True`` does (default: the backbone's scheme, so that rows of a study start alike).

    Args:
        reduction: the transform works on C // reduction channels.
        fusion: add the transform to each position, or scale the map by its sigmoid.
        norm_eps: of the transform's LayerNorm.
        zero_init: start the last convolution at zero, so that the block starts as the identity.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: PositiveInt = 16,
        fusion: Literal["add", "scale"] = "add",
        norm_eps: PositiveFloat = 1e-5,
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.fusion = fusion
        self.zero_init = zero_init
        self.conv_mask = nn.Conv2d(channels, 1, 1)
        transform = nn.Sequential(
            SmallMapConv2d(channels, hidden, 1),
            nn.LayerNorm([hidden, 1, 1], eps=norm_eps),
            nn.ReLU(),
            SmallMapConv2d(hidden, channels, 1),
        )
        # Two names, so that weights of one kind of fusion do not load into the other.
        self.channel_add_conv = transform if fusion == "add" else None
        self.channel_mul_conv = transform if fusion == "scale" else None

    def init_weights(self) -> None:
        """Zero the last convolution where asked, so that the block starts as the identity."""
        transform = self.channel_add_conv or self.channel_mul_conv
        if self.zero_init and transform is not None:
            nn.init.zeros_(transform[3].weight)  # type: ignore[arg-type]
            nn.init.zeros_(transform[3].bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        positions = x.flatten(2)  # (B, C, HW)
        weights = self.conv_mask(x).flatten(2).softmax(2)  # (B, 1, HW)
        context = (positions @ weights.transpose(1, 2)).unsqueeze(3)  # (B, C, 1, 1)
        if self.channel_add_conv is not None:
            return x + self.channel_add_conv(context)
        assert self.channel_mul_conv is not None
        return x * self.channel_mul_conv(context).sigmoid()
