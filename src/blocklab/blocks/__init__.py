"""Blocks: plain modules from tensors to tensors, one paper a file, found by name."""

from blocklab.blocks.activation import ACTIVATIONS, create_activation
from blocklab.blocks.combine import MeanOfAttentions
from blocklab.blocks.convolution import Conv3x3, Depthwise3x3
from blocklab.blocks.coordinate_attention import CoordinateAttention
from blocklab.blocks.depthwise import DepthwiseConv2d
from blocklab.blocks.global_context import GlobalContext
from blocklab.blocks.hierarchical_split import HierarchicalSplit, HierarchicalSplitBottleneck
from blocklab.blocks.large_kernel_attention import LargeKernelAttention, MultiScaleLKA
from blocklab.blocks.registry import (
    BlockInfo,
    create_block,
    create_chain,
    mixer_width,
    parse_block,
    register_block,
    registered_blocks,
)
from blocklab.blocks.reparam_large_kernel import ConvFFN, ReparamLargeKernelConv, RepLKBlock
from blocklab.blocks.selective_kernel import SelectiveKernel
from blocklab.blocks.squeeze_excitation import SqueezeExcitation
from blocklab.blocks.triplet_attention import TripletAttention

__all__ = [
    "ACTIVATIONS",
    "BlockInfo",
    "Conv3x3",
    "ConvFFN",
    "CoordinateAttention",
    "Depthwise3x3",
    "DepthwiseConv2d",
    "GlobalContext",
    "HierarchicalSplit",
    "HierarchicalSplitBottleneck",
    "LargeKernelAttention",
    "MeanOfAttentions",
    "MultiScaleLKA",
    "RepLKBlock",
    "ReparamLargeKernelConv",
    "SelectiveKernel",
    "SqueezeExcitation",
    "TripletAttention",
    "create_activation",
    "create_block",
    "create_chain",
    "mixer_width",
    "parse_block",
    "register_block",
    "registered_blocks",
]
