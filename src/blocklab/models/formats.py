"""What the papers' releases, torchvision and timm call the tensors that we call otherwise.

Rules are regular expressions, applied in order to each name.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """A way to name tensors: the one that has a name matching `mark`, and how to rename it."""

    name: str
    mark: str
    rules: tuple[tuple[str, str], ...] = ()

    def rename(self, name: str) -> str:
        """Return our name for one of its names."""
        for pattern, ours in self.rules:
            name = re.sub(pattern, ours, name)
        return name


_BLOCK = r"^(layer\d+\.\d+\.)"
_TIMM_ATTENTION = (
    (_BLOCK + r"se\.conv_attn\.", r"\1attention.conv_mask."),
    (_BLOCK + r"se\.mlp_add\.", r"\1attention.channel_add_conv."),
    (_BLOCK + r"se\.mlp_scale\.", r"\1attention.channel_mul_conv."),
    (r"(\.channel_(?:add|mul)_conv\.)fc1\.", r"\g<1>0."),
    (r"(\.channel_(?:add|mul)_conv\.)norm\.", r"\g<1>1."),
    (r"(\.channel_(?:add|mul)_conv\.)fc2\.", r"\g<1>3."),
    (_BLOCK + r"se\.", r"\1attention."),
)

# The first whose mark matches is taken. Those without rules name tensors as we do.
FORMATS = (
    Format(
        "SKNet (timm)",
        _BLOCK + r"conv\d\.conv\.weight$",
        (
            (_BLOCK + r"conv(\d)\.conv\.weight$", r"\1conv\2.weight"),
            (_BLOCK + r"conv(\d)\.bn\.", r"\1bn\2."),
            *_TIMM_ATTENTION,
        ),
    ),
    Format(
        "Res2Net (official, timm)",
        _BLOCK + r"convs\.0\.weight$",
        ((_BLOCK + r"(convs|bns)\.", r"\1conv2.\2."), *_TIMM_ATTENTION),
    ),
    Format("ResNet with attention (timm)", _BLOCK + r"se\.", _TIMM_ATTENTION),
    Format(
        "Triplet Attention (official)",
        _BLOCK + r"triplet_attention\.",
        (
            (_BLOCK + r"triplet_attention\.", r"\1attention."),
            (r"\.ChannelGateH\.spatial\.", ".cw.conv."),  # the training code's older names
            (r"\.ChannelGateW\.spatial\.", ".hc.conv."),
            (r"\.SpatialGate\.spatial\.", ".hw.conv."),
        ),
    ),
    Format("VAN (official, blocklab)", r"^patch_embed1\.proj\."),
    Format("RepLKNet (official, blocklab)", r"^stages\.0\.blocks\.0\.prelkb_bn\."),
    Format("ResNet with blocks (blocklab)", _BLOCK + r"(attention|conv\d\.\w+)\.\w"),
    Format("ResNet (torchvision, timm, blocklab)", r"^layer1\.0\.conv1\.weight$"),
)


__all__ = ["FORMATS", "Format"]
