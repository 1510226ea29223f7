"""The blocks that timm has too, with the same weights: outputs and input gradients agree."""

from collections.abc import Callable

import pytest
import timm.layers
import torch
from timm.layers.cbam import CbamModule
from timm.layers.coord_attn import CoordAttn
from timm.models.res2net import Bottle2neck
from torch import nn

from blocklab.backbones.resnet import Bottleneck
from blocklab.blocks.convolutional_block_attention import ConvolutionalBlockAttention
from blocklab.blocks.coordinate_attention import CoordinateAttention
from blocklab.blocks.efficient_channel_attention import EfficientChannelAttention
from blocklab.blocks.global_context import GlobalContext
from blocklab.blocks.registry import create_block, parse_block
from blocklab.blocks.selective_kernel import SelectiveKernel
from blocklab.blocks.squeeze_excitation import SqueezeExcitation

Rename = Callable[[str], str]


def assert_same(ours: nn.Module, theirs: nn.Module, channels: int, rename: Rename = str) -> None:
    """Compare to rounding, in evaluation and in training mode, on maps with H != W."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in [*theirs.parameters(), *theirs.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.8 + 0.1)
        for parameter in theirs.parameters():
            if parameter.ndim > 1:  # signs for the convolutions, so that softmax can choose
                parameter.sub_(0.5)
    ours.load_state_dict({rename(name): value for name, value in theirs.state_dict().items()})
    image = torch.randn(3, channels, 9, 7, generator=generator)
    # In float64 a difference of design could not hide; float32 is what is trained in.
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 5e-5)):
        for training in (False, True):
            results = []
            for module in (ours, theirs):
                x = image.to(dtype, copy=True).requires_grad_()
                out = module.to(dtype).train(training)(x)
                weighting = torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)
                (gradient,) = torch.autograd.grad(out, x, weighting)
                results.append((out.detach(), gradient))
            for (got, expected), what in zip(zip(*results, strict=True), ("y", "dx"), strict=True):
                scale = float(expected.abs().max())
                assert scale > 0.01
                difference = float((got - expected).abs().max()) / scale
                assert difference < tolerance, f"{what} differs by {difference:.1e} of its largest"
    for (name, got), expected in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(got, expected, msg=name)  # after the steps in training mode


def test_squeeze_excitation() -> None:
    theirs = timm.layers.SEModule(64, rd_ratio=1 / 16, rd_divisor=1)
    assert_same(SqueezeExcitation(64), theirs, 64)


@pytest.mark.parametrize("reduction", [32, 4])
def test_coordinate_attention(reduction: int) -> None:
    theirs = CoordAttn(64, rd_ratio=1 / reduction, se_factor=1, bias=True)
    assert_same(CoordinateAttention(64, reduction=reduction), theirs, 64)


@pytest.mark.parametrize(("kernel", "bias"), [(7, False), (3, True)])
def test_cbam(kernel: int, bias: bool) -> None:
    theirs = CbamModule(64, spatial_kernel_size=kernel, mlp_bias=bias)
    theirs.spatial.conv.bn.momentum = 0.01  # the authors', where timm has PyTorch's
    assert_same(ConvolutionalBlockAttention(64, kernel=kernel, mlp_bias=bias), theirs, 64)


@pytest.mark.parametrize(("channels", "gamma", "beta"), [(8, 2, 1), (64, 2, 1), (256, 1.5, 2)])
def test_eca(channels: int, gamma: float, beta: float) -> None:
    theirs = timm.layers.EcaModule(channels, gamma=gamma, beta=beta)
    ours = EfficientChannelAttention(channels, gamma=gamma, beta=beta)
    assert_same(ours, theirs, channels)


@pytest.mark.parametrize("extent", [0, 2, 4, 8])
def test_gather_excite(extent: int) -> None:
    """Without parameters: with any, timm 1.0.31 cannot build its own."""
    theirs = timm.layers.GatherExcite(16, extent=extent, use_mlp=False)
    ours = create_block(
        "attention", {"type": "gather_excite", "extent": extent or "global"}, channels=16
    )
    assert_same(ours, theirs, 16)


@pytest.mark.parametrize("fusion", ["add", "scale"])
def test_global_context(fusion: str) -> None:
    theirs = timm.layers.GlobalContext(
        64, fuse_add=fusion == "add", fuse_scale=fusion == "scale", rd_ratio=1 / 16
    )
    ours = GlobalContext(64, fusion=fusion, norm_eps=1e-6)  # type: ignore[arg-type]
    shapes = {name: value.shape for name, value in ours.state_dict().items()}
    mlp, transform = (
        ("mlp_add", "channel_add_conv") if fusion == "add" else ("mlp_scale", "channel_mul_conv")
    )

    def rename(name: str) -> str:
        name = name.replace("conv_attn", "conv_mask").replace(mlp, transform)
        return name.replace(".fc1", ".0").replace(".norm", ".1").replace(".fc2", ".3")

    class Flat(nn.Module):
        """timm's LayerNorm2d keeps (C,) where the authors' LayerNorm keeps (C, 1, 1)."""

        def __init__(self) -> None:
            super().__init__()
            self.block = theirs

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.block(x)

        def state_dict(self, *args: object, **kwargs: object) -> dict[str, torch.Tensor]:  # type: ignore[override]
            return {
                name: value.reshape(shapes[rename(name)])
                for name, value in theirs.state_dict().items()
            }

    assert_same(ours, Flat(), 64, rename)


@pytest.mark.parametrize("split_input", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 8])
def test_selective_kernel(split_input: bool, stride: int, groups: int) -> None:
    theirs = timm.layers.SelectiveKernel(
        16, 32, stride=stride, groups=groups, split_input=split_input, rd_channels=32
    )
    ours = SelectiveKernel(16, 32, stride, "relu", groups=groups, split_input=split_input)
    assert_same(ours, theirs, 16)


@pytest.mark.parametrize(("stride", "first"), [(1, False), (1, True), (2, True)])
def test_res2net_bottleneck(stride: int, first: bool) -> None:
    """timm's whole bottleneck; ours is ResNet's with the split in its mixer's place."""
    in_channels = 64 if first else 128
    downsample = None
    if first:
        downsample = nn.Sequential(
            nn.Conv2d(in_channels, 128, 1, stride, bias=False), nn.BatchNorm2d(128)
        )
    theirs = Bottle2neck(
        in_channels, 32, stride, downsample, act_layer=nn.ReLU, norm_layer=nn.BatchNorm2d
    )
    mixer = parse_block("mixer", {"type": "hierarchical_split", "scale": 4, "base_width": 26})
    ours = Bottleneck(
        in_channels=in_channels,
        planes=32,
        stride=stride,
        first_in_stage=first,
        mixer=mixer,
        attention=None,
        activation="relu",
        downsample="conv",
        drop_path=0.0,
    )

    def rename(name: str) -> str:
        return f"conv2.{name}" if name.startswith(("convs.", "bns.")) else name

    assert_same(ours, theirs, in_channels, rename)
