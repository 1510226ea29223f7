"""Global Context. Cao, Xu, Lin, Wei and Hu, ICCV workshops 2019, arXiv:1904.11492, section 3.3."""

from typing import Annotated, Literal

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from blocklab.blocks.authors_start import AuthorsStart, start_at_zero, start_by_fan_in
from blocklab.blocks.option_types import ADDED_LATER
from blocklab.blocks.registry import register_block
from blocklab.kernels.small_map import SmallMapConv2d


@register_block("global_context")
class GlobalContext(nn.Module):
    """Add to each position a transform of one attended mean: (B, C, H, W) -> same.

    c = sum_j softmax_j(w x_j) x_j; t = W2 relu(LN(W1 c)), W1 to max(least, C // reduction)
    channels; y = x + t, or with ``fusion="scale"`` x * sigmoid(t). Parameters are named as the
    authors' (``conv_mask``, ``channel_add_conv.0/1/3``, or ``channel_mul_conv`` where it scales).
    Differs from the paper: nothing in the equation.

    How it starts is the backbone's scheme, so that rows of a study start alike, and in a ResNet
    that is not the authors' start: scores of ``conv_mask`` then have an SD of about sqrt(2 C), so
    that the softmax picks one position instead of a context, and mostly stays so.
    ``authors_start=True`` starts ``conv_mask`` by its fan-in and the last convolution at zero, as
    the authors' code does. A LayerNorm of one value is constant, and one of two is a sign: below
    some 4 channels, say of 64 and fewer at the default reduction, W1 learns little. ``least=8`` is
    timm's. The paper puts the block into the last three stages of four.

    Args:
        reduction: the transform works on C // reduction channels.
        least: channels that it has at least.
        fusion: add the transform to each position, or scale the map by its sigmoid.
        norm_eps: of the transform's LayerNorm.
        zero_init: start the last convolution at zero, so that the block starts as the identity
            (where it scales, as a half of it).
        authors_start: that, and ``conv_mask`` by its fan-in.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: PositiveInt = 16,
        fusion: Literal["add", "scale"] = "add",
        norm_eps: PositiveFloat = 1e-5,
        zero_init: bool = False,
        least: Annotated[PositiveInt, ADDED_LATER] = 1,
        authors_start: AuthorsStart = False,
    ) -> None:
        super().__init__()
        hidden = max(least, channels // reduction)
        self.fusion = fusion
        self.zero_init, self.authors_start = zero_init, authors_start
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
        self._start_transform()

    def init_weights(self) -> None:
        """Start as asked, where that is not the backbone's way."""
        if self.authors_start:
            start_by_fan_in(self.conv_mask)
        self._start_transform()

    def _start_transform(self) -> None:
        transform = self.channel_add_conv or self.channel_mul_conv
        if (self.zero_init or self.authors_start) and transform is not None:
            start_at_zero(transform[3])

    def forward(self, x: Tensor) -> Tensor:
        positions = x.flatten(2)  # (B, C, HW)
        weights = self.conv_mask(x).flatten(2).softmax(2)  # (B, 1, HW)
        context = (positions @ weights.transpose(1, 2)).unsqueeze(3)  # (B, C, 1, 1)
        if self.channel_add_conv is not None:
            return x + self.channel_add_conv(context)
        assert self.channel_mul_conv is not None
        return x * self.channel_mul_conv(context).sigmoid()
