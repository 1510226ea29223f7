"""The report's networks as functions of an image and of tensors by name, written from its text."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from report_layers import (
    Weights,
    activate,
    batch_norm,
    conv,
    conv_norm,
    depthwise,
    dropped_path,
    hierarchical_split,
    layer_norm,
    per_channel,
    replk_block,
    selective_kernel,
)
from torch import Tensor
from torch.nn import functional as F

Attention = Callable[..., Tensor]
Network = Callable[[Tensor, Weights, tuple[int, ...]], Tensor]  # image, tensors, depths -> logits


def pooled_head(x: Tensor, w: Weights, name: str) -> Tensor:
    return x.mean((2, 3)) @ w[f"{name}.weight"].T + w[f"{name}.bias"]


# ResNet, and all that the report puts into it.
def resnet(
    x: Tensor,
    w: Weights,
    depths: tuple[int, ...],
    *,
    mixer: str = "3x3",
    activation: str = "relu",
    branch_attention: Attention | None = None,
    attention: Attention | None = None,
    attention_stages: tuple[int, ...] = (1, 2, 3, 4),
    stem: str = "7x7",
    downsample: str = "strided 1x1",
    bottleneck: bool = True,
) -> Tensor:
    act = partial(activate, name=activation)
    if stem == "7x7":
        x = conv(x, w, "conv1", stride=2)
    elif stem == "3x3":  # stride 1, no pool
        x = conv(x, w, "conv1")
    else:  # C: three 3x3, the first with stride 2
        assert w["conv1.0.weight"].shape[0] == w["conv1.3.weight"].shape[0] == 64
        x = act(conv_norm(x, w, "conv1.0", "conv1.1", stride=2))
        x = act(conv_norm(x, w, "conv1.3", "conv1.4"))
        x = conv(x, w, "conv1.6")
    x = act(batch_norm(x, w, "bn1"))
    if stem != "3x3":
        x = F.max_pool2d(x, 3, 2, padding=1)
    for stage, depth in enumerate(depths, start=1):
        for index in range(depth):
            p, first = f"layer{stage}.{index}.", index == 0
            stride = 2 if first and stage > 1 else 1

            def middle(y: Tensor, name: str, p: str, stride: int, first: bool) -> Tensor:
                if mixer == "split":
                    return hierarchical_split(
                        y, w, f"{p}{name}.", activation, stride, first, branch_attention
                    )
                if mixer == "selective kernel":
                    return selective_kernel(y, w, f"{p}{name}.", activation, stride)
                norm = name.replace("conv", "bn")
                return act(conv_norm(y, w, f"{p}{name}", f"{p}{norm}", stride=stride))

            if bottleneck:
                y = act(conv_norm(x, w, f"{p}conv1", f"{p}bn1"))
                y = middle(y, "conv2", p, stride, first)
                y = conv_norm(y, w, f"{p}conv3", f"{p}bn3")
            else:
                y = middle(x, "conv1", p, stride, first)
                y = conv_norm(y, w, f"{p}conv2", f"{p}bn2")
            if attention is not None and stage in attention_stages:
                y = attention(y, w, f"{p}attention.")
            x = act(y + _shortcut(x, w, p, stride, downsample))
    return pooled_head(x, w, "fc")


def _shortcut(x: Tensor, w: Weights, p: str, stride: int, kind: str) -> Tensor:
    if not any(name.startswith(f"{p}downsample.") for name in w.parameters):
        return x
    if kind == "strided 1x1":
        return conv_norm(x, w, f"{p}downsample.0", f"{p}downsample.1", stride=stride)
    if stride == 2:  # D: the mean of 2x2; a last odd row or column has fewer to average
        x = _mean_2x2(x)
    return conv_norm(x, w, f"{p}downsample.1", f"{p}downsample.2")


def _mean_2x2(x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    rows = [x[:, :, i : i + 2] for i in range(0, height, 2)]
    return torch.stack(
        [
            torch.stack([row[..., j : j + 2].mean((2, 3)) for j in range(0, width, 2)], 2)
            for row in rows
        ],
        2,
    )


# VAN.
def van(
    x: Tensor,
    w: Weights,
    depths: tuple[int, ...],
    *,
    spatial: Attention,
    res2net: bool = False,
) -> Tensor:
    for stage, depth in enumerate(depths, start=1):
        stride = 4 if stage == 1 else 2
        size = 7 if stage == 1 else 3
        assert w[f"patch_embed{stage}.proj.weight"].shape[2] == size
        x = conv_norm(x, w, f"patch_embed{stage}.proj", f"patch_embed{stage}.norm", stride=stride)
        for index in range(depth):
            p = f"block{stage}.{index}."
            y = batch_norm(x, w, f"{p}norm1")
            inside = activate(conv(y, w, f"{p}attn.proj_1"), "gelu")
            inside = spatial(inside, w, f"{p}attn.spatial_gating_unit.")
            y = y + conv(inside, w, f"{p}attn.proj_2")
            x = x + per_channel(w[f"{p}layer_scale_1"]) * y
            y = conv(batch_norm(x, w, f"{p}norm2"), w, f"{p}mlp.fc1")
            if res2net:
                y = _res2net_bottleneck(y, w, f"{p}mlp.dwconv.")
            else:
                y = depthwise(y, w, f"{p}mlp.dwconv.dwconv")
            y = conv(activate(y, "gelu"), w, f"{p}mlp.fc2")
            x = x + per_channel(w[f"{p}layer_scale_2"]) * y
        x = layer_norm(x, w, f"norm{stage}", 1e-6)
    return pooled_head(x, w, "head")


def _res2net_bottleneck(x: Tensor, w: Weights, p: str) -> Tensor:
    """1x1, chained groups, 1x1 to four times the width, projection shortcut; CELU throughout."""
    y = activate(conv_norm(x, w, f"{p}conv1", f"{p}bn1"), "celu")
    y = hierarchical_split(y, w, f"{p}conv2.", "celu")
    y = conv_norm(y, w, f"{p}conv3", f"{p}bn3")
    assert y.shape[1] == 4 * x.shape[1]
    return activate(y + conv_norm(x, w, f"{p}downsample.0", f"{p}downsample.1"), "celu")


# RepLKNet-31B.
def replknet(
    x: Tensor, w: Weights, depths: tuple[int, ...], *, last_drop_path: float = 0.0
) -> Tensor:
    def step(x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        y = conv_norm(x, w, f"{name}.conv", f"{name}.bn", stride=stride, groups=groups)
        return activate(y, "relu")

    width = w["stem.0.conv.weight"].shape[0]
    x = step(step(x, "stem.0", 2), "stem.1", 1, width)
    x = step(step(x, "stem.2"), "stem.3", 2, width)
    done = 0
    for stage, (depth, kernel) in enumerate(zip(depths, (31, 29, 27, 13), strict=True)):
        if stage:
            x = step(x, f"transitions.{stage - 1}.0")
            x = step(x, f"transitions.{stage - 1}.1", 2, x.shape[1])
        for index in range(depth):
            rate = last_drop_path * done / (sum(depths) - 1)  # from 0 in the first pair
            x = replk_block(x, w, f"stages.{stage}.blocks.{2 * index}.", rate, kernel)
            p = f"stages.{stage}.blocks.{2 * index + 1}."
            y = batch_norm(x, w, f"{p}preffn_bn")
            y = activate(conv_norm(y, w, f"{p}pw1.conv", f"{p}pw1.bn"), "gelu")
            y = conv_norm(y, w, f"{p}pw2.conv", f"{p}pw2.bn")
            x = x + dropped_path(y, rate, w.training)
            done += 1
    return pooled_head(batch_norm(x, w, "norm"), w, "head")


def network(family: Callable[..., Tensor], **options: Any) -> Network:
    return partial(family, **options)
