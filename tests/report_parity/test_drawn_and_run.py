"""What it does to an output that the report's drawing and its code differ, as its page says.

Both forms of a block with the same weights, as they start, on one batch of normal values: 16 maps
of 64 channels, 8x8, in training. Their difference is that of the outputs' norms, in percent of the
drawn one's.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blocklab.blocks.hierarchical_split import HierarchicalSplitBottleneck
from blocklab.blocks.registry import create_block
from blocklab.measure.receptive_field import live_taps
from blocklab.models.names import declared_params
from blocklab.models.spec import model_spec

PAGE = Path(__file__).parents[2] / "docs" / "report.md"
CHANNELS, SHAPE = 64, (16, 64, 8, 8)

Block = dict[str, Any]
TRIPLET: Block = {"type": "triplet"}
TRIPLETCA: Block = {**TRIPLET, "spatial": "coordinate"}
LK: Block = {"type": "large_kernel_attention", "local_kernel": 7, "kernel": 11}
# What the page calls it -> one form and the other.
PAIRS: dict[str, tuple[Block, Block]] = {
    **{
        f"`{name}` before BatchNorm, or after": (
            {**TRIPLET, "inner_activation": name},
            {**TRIPLET, "inner_activation": f"{name}_after_norm"},
        )
        for name in ("sigmoid", "relu", "gelu", "leaky_relu", "celu", "elu")
    },
    "softmax over the plane, or over the batch": (
        {**TRIPLET, "gate": "softmax"},
        {**TRIPLET, "gate": "softmax_over_batch"},
    ),
    "TripletCA with max and avg, or with l2, max and CELU after BatchNorm": (
        TRIPLETCA,
        {**TRIPLETCA, "statistics": ["l2", "max"], "inner_activation": "celu_after_norm"},
    ),
    "LK dilated by 5, or by 3": ({**LK, "dilation": 5}, {**LK, "dilation": 3}),
}


def images(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SHAPE, generator=generator, dtype=torch.float64)


def percent(other: Tensor, one: Tensor) -> float:
    return 100 * float((other - one).norm() / one.norm())


@torch.no_grad()
def difference(one: nn.Module, other: nn.Module) -> float:
    one.double().train(), other.double().train()
    other.load_state_dict(one.state_dict())
    x = images()
    return percent(other(x), one(x))


def built(spec: Block) -> nn.Module:
    torch.manual_seed(0)
    return create_block("attention", spec, channels=CHANNELS)


@cache
def printed() -> dict[str, str]:
    """What the page's table of differences says."""
    rows = re.findall(r"^\| (.+?) \| ([\d.]+) % \|$", PAGE.read_text(encoding="utf-8"), re.M)
    return dict(rows)


def assert_printed(what: str, value: float) -> None:
    assert printed().get(what) == f"{value:.3g}", f"{what}: {value:.3g} %"


@pytest.mark.parametrize("what", PAIRS)
def test_two_forms_differ_by_what_the_page_says(what: str) -> None:
    one, other = PAIRS[what]
    assert_printed(what, difference(built(one), built(other)))


def test_chained_groups_and_those_of_a_stages_first_block_differ() -> None:
    torch.manual_seed(0)
    chained, apart = (HierarchicalSplitBottleneck(CHANNELS) for _ in range(2))
    apart.conv2.first_in_stage, apart.conv2.pool = True, nn.AvgPool2d(3, 1, padding=1)
    assert_printed("groups chained, or as in a stage's first block", difference(chained, apart))


@torch.no_grad()
def test_an_image_among_others_is_another() -> None:
    block = built({**TRIPLET, "gate": "softmax_over_batch"}).double().eval()
    x = images()
    among_others = torch.cat([x[:1], images(1)[1:]])
    assert_printed(
        "one image beside 15 others, or beside 15 different ones (evaluation)",
        percent(block(among_others)[:1], block(x)[:1]),
    )


@torch.no_grad()
def test_celu_and_elu_are_one_function_and_a_merged_kernel_is_a_plain_one() -> None:
    celu, elu = (built({**TRIPLET, "inner_activation": name}) for name in ("celu", "elu"))
    assert difference(celu, elu) == 0
    told = {"channels": CHANNELS, "drop_path": 0.0}
    trained = create_block("token_mixer", "reparam_large_kernel", **told).double()
    for seed in range(2):
        trained.train()(images(seed))
    x = images(9)
    expected = trained.eval()(x)
    trained.large_kernel.merge()  # type: ignore[operator,union-attr]
    plain = create_block("token_mixer", "plain_large_kernel", **told).double().eval()
    plain.load_state_dict(trained.state_dict())
    assert percent(plain(x), expected) < 1e-10


@pytest.mark.parametrize(
    ("name", "taps"), [("van_b0_lk_d3", (5, 3, 1, 1)), ("van_b0_lk", (3, 1, 1, 1))]
)
def test_how_many_taps_of_lk_meet_the_maps_of_a_small_image(
    name: str, taps: tuple[int, ...]
) -> None:
    looked_at = live_taps(model_spec(name).build_meta(), 32)
    live = [one.live for one in looked_at if "conv_spatial" in one.module]
    assert live == [(side, side) for side in taps]


def test_parameters_that_the_page_gives() -> None:
    text = PAGE.read_text(encoding="utf-8")
    drawn, run, base = map(
        declared_params, ("resnet50_tripletlkn", "resnet50_tripletlkn_as_run", "resnet50")
    )
    assert f"{(drawn - base) / 1e6:.2f} M parameters to ResNet-50, as run" in text
    assert f"as run {(run - base) / 1e6:.2f} M: {drawn / 1e6:.2f} M and {run / 1e6:.2f} M" in text
    ca, triplet_ca, ca_16 = map(
        declared_params, ("resnet50_ca", "resnet50_tripletca", "resnet50_ca_r16")
    )
    assert f"{triplet_ca / 1e6:.2f} M parameters with {ca / 1e6:.2f} M" in text
    assert f"{ca_16 / 1e6:.2f} M: the fair partner" in text.replace("\n", " ").replace("  ", " ")
    plain, both = map(declared_params, ("van_b0_replk_plain", "van_b0_replk"))
    assert f"{plain / 1e6:.2f} M parameters plain and {both / 1e6:.2f} M re-" in text


def test_every_name_on_the_page_is_a_model() -> None:
    text = PAGE.read_text(encoding="utf-8")
    names = set(re.findall(r"`((?:resnet|res2net|van_b|replknet_)\d\w*)`", text))
    assert len(names) > 30
    for name in names:
        model_spec(name)
