"""What the papers' releases, torchvision and timm call the tensors that we call otherwise.

Rules are regular expressions, applied in order to each name.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """A way to name tensors: the one that has a name matching `mark`, and how to rename it.

    `family` is the backbone whose tensors they are; `foreign` says why none of ours can take them.
    """

    name: str
    mark: str
    rules: tuple[tuple[str, str], ...] = ()
    family: str | None = "resnet"
    foreign: str | None = None

    def rename(self, name: str) -> str:
        """Return our name for one of its names."""
        for pattern, ours in self.rules:
            name = re.sub(pattern, ours, name)
        return name

    def names_of(self, state: Iterable[str]) -> dict[str, str] | None:
        """Return their name for each of ours, or None where these are not of this format."""
        names = list(state)
        if not any(re.search(self.mark, name) for name in names):
            return None
        theirs = {self.rename(name): name for name in names}
        return theirs if len(theirs) == len(names) else None


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
_TRIPLET = (
    (_BLOCK + r"triplet_attention\.", r"\1attention."),
    (r"(^|\.)ChannelGateH\.spatial\.", r"\1cw.conv."),  # the training code's older names
    (r"(^|\.)ChannelGateW\.spatial\.", r"\1hc.conv."),
    (r"(^|\.)SpatialGate\.spatial\.", r"\1hw.conv."),
)

_STAGE_BLOCK = r"^stages\.(\d+)\.(\d+)\."  # of releases whose stages are lists of blocks
_HERE = r"stages.\1.blocks.\2."
_TORCHVISION_CONVNEXT = (
    (r"^features\.0\.0\.", "stem.conv."),
    (r"^features\.0\.1\.", "stem.norm."),
    *(
        rule
        for stage in range(4)
        for rule in (
            (rf"^features\.{2 * stage + 1}\.(\d+)\.(?:block\.)?", rf"stages.{stage}.blocks.\1."),
            (rf"^features\.{2 * stage}\.0\.", f"stages.{stage}.downsample.norm."),
            (rf"^features\.{2 * stage}\.1\.", f"stages.{stage}.downsample.conv."),
        )
    ),
    (r"^(stages\.\d+\.blocks\.\d+\.)0\.", r"\1token_mixer."),
    (r"^(stages\.\d+\.blocks\.\d+\.)2\.", r"\1norm."),
    (r"^(stages\.\d+\.blocks\.\d+\.)3\.", r"\1mlp.fc1."),
    (r"^(stages\.\d+\.blocks\.\d+\.)5\.", r"\1mlp.fc2."),
    (r"^classifier\.0\.", "pre_logits.norm."),
    (r"^classifier\.2\.", "head."),
)
_TIMM_METAFORMER = (
    (r"^stem\.0\.", "stem.conv."),
    (r"^stem\.1\.", "stem.norm."),
    (r"\.downsample\.0\.", ".downsample.norm."),
    (r"\.downsample\.1\.", ".downsample.conv."),
    (r"^(stages\.\d+\.blocks\.\d+\.)(?:conv_dw|conv)\.", r"\1token_mixer."),
    (r"\.gamma$", ".layer_scale"),
    (r"\.(layer_scale[12])\.scale$", r".\1"),
)
_TIMM_NORM_HEAD = ((r"^head\.norm\.", "pre_logits.norm."), (r"^head\.fc\.", "head."))
_RELEASED_METAFORMER = (
    (r"^downsample_layers\.0\.0\.", "stem.conv."),
    (r"^downsample_layers\.0\.1\.", "stem.norm."),
    (r"^downsample_layers\.(\d+)\.0\.", r"stages.\1.downsample.norm."),
    (r"^downsample_layers\.(\d+)\.1\.", r"stages.\1.downsample.conv."),
    (_STAGE_BLOCK, _HERE),
    (r"\.pwconv(\d)\.", r".mlp.fc\1."),
    (r"\.grn\.gamma$", ".mlp.grn.weight"),
    (r"\.grn\.beta$", ".mlp.grn.bias"),
    (r"\.gamma$", ".layer_scale"),
    (r"\.(dwconv|large_kernel)\.", ".token_mixer."),
    (r"^norm\.", "pre_logits.norm."),
)
_UNIREPLKNET = (
    (r"^downsample_layers\.0\.0\.", "stem.conv1."),
    (r"^downsample_layers\.0\.1\.", "stem.norm1."),
    (r"^downsample_layers\.0\.3\.", "stem.conv2."),
    (r"^downsample_layers\.0\.4\.", "stem.norm2."),
    (r"^downsample_layers\.(\d+)\.0\.", r"stages.\1.downsample.conv."),
    (r"^downsample_layers\.(\d+)\.1\.", r"stages.\1.downsample.norm."),
    (r"\.pwconv1\.1\.", ".mlp.fc1."),
    (r"\.act\.1\.gamma$", ".mlp.grn.weight"),
    (r"\.act\.1\.beta$", ".mlp.grn.bias"),
    (r"\.pwconv2\.0\.", ".mlp.fc2."),
    (r"\.pwconv2\.2\.", ".mlp.norm."),
    (r"\.se\.down\.", ".gate.fc1."),
    (r"\.se\.up\.", ".gate.fc2."),
    (r"\.dwconv\.(weight|bias)$", r".token_mixer.lk_origin.\1"),
    *_RELEASED_METAFORMER,
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
    Format("Triplet Attention (official)", _BLOCK + r"triplet_attention\.", _TRIPLET),
    Format("Triplet module (official)", r"^ChannelGateH\.spatial\.", _TRIPLET, family=None),
    Format(
        "ResNet with context blocks (MMDetection)",
        _BLOCK + r"context_block\.",
        ((_BLOCK + r"context_block\.", r"\1attention."),),
    ),
    Format("VAN (official, blocklab)", r"^patch_embed1\.proj\.", family="van"),
    Format(
        "RepLKNet (official, blocklab)", r"^stages\.0\.blocks\.0\.prelkb_bn\.", family="replknet"
    ),
    Format(
        "MetaFormer (blocklab)",
        r"^pre_logits\.|^stages\.0\.blocks\.0\.layer_scale[12]?$",
        family="metaformer",
    ),
    Format(
        "ConvNeXt (torchvision)",
        r"^features\.1\.0\.layer_scale$",
        _TORCHVISION_CONVNEXT,
        family="metaformer",
    ),
    Format(
        "UniRepLKNet (official)",
        r"^stages\.0\.0\.se\.down\.",
        _UNIREPLKNET,
        family="metaformer",
    ),
    Format(
        "ConvNeXt, SLaK (official)",
        r"^stages\.0\.0\.(dwconv\.weight|large_kernel\.Decom1\.)",
        _RELEASED_METAFORMER,
        family="metaformer",
    ),
    Format(
        "InceptionNeXt (timm)",
        r"^stages\.0\.blocks\.0\.token_mixer\.dwconv_hw\.",
        (
            *_TIMM_METAFORMER,
            (r"^head\.fc1\.", "pre_logits.fc."),
            (r"^head\.norm\.", "pre_logits.fc_norm."),
            (r"^head\.fc2\.", "head."),
        ),
        family="metaformer",
    ),
    Format(
        "MambaOut (timm)",
        r"^head\.pre_logits\.fc\.",
        (
            *_TIMM_METAFORMER,
            (r"^head\.pre_logits\.fc\.", "pre_logits.fc."),
            (r"^head\.pre_logits\.norm\.", "pre_logits.fc_norm."),
            *_TIMM_NORM_HEAD,
        ),
        family="metaformer",
    ),
    Format(
        "ConvNeXt, PoolFormer (timm)",
        r"^stages\.0\.blocks\.0\.(conv_dw\.|layer_scale1\.scale$)",
        (*_TIMM_METAFORMER, *_TIMM_NORM_HEAD),
        family="metaformer",
    ),
    Format("ResNet with blocks (blocklab)", _BLOCK + r"(attention|conv\d\.\w+)\.\w"),
    Format("ResNet (torchvision, timm, blocklab)", r"^layer1\.0\.conv1\.weight$"),
    Format(
        "ByobNet (timm)",
        r"^stages\.0\.0\.conv\d_\dx\d\.",
        family=None,
        foreign=(
            "a network such as timm's gcresnet50t, which no slots make: strides 2, 1 and 2 in its "
            "stem with no pool, and attention inside the bottleneck, after the 3x3 convolution"
        ),
    ),
)


__all__ = ["FORMATS", "Format"]
