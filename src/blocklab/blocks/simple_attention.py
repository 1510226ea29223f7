"""SimAM. Yang, Zhang, Li and Xie, ICML 2021 (PMLR 139:11863), section 3."""

from pydantic import PositiveFloat
from torch import Tensor, nn

from blocklab.blocks.registry import register_block
from blocklab.kernels.deviation_gate import deviation_gate


@register_block("simam")
class SimpleAttention(nn.Module):
    """Gate each value by how far it is from its channel's mean: (B, C, H, W) -> same.

    y = x * sigmoid(1 / e), 1 / e = (x - m)^2 / (4 (v + lambda)) + 1 / 2, with the mean m and the
    variance v of each channel's map over its n positions, v = sum (x - m)^2 / (n - 1). No
    parameters. ``e_lambda`` is the authors' name of lambda. Differs from the paper: v is over
    n - 1, as in the authors' code, where equation 5 has n; a map of one position has v = 0, where
    theirs is no number. In a ResNet an attention here follows the last BatchNorm; the authors'
    stands behind the middle 3x3 convolution, before its BatchNorm. Their ``e_lambda`` for ImageNet
    is 0.1; 1e-4 is that for CIFAR.

    Args:
        e_lambda: added to the variance; a larger one makes gates more alike.
    """

    def __init__(self, *, e_lambda: PositiveFloat = 1e-4) -> None:
        super().__init__()
        self.e_lambda = e_lambda

    def forward(self, x: Tensor) -> Tensor:
        return deviation_gate(x, factor=0.25, offset=0.5, eps=self.e_lambda)
