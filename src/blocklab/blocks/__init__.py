"""Blocks: plain modules from tensors to tensors, one paper a file, found by name.

Importing the room registers the blocks that are shipped.
"""

from blocklab.blocks import (  # noqa: F401 - run, they register what they define
    combine,
    context_anchor_attention,
    convolution,
    coordinate_attention,
    dynamic_convolution,
    frequency_channel_attention,
    gated_channel_transformation,
    global_context,
    grouped_convolution,
    hierarchical_split,
    involution,
    large_kernel_attention,
    large_selective_kernel,
    mixed_local_channel_attention,
    non_local,
    partial_convolution,
    reparam_large_kernel,
    selective_kernel,
    spatial_channel_synergy,
    squeeze_excitation,
    triplet_attention,
)
