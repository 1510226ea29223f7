"""Blocks: plain modules from tensors to tensors, one paper a file, found by name.

Importing the room registers the blocks that are shipped.
"""

from blocklab.blocks import (  # noqa: F401 - run, they register what they define
    bottleneck_attention,
    combine,
    convolution,
    convolutional_block_attention,
    coordinate_attention,
    efficient_channel_attention,
    efficient_local_attention,
    efficient_multi_scale_attention,
    gather_excite,
    global_context,
    hierarchical_split,
    large_kernel_attention,
    reparam_large_kernel,
    selective_kernel,
    shuffle_attention,
    simple_attention,
    squeeze_excitation,
    triplet_attention,
)
