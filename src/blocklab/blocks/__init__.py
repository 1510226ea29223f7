"""Blocks: plain modules from tensors to tensors, one paper a file, found by name.

Importing the room registers the blocks that are shipped.
"""

from blocklab.blocks import (  # noqa: F401 - run, they register what they define
    bottleneck_attention,
    combine,
    context_anchor_attention,
    convolution,
    convolutional_block_attention,
    coordinate_attention,
    dynamic_convolution,
    efficient_channel_attention,
    efficient_local_attention,
    efficient_multi_scale_attention,
    frequency_channel_attention,
    gated_channel_transformation,
    gather_excite,
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
    shuffle_attention,
    simple_attention,
    spatial_channel_synergy,
    squeeze_excitation,
    timm_attentions,
    triplet_attention,
)
