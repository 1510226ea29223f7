"""Blocks: plain modules from tensors to tensors, one paper a file, found by name.

Importing the room registers the blocks that are shipped.
"""

from blocklab.blocks import (  # noqa: F401 - run, they register what they define
    combine,
    convolution,
    coordinate_attention,
    global_context,
    hierarchical_split,
    large_kernel_attention,
    reparam_large_kernel,
    selective_kernel,
    squeeze_excitation,
    timm_attentions,
    triplet_attention,
)
