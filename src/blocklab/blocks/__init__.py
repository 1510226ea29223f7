"""Blocks: plain modules from tensors to tensors, one paper a file, found by name.

Importing the room registers the blocks that are shipped.
"""

from blocklab.blocks import (  # noqa: F401 - run, they register what they define
    combine,
    convolution,
    coordinate_attention,
    decomposed_large_kernel,
    dilated_reparam,
    global_context,
    hierarchical_split,
    inception_depthwise,
    large_kernel_attention,
    mean_pooling,
    reparam_large_kernel,
    selective_kernel,
    squeeze_excitation,
    triplet_attention,
)
