"""Non-local block. Wang, Girshick, Gupta and He, CVPR 2018, arXiv:1711.07971, section 3."""

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab.blocks.authors_start import AuthorsStart, start_at_zero, start_small
from blocklab.blocks.folding import fold
from blocklab.blocks.registry import register_block
from blocklab.errors import InputError
from blocklab.kernels.attended import attended
from blocklab.kernels.small_map import SmallMapConv2d


@register_block("non_local")
class NonLocal(nn.Module):
    """Add to each position what it attends to among all: (B, C, H, W) -> same.

    The embedded Gaussian: y_i = sum_j softmax_j(t(x_i) . p(x_j)) g(x_j), and x + BN(z(y)), with
    1x1 convolutions t, p, g to max(1, C // reduction) channels and z back. With ``sub_sample``, p
    and g are pooled to their maxima of 2 x 2 positions; with ``scaled`` scores are divided by
    sqrt(C), as timm does. Parameters are named as timm's (``t``, ``p``, ``g``, ``z``, ``norm``);
    the norm starts at zero, so that the block starts as the identity (section 4.1). Differs from
    the paper: nothing; a last odd row or column is pooled by itself. Scores are (HW)^2: in a first
    stage of 56 x 56 pixels 10 million an image, where the authors have none.

    The paper's text has no scale, and by the backbone's scheme the softmax then starts close to
    picking one position; the authors' code starts t, p and g at an SD of 0.01 and divides by the
    root of the inner channels, which begins as a mean: ``authors_start=True`` does both.

    Args:
        reduction: positions are compared in C // reduction channels.
        sub_sample: compare with every second position a side, by maxima.
        scaled: divide scores by the root of C.
        authors_start: start as the authors' code does, and divide as it does.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: PositiveInt = 2,
        sub_sample: bool = False,
        scaled: bool = False,
        authors_start: AuthorsStart = False,
    ) -> None:
        super().__init__()
        if authors_start and scaled:
            raise InputError("authors_start has a scale of its own; leave scaled out")
        hidden = max(1, channels // reduction)
        self.sub_sample = sub_sample
        self.scale = channels**-0.5 if scaled else 1.0
        self.authors_start = authors_start
        if authors_start:
            self.scale = hidden**-0.5
        self.t = SmallMapConv2d(channels, hidden, 1)
        self.p = SmallMapConv2d(channels, hidden, 1)
        self.g = SmallMapConv2d(channels, hidden, 1)
        self.z = SmallMapConv2d(hidden, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        start_at_zero(self.norm)

    def init_weights(self) -> None:
        """Zero the norm's scale and shift, and start small where asked."""
        if self.authors_start:
            for convolution in (self.t, self.p, self.g, self.z):
                start_small(convolution)
        start_at_zero(self.norm)

    def fold_norms(self) -> None:
        """Fold the BatchNorm into the convolution before it; for evaluation alone."""
        fold(self, "z", "norm")

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = self.t(x), self.p(x), self.g(x)
        if self.sub_sample:
            keys, values = (F.max_pool2d(one, 2, ceil_mode=True) for one in (keys, values))
        return x + self.norm(self.z(attended(queries, keys, values, self.scale)))
