"""Grouped convolutions. Xie, Girshick, Dollar, Tu and He, CVPR 2017, arXiv:1611.05431."""

from math import gcd
from typing import Annotated, ClassVar

from pydantic import AfterValidator, PositiveInt

from blocklab.blocks.grouping import fitting_groups
from blocklab.blocks.registry import LARGEST_SIZE, register_block
from blocklab.errors import InputError
from blocklab.kernels.strided import StridedConv2d


def _check_groups(groups: int | str) -> int | str:
    if groups == "channels" or (isinstance(groups, int) and 1 <= groups <= LARGEST_SIZE):
        return groups
    raise InputError(
        f"groups are a count from 1 to {LARGEST_SIZE:,}, or 'channels' for one a channel, "
        f"not {groups!r}"
    )


Groups = Annotated[int | str, AfterValidator(_check_groups)]


@register_block("grouped", kind="mixer")
class GroupedConv3x3(StridedConv2d):
    """A 3x3 convolution of channels in groups: (B, C_in, H, W) -> (B, C, H/s, W/s).

    ResNeXt's 32x4d is ``groups=32, group_width=4``: ``group_width`` is the width of a group for 64
    planes (torchvision's ``width_per_group``), so that the inside of a block is
    planes * group_width // 64 * groups wide. Without it the inside is as wide as the block's own,
    as RegNet's and the mobile networks' is. ``groups="channels"`` is the depth-wise convolution;
    ``groups=1, group_width=128`` Wide ResNet-50-2 (arXiv:1605.07146). BatchNorm and activation are
    the block's. It is itself the convolution, so that its weight keeps torchvision's name. Differs
    from the paper: where the channels do not divide by ``groups``, it is cut to the largest count
    that divides them.

    Args:
        groups: of channels; channels makes each its own.
        group_width: channels of a group in a block of 64 planes; none keeps the block's width.
    """

    width_options: ClassVar[tuple[str, ...]] = ("group_width",)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        groups: Groups = 32,
        group_width: PositiveInt | None = None,
    ) -> None:
        self.inner_width(out_channels, groups, group_width)
        most = gcd(in_channels, out_channels)
        wanted = most if isinstance(groups, str) else min(groups, most)
        fitting = fitting_groups(wanted, most)
        super().__init__(
            in_channels, out_channels, 3, stride, padding=1, groups=fitting, bias=False
        )

    @staticmethod
    def inner_width(planes: int, groups: Groups, group_width: int | None) -> int:
        """Width of the block's inside: 32 groups of 4 are 128 channels for 64 planes.

        Raises:
            InputError: if depth-wise groups, which are one channel wide, are to be of a width.
        """
        if group_width is None:
            return planes
        if isinstance(groups, str):
            raise InputError("groups of one channel have no group_width; leave one of them out")
        return max(1, planes * group_width // 64) * groups
