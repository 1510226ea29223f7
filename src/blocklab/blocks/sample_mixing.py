"""Blocks that let the samples of a batch reach one another by design.

Such a block has an attribute ``mixes_samples``, which says what does it: a few words, such as
"softmax over the batch", or nothing where its options leave it out. What it makes of an image
depends on the others of the batch, in evaluation too. It may refuse a batch of one, is not given
one where costs are counted, and a network with it is not exported as a graph.
"""

from torch import nn


def mixed_by(network: nn.Module) -> str:
    """What mixes samples in a block or a network, itself or a part of it; empty: nothing does."""
    said = (getattr(part, "mixes_samples", "") for part in network.modules())
    return next((words for words in said if isinstance(words, str) and words), "")


def smallest_batch(network: nn.Module) -> int:
    """How many images a block or a network takes at least."""
    return 2 if mixed_by(network) else 1
