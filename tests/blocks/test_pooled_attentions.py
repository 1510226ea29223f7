"""CBAM, BAM, ECA, SimAM, EMA, Shuffle, ELA and Gather-Excite against their equations."""

import copy
from itertools import product
from typing import Any

import pytest
import slow_attentions
import torch
from slow_loops import assert_equals_loop
from torch import nn

from blocklab import create_model, deploy
from blocklab.blocks.efficient_channel_attention import kernel_size
from blocklab.blocks.protocol import init_itself
from blocklab.blocks.registry import create_block
from blocklab.errors import InputError


def build(name: str, channels: int, **options: Any) -> nn.Module:
    return create_block("attention", {"type": name, **options}, channels=channels)


@pytest.mark.parametrize(("kernel", "reduction", "bias"), [(7, 2, False), (3, 16, True)])
def test_cbam(kernel: int, reduction: int, bias: bool) -> None:
    block = build("cbam", 6, kernel=kernel, reduction=reduction, mlp_bias=bias)
    assert_equals_loop(block, lambda x, w: slow_attentions.cbam(x, w, kernel=kernel), (2, 6, 3, 4))


@pytest.mark.parametrize("norms", ["last", "inner"])
@pytest.mark.parametrize(("combine", "dilation"), [("sum", 4), ("product", 1), ("max", 2)])
def test_bam(combine: str, dilation: int, norms: str) -> None:
    block = build("bam", 6, combine=combine, dilation=dilation, norms=norms, reduction=3)

    def loop(x: Any, weights: Any) -> Any:
        return slow_attentions.bam(x, weights, dilation=dilation, combine=combine, norms=norms)

    assert_equals_loop(block, loop, (3, 6, 5, 6))


@pytest.mark.parametrize(("channels", "kernel"), [(6, None), (9, None), (6, 5), (3, 9)])
def test_eca(channels: int, kernel: int | None) -> None:
    assert_equals_loop(
        build("eca", channels, kernel=kernel), slow_attentions.eca, (2, channels, 3, 4)
    )


@pytest.mark.parametrize(
    ("channels", "size"), [(3, 1), (7, 1), (8, 3), (64, 3), (128, 5), (256, 5), (512, 5), (2048, 7)]
)
def test_ecas_kernel_is_the_papers(channels: int, size: int) -> None:
    """3 for 64 channels, 5 for 256 and 512: the paper's figure 3 and the authors' code."""
    assert kernel_size(channels, 2, 1) == size
    assert build("eca", channels).conv.weight.shape == (1, 1, size)  # type: ignore[union-attr]


@pytest.mark.parametrize("options", [{"gamma": 1e-4}, {"gamma": 1e-300}, {"beta": 1e300}])
def test_a_kernel_beyond_all_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="larger gamma"):
        build("eca", 64, **options)


@pytest.mark.parametrize("e_lambda", [1e-4, 0.5])
@pytest.mark.parametrize("size", [(3, 4), (1, 1), (1, 3)])
def test_simam(e_lambda: float, size: tuple[int, int]) -> None:
    block = build("simam", 3, e_lambda=e_lambda)
    assert_equals_loop(
        block, lambda x, w: slow_attentions.simam(x, w, e_lambda=e_lambda), (2, 3, *size)
    )


@pytest.mark.parametrize(("factor", "groups"), [(2, 2), (32, 6), (1, 1), (4, 3)])
def test_ema(factor: int, groups: int) -> None:
    block = build("ema", 6, factor=factor)
    assert_equals_loop(block, lambda x, w: slow_attentions.ema(x, w, groups=groups), (2, 6, 3, 4))


@pytest.mark.parametrize(("channels", "asked", "groups"), [(12, 2, 2), (12, 3, 3), (6, 64, 3)])
def test_shuffle(channels: int, asked: int, groups: int) -> None:
    block = build("shuffle", channels, groups=asked)
    assert_equals_loop(
        block, lambda x, w: slow_attentions.shuffle(x, w, groups=groups), (2, channels, 3, 4)
    )


def test_shuffle_needs_two_halves() -> None:
    with pytest.raises(InputError, match="even number, not 7"):
        build("shuffle", 7)


@pytest.mark.parametrize(
    ("kernel", "group_width", "norm_groups", "normed"), [(7, 1, 16, 6), (3, 2, 2, 2), (5, 4, 4, 3)]
)
def test_ela(kernel: int, group_width: int, norm_groups: int, normed: int) -> None:
    block = build("ela", 6, kernel=kernel, group_width=group_width, norm_groups=norm_groups)
    per_group = {1: 1, 2: 2, 4: 3}[group_width]  # what divides 6
    assert block.conv.weight.shape == (6, per_group, kernel)  # type: ignore[union-attr]
    assert_equals_loop(
        block, lambda x, w: slow_attentions.ela(x, w, norm_groups=normed), (2, 6, 3, 4)
    )


@pytest.mark.parametrize(("name", "options"), [("ela", {}), ("ema", {"factor": 1})])
def test_one_image_of_one_position(name: str, options: dict[str, int]) -> None:
    """A group of one value, which PyTorch's GroupNorm refuses, has its bias."""
    block = build(name, 3, **options)

    def loop(x: Any, weights: Any) -> Any:
        if name == "ela":
            return slow_attentions.ela(x, weights, norm_groups=3)
        return slow_attentions.ema(x, weights, groups=1)

    assert_equals_loop(block, loop, (1, 3, 1, 1))


@pytest.mark.parametrize("excite", [False, True])
@pytest.mark.parametrize(("extent", "learned"), [(None, False), *product((2, 4, 8), (False, True))])
def test_gather_excite(extent: int | None, learned: bool, excite: bool) -> None:
    block = build(
        "gather_excite",
        4,
        extent=extent or "global",
        extra_params=learned,
        excite=excite,
        **({"reduction": 2} if excite else {}),
    )

    def loop(x: Any, weights: Any) -> Any:
        return slow_attentions.gather_excite(
            x, weights, extent=extent, learned=learned, excite=excite
        )

    assert_equals_loop(block, loop, (2, 4, 9, 5))


def test_a_learned_gathering_has_no_global_extent() -> None:
    with pytest.raises(InputError, match="extent: 2, 4 or 8"):
        build("gather_excite", 8, extra_params=True)
    with pytest.raises(InputError, match="extent"):
        build("gather_excite", 8, extent=3)


def test_shuffle_starts_as_the_authors() -> None:
    """Weights at 0 and biases at 1: every gate is sigmoid(1), whatever the image."""
    block = build("shuffle", 8, groups=2)
    init_itself(block)
    x = torch.randn(2, 8, 3, 4)
    order = [0, 4, 1, 5, 2, 6, 3, 7]
    torch.testing.assert_close(block(x), (x * torch.ones(()).sigmoid())[:, order])


NAMES = ["cbam", "bam", "eca", "simam", "ema", "shuffle", "ela", "gather_excite"]
LEARNED = {"type": "gather_excite", "extent": 4, "extra_params": True, "excite": True}


@pytest.mark.parametrize("attention", [*NAMES, LEARNED, ["bam", "ema"]], ids=str)
def test_in_a_network_down_to_one_pixel_and_deployed(attention: Any) -> None:
    """ResNet-18 on 32x32 images behind its ImageNet stem ends in 1x1 maps."""
    torch.manual_seed(0)
    model = create_model("resnet18", attention=attention, num_classes=5)
    x = torch.randn(4, 3, 32, 32)
    model.train()(x).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    model.eval()
    with torch.no_grad():
        for images in (x, x[:1], torch.randn(1, 3, 45, 70)):
            expected = model(images)
            torch.testing.assert_close(deploy(model)(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_layout_stays(name: str, layout: torch.memory_format) -> None:
    block = build(name, 32)
    x = torch.randn(2, 32, 5, 6).to(memory_format=layout).requires_grad_()
    out = block(x)
    assert out.is_contiguous(memory_format=layout)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert gradient.shape == x.shape


@pytest.mark.parametrize("name", NAMES)
def test_what_is_exported_computes_the_same_at_other_sizes(name: str) -> None:
    block = build(name, 32).eval()
    x = torch.randn(2, 32, 6, 7)
    sizes = {
        0: torch.export.Dim("n"),
        2: torch.export.Dim("h", min=2),
        3: torch.export.Dim("w", min=2),
    }
    program = torch.export.export(copy.deepcopy(block), (x,), dynamic_shapes=(sizes,)).module()
    for other in (x, torch.randn(3, 32, 9, 4)):
        torch.testing.assert_close(program(other), block(other), rtol=1e-4, atol=1e-5)
