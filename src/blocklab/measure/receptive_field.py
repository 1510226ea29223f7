"""What a network can see: taps of kernels that ever meet the map, and receptive fields.

Both are properties of a network at an input size, not of its weights alone: a 31x31 kernel on a
4x4 map is a 7x7 kernel with padding, and a receptive field measured with random weights ranks
networks otherwise than one measured with trained weights.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from blocklab.errors import InputError
from blocklab.measure.activations import residual_blocks
from blocklab.models.probe import (
    ImageSize,
    evaluating,
    maps_met,
    noise_images,
    plain_size,
)
from blocklab.models.spec import spec_of

SMALLEST_LARGE_KERNEL = 5  # pixels from first to last tap: 3x3 ones are no large kernels


@dataclass(frozen=True)
class LiveTaps:
    """A depth-wise large kernel at one map size, (height, width) throughout.

    `modules` convolutions of one stage's blocks are alike; `module` names them, with * for the
    block's number where there is more than one.
    """

    module: str
    modules: int
    kernel: tuple[int, int]
    dilation: tuple[int, int]
    map_size: tuple[int, int]
    live: tuple[int, int]

    @property
    def live_taps(self) -> int:
        """Taps that meet a pixel from at least one position."""
        return self.live[0] * self.live[1]

    @property
    def total_taps(self) -> int:
        """All taps."""
        return self.kernel[0] * self.kernel[1]

    def cells(self) -> tuple[str, str, str, str]:
        """Return kernel, map, live taps and all taps as text."""
        alike = self.dilation[0] == self.dilation[1]
        by = self.dilation[0] if alike else _by(self.dilation)
        dilated = f", dilation {by}" if max(self.dilation) > 1 else ""
        times = f", {self.modules} of them" if self.modules > 1 else ""
        return (
            f"{self.module} ({_by(self.kernel)}{dilated}{times})",
            _by(self.map_size),
            f"{_by(self.live)} = {self.live_taps}",
            str(self.total_taps),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        fields = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        return {**fields, "live_taps": self.live_taps, "total_taps": self.total_taps}


def live_taps(model: nn.Module, input_size: ImageSize) -> tuple[LiveTaps, ...]:
    """Return which taps of a network's depth-wise large kernels can meet a pixel, in its order.

    A tap that only ever meets padding multiplies zeros: of a k x k kernel of stride 1 on an H x H
    map those beyond H - 1 from its centre. Costs nothing on the meta device.

    Raises:
        InputError: for a size that the network cannot take.
    """
    found = [
        _taps_of(name, conv, *size)
        for name, conv, size in maps_met(model, input_size)
        if _is_large(conv)
    ]
    return _grouped(found, residual_blocks(model))


def _is_large(conv: nn.Conv2d) -> bool:
    extents = [d * (k - 1) + 1 for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
    return conv.groups == conv.in_channels > 1 and max(extents) >= SMALLEST_LARGE_KERNEL


def _taps_of(name: str, conv: nn.Conv2d, height: int, width: int) -> LiveTaps:
    live = [
        _live_along(size, kernel, stride, dilation, margins)
        for size, kernel, stride, dilation, margins in zip(
            (height, width),
            conv.kernel_size,
            conv.stride,
            conv.dilation,
            _margins(conv),
            strict=True,
        )
    ]
    kernel, dilation = conv.kernel_size, conv.dilation
    return LiveTaps(
        name,
        1,
        (kernel[0], kernel[1]),
        (dilation[0], dilation[1]),
        (height, width),
        (live[0], live[1]),
    )


def _margins(conv: nn.Conv2d) -> list[tuple[int, int]]:
    """Return the pixels of padding before and after each axis."""
    if not isinstance(conv.padding, str):
        return [(margin, margin) for margin in conv.padding]
    if conv.padding == "valid":
        return [(0, 0), (0, 0)]
    extents = [d * (k - 1) for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
    return [(extent // 2, extent - extent // 2) for extent in extents]  # of PyTorch's "same"


def _live_along(
    size: int, kernel: int, stride: int, dilation: int, margins: tuple[int, int]
) -> int:
    """Count the taps of one axis that meet a pixel from at least one output."""
    outputs = (size + sum(margins) - dilation * (kernel - 1) - 1) // stride + 1
    starts = np.arange(outputs) * stride - margins[0]  # where the first tap lies
    places = starts[:, None] + np.arange(kernel) * dilation  # (outputs, taps)
    return int(((places >= 0) & (places < size)).any(0).sum())


def _grouped(found: Sequence[LiveTaps], blocks: Sequence[str]) -> tuple[LiveTaps, ...]:
    """Merge the convolutions of a stage's blocks that are alike in everything."""
    groups: dict[Any, list[LiveTaps]] = {}
    for one in found:
        block = next((name for name in blocks if one.module.startswith(f"{name}.")), "")
        stage = block.rpartition(".")[0]
        key = f"{stage}.*{one.module.removeprefix(block)}" if stage else one.module
        alike = (key, one.kernel, one.dilation, one.map_size, one.live)
        groups.setdefault(alike, []).append(one)
    return tuple(
        alike[0] if len(alike) == 1 else replace(alike[0], module=key, modules=len(alike))
        for (key, *_), alike in groups.items()
    )


@dataclass(frozen=True, eq=False)
class ReceptiveField:
    """How much each input pixel moves the centre of a network's last map.

    `values` are (H, W), the largest 1. `weights` says which they were, such as ``random, seed 0``:
    the answer hangs on them, and on the input size.
    """

    name: str
    weights: str
    input_size: ImageSize
    images: int
    values: NDArray[np.float64]

    def side_holding(self, share: float) -> int:
        """Return the side, in pixels, of the smallest square with this share of it all.

        Squares lie around the field's centre of mass, as that of a small map's centre is seldom
        the image's; parts of them may lie outside.
        """
        total = float(self.values.sum())
        if total == 0:
            return 0
        along = (self.values.sum(axis) for axis in (1, 0))  # by row, by column
        row, column = (round(float(sums @ np.arange(len(sums))) / total) for sums in along)
        largest = max(self.values.shape)
        for radius in range(largest):
            rows = slice(max(0, row - radius), row + radius + 1)
            columns = slice(max(0, column - radius), column + radius + 1)
            if self.values[rows, columns].sum() >= share * total * (1 - 1e-12):
                return 2 * radius + 1
        return 2 * largest


def receptive_field(
    model: nn.Module,
    name: str,
    weights: str,
    input_size: ImageSize = 224,
    images: Tensor | None = None,
    seed: int = 0,
) -> ReceptiveField:
    """Measure a network's effective receptive field (Luo et al., 2016, arXiv:1701.04128).

    The gradient of the centre of the last map, summed over its channels, by each input pixel;
    its size, summed over colours and averaged over images.

    Args:
        model: in the form and with the weights to look at; run in evaluation mode.
        name: for the figure.
        weights: which weights it has, for the figure.
        input_size: of the noise that is looked at where there are no images: pixels a side, or
            height and width.
        images: (B, C, H, W), normalised as in training.
        seed: of the noise: 8 images of independent normal values.

    Raises:
        InputError: if the network gives no map, or cannot take the images.
    """
    if images is None:
        images = noise_images(model, input_size, 8, seed)
    if images.ndim != 4:
        raise InputError(f"images are (B, C, H, W), not {tuple(images.shape)}")
    pixels = images.detach().to(next(model.parameters()), copy=True).requires_grad_()
    with evaluating(model):
        forward = model if spec_of(model) is None else cast(Any, model).forward_features
        features = channels_first(forward(pixels), model)
        if not isinstance(features, Tensor) or features.ndim != 4:
            raise InputError(
                "the network gives no map (B, C, H, W) to take the centre of; name one whose "
                "features are maps"
            )
        centre = features[:, :, features.shape[2] // 2, features.shape[3] // 2]
        (gradient,) = torch.autograd.grad(centre.sum(), pixels)
    values = gradient.abs().sum(1).mean(0).cpu().double().numpy()  # (H, W)
    largest = float(values.max())
    if largest > 0:
        values = values / largest
    size = plain_size((images.shape[2], images.shape[3]))
    return ReceptiveField(name, weights, size, len(images), values)


def channels_first(features: Any, model: nn.Module) -> Any:
    """Return maps as (B, C, H, W), as which some of timm's models do not give theirs."""
    if getattr(model, "output_fmt", "") == "NHWC" and getattr(features, "ndim", 0) == 4:
        return features.movedim(3, 1)
    return features


def _by(sizes: tuple[int, int]) -> str:
    return f"{sizes[0]}x{sizes[1]}"
