"""Whether a block's forms for use, merged and folded, give the outputs of its training form."""

import torch

from blocklab.blocks.protocol import fold_parts, folds, merge_parts, merges
from blocklab.blocks.registry import create_block
from blocklab.contract.trial import (
    CheckFailed,
    NotApplicable,
    Subject,
    difference,
    forward,
    told,
    where,
)


def merging(subject: Subject) -> str:
    """`merge()`, where it or a part has one, leaves its outputs in evaluation as they were."""
    for place in subject.places():
        block = subject.build(place, dtype=torch.float64)
        if not any(merges(part) for part in block.modules()):
            raise NotApplicable("it has no merge()")
        x = subject.images(place, dtype=torch.float64)
        with torch.no_grad():
            expected = forward(block, x)
            for what in ("merge()", "a second merge()"):
                merge_parts(block)
                if not difference(forward(block, x), expected) < 1e-9:
                    raise CheckFailed(f"{what} changes the output{told(place)}")
        names = block.state_dict().keys()
        with where("merged on the meta device, where its cost is counted"), torch.device("meta"):
            other = create_block(subject.info.kind, subject.spec, **place)
            merge_parts(other)
        if other.state_dict().keys() != names:
            raise CheckFailed(f"merge() leaves other tensors on the meta device{told(place)}")
    return "same outputs after merge(), and after a second one"


def folding(subject: Subject) -> str:
    """`fold_norms()`, where it or a part has one, leaves its outputs in evaluation as they were."""
    for place in subject.places():
        block = subject.build(place, dtype=torch.float64)
        if not any(folds(part) for part in block.modules()):
            raise NotApplicable("it has no fold_norms()")
        x = subject.images(place, dtype=torch.float64)
        with torch.no_grad():
            expected = forward(block, x)
            folded = fold_parts(block)
            if not difference(forward(folded, x), expected) < 1e-9:
                raise CheckFailed(f"fold_norms() changes the output{told(place)}")
    return "same outputs after fold_norms()"
