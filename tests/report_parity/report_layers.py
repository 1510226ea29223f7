"""What the report's networks are made of, as functions of tensors, written from its text.

A layer is a function of a map and of the tensors whose names begin with a prefix. Nothing here
uses a module of the project: only PyTorch's convolution, reductions and elementary functions.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Weights:
    """A network's tensors by name, copied before it runs; `buffers` become what they should."""

    def __init__(self, network: nn.Module) -> None:
        self.training = network.training
        self.parameters = {
            name: parameter.detach().clone().requires_grad_()
            for name, parameter in network.named_parameters()
        }
        self.buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}

    def __getitem__(self, name: str) -> Tensor:
        return self.parameters[name]

    def __contains__(self, name: str) -> bool:
        return name in self.parameters

    def get(self, name: str) -> Tensor | None:
        return self.parameters.get(name)


def _below_zero(x: Tensor) -> Tensor:
    return torch.where(x > 0, torch.zeros_like(x), x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda x: x - _below_zero(x),
    "leaky_relu": lambda x: x - 0.99 * _below_zero(x),
    "celu": lambda x: x - _below_zero(x) + _below_zero(x).exp() - 1,
    "elu": lambda x: x - _below_zero(x) + _below_zero(x).exp() - 1,
    "gelu": lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "tanh": lambda x: 2 / (1 + (-2 * x).exp()) - 1,
}


def activate(x: Tensor, name: str | None) -> Tensor:
    return x if name is None else ACTIVATIONS[name](x)


def conv(x: Tensor, w: Weights, name: str, *, pad: bool = True, **options: int) -> Tensor:
    """A convolution; `pad` keeps the map's size at stride 1, whatever the dilation."""
    weight = w[f"{name}.weight"]
    bias = w.get(f"{name}.bias")
    if pad:
        options["padding"] = options.get("dilation", 1) * (weight.shape[2] // 2)
    return F.conv2d(x, weight, bias, **options)


def depthwise(x: Tensor, w: Weights, name: str, **options: int) -> Tensor:
    return conv(x, w, name, groups=x.shape[1], **options)


def batch_norm(x: Tensor, w: Weights, name: str, momentum: float = 0.1) -> Tensor:
    mean, variance = w.buffers[f"{name}.running_mean"], w.buffers[f"{name}.running_var"]
    if w.training:
        count = x.numel() // x.shape[1]
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        new = {"running_mean": mean, "running_var": variance * count / (count - 1)}
        for what, value in new.items():
            old = w.buffers[f"{name}.{what}"]
            w.buffers[f"{name}.{what}"] = (1 - momentum) * old + momentum * value.detach()
        w.buffers[f"{name}.num_batches_tracked"] += 1
    normal = (x - per_channel(mean)) / (per_channel(variance) + 1e-5).sqrt()
    return normal * per_channel(w[f"{name}.weight"]) + per_channel(w[f"{name}.bias"])


def layer_norm(x: Tensor, w: Weights, name: str, eps: float) -> Tensor:
    """Over the channels of each position."""
    mean, variance = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
    normal = (x - mean) / (variance + eps).sqrt()
    return normal * w[f"{name}.weight"].view(1, -1, 1, 1) + w[f"{name}.bias"].view(1, -1, 1, 1)


def per_channel(vector: Tensor) -> Tensor:
    return vector.view(1, -1, 1, 1)


def conv_norm(x: Tensor, w: Weights, conv_name: str, norm_name: str, **options: int) -> Tensor:
    return batch_norm(conv(x, w, conv_name, **options), w, norm_name)


def softmax(x: Tensor, dim: int) -> Tensor:
    powers = (x - x.detach().amax(dim, keepdim=True)).exp()
    return powers / powers.sum(dim, keepdim=True)


def dropped_path(x: Tensor, rate: float, training: bool) -> Tensor:
    """Whole samples of a residual branch at zero, the others larger by as much."""
    if rate == 0 or not training:
        return x
    kept = torch.empty(x.shape[0], 1, 1, 1, dtype=x.dtype).bernoulli_(1 - rate)
    return x * kept / (1 - rate)


# Attentions: (map, tensors, prefix, options) -> map of the same shape.
def squeeze_excitation(x: Tensor, w: Weights, p: str) -> Tensor:
    hidden = activate(conv(x.mean((2, 3), keepdim=True), w, f"{p}fc1"), "relu")
    return x * activate(conv(hidden, w, f"{p}fc2"), "sigmoid")


def coordinate(x: Tensor, w: Weights, p: str, reduction: int) -> Tensor:
    """Row and column means through one 1x1, BN and h-swish; x times both gates."""
    assert w[f"{p}conv1.weight"].shape[0] == max(8, x.shape[1] // reduction)
    height = x.shape[2]
    along = torch.cat([x.mean(3), x.mean(2)], dim=2).unsqueeze(3)  # (B, C, H + W, 1)
    f = batch_norm(conv(along, w, f"{p}conv1"), w, f"{p}bn1")
    f = f * (f + 3).clamp(0, 6) / 6
    rows = activate(conv(f[:, :, :height], w, f"{p}conv_h"), "sigmoid")  # (B, C, H, 1)
    columns = activate(conv(f[:, :, height:], w, f"{p}conv_w"), "sigmoid")  # (B, C, W, 1)
    return x * rows * columns.permute(0, 1, 3, 2)


def global_context(x: Tensor, w: Weights, p: str) -> Tensor:
    """Context = the sum of softmax(1x1(x)) over positions times x; transformed and added to x."""
    share = softmax(conv(x, w, f"{p}conv_mask").flatten(2), 2).view(x.shape[0], 1, *x.shape[2:])
    context = (share * x).sum((2, 3), keepdim=True)
    transform = f"{p}channel_add_conv"
    assert w[f"{transform}.0.weight"].shape[0] == x.shape[1] // 16
    hidden = layer_norm(conv(context, w, f"{transform}.0"), w, f"{transform}.1", 1e-5)
    return x + conv(activate(hidden, "relu"), w, f"{transform}.3")


STATISTICS: dict[str, Callable[[Tensor], Tensor]] = {  # over the first axis after the batch
    "max": lambda x: x.max(1).values,
    "avg": lambda x: x.mean(1),
    "median": lambda x: x.sort(1).values[:, (x.shape[1] - 1) // 2],
    "l1": lambda x: x.abs().sum(1),
    "l2": lambda x: x.square().sum(1).sqrt(),
}


def triplet(
    x: Tensor,
    w: Weights,
    p: str,
    statistics: tuple[str, ...] = ("max", "avg"),
    before_norm: str | None = None,
    after_norm: str | None = None,
    gate: str = "sigmoid",
    spatial: str = "zpool",
) -> Tensor:
    """The mean of three copies of x, each gated by the plane that is left when an axis is pooled.

    Over H the gate is C x W, over W it is H x C, over C it is H x W. A gate is Z-pool, 7x7, BN
    (momentum 0.01), gate function; the activations are those that the report tries.
    """

    def gate_of(scores: Tensor) -> Tensor:
        if gate == "softmax":  # over the plane
            return softmax(scores.flatten(1), 1).view_as(scores)
        return softmax(scores, 0) if gate == "softmax_over_batch" else activate(scores, gate)

    def gated(turned: Tensor, name: str) -> Tensor:
        pooled = torch.stack([STATISTICS[statistic](turned) for statistic in statistics], 1)
        assert w[f"{name}.conv.conv.weight"].shape[2:] == (7, 7)
        scores = activate(conv(pooled, w, f"{name}.conv.conv"), before_norm)
        scores = activate(batch_norm(scores, w, f"{name}.conv.bn", 0.01), after_norm)
        return turned * gate_of(scores)

    over_height = gated(x.permute(0, 2, 1, 3), f"{p}cw").permute(0, 2, 1, 3)
    over_width = gated(x.permute(0, 3, 2, 1), f"{p}hc").permute(0, 3, 2, 1)
    if spatial == "zpool":
        third = gated(x, f"{p}hw")
    elif spatial == "coordinate":
        third = coordinate(x, w, f"{p}hw.", reduction=16)
    elif spatial == "large_kernel":  # as drawn
        scores = depthwise(conv(x, w, f"{p}hw.reduce"), w, f"{p}hw.conv0")
        scores = depthwise(scores, w, f"{p}hw.conv_spatial", dilation=3)
        third = x * gate_of(batch_norm(scores, w, f"{p}hw.bn", 0.01))
    else:  # as run
        third = large_kernel_attention(x, w, f"{p}hw.")
    return (over_height + over_width + third) / 3


def large_kernel_attention(
    x: Tensor,
    w: Weights,
    p: str,
    local: int = 5,
    kernel: int = 7,
    dilation: int = 3,
    norm: bool = False,
    activation: str | None = None,
) -> Tensor:
    """x times 1x1(depth-wise dilated(depth-wise(x))); BN after each, activation after two."""

    def then(y: Tensor, name: str) -> Tensor:
        return batch_norm(y, w, f"{p}{name}") if norm else y

    assert w[f"{p}conv0.weight"].shape[2:] == (local, local)
    assert w[f"{p}conv_spatial.weight"].shape[2:] == (kernel, kernel)
    y = activate(then(depthwise(x, w, f"{p}conv0"), "bn0"), activation)
    y = then(depthwise(y, w, f"{p}conv_spatial", dilation=dilation), "bn_spatial")
    return x * then(conv(activate(y, activation), w, f"{p}conv1"), "bn1")


def multi_branch(x: Tensor, w: Weights, p: str, kernels: tuple[int, ...]) -> Tensor:
    return torch.cat(
        [
            large_kernel_attention(x, w, f"{p}branches.{index}.", kernel=kernel)
            for index, kernel in enumerate(kernels)
        ],
        dim=1,
    )


def replk_block(
    x: Tensor, w: Weights, p: str, rate: float, kernel: int = 31, plain: bool = False
) -> Tensor:
    """x + drop path(BN(1x1(relu(large kernel(relu(BN(1x1(BN(x)))))))))."""
    y = conv_norm(batch_norm(x, w, f"{p}prelkb_bn"), w, f"{p}pw1.conv", f"{p}pw1.bn")
    y = activate(y, "relu")
    large = f"{p}large_kernel"
    if plain:  # one convolution with bias, no BN
        assert f"{large}.lkb_reparam.bias" in w
        assert w[f"{large}.lkb_reparam.weight"].shape[2:] == (kernel, kernel)
        y = depthwise(y, w, f"{large}.lkb_reparam")
    else:
        assert w[f"{large}.lkb_origin.conv.weight"].shape[2:] == (kernel, kernel)
        assert w[f"{large}.small_conv.conv.weight"].shape[2:] == (5, 5)
        parts = []
        for part in ("lkb_origin", "small_conv"):
            wide = depthwise(y, w, f"{large}.{part}.conv")
            parts.append(batch_norm(wide, w, f"{large}.{part}.bn"))
        y = parts[0] + parts[1]
    y = conv_norm(activate(y, "relu"), w, f"{p}pw2.conv", f"{p}pw2.bn")
    return x + dropped_path(y, rate, w.training)


# What replaces a 3x3 convolution.
def hierarchical_split(
    x: Tensor,
    w: Weights,
    p: str,
    activation: str,
    stride: int = 1,
    first_in_stage: bool = False,
    attention: Callable[..., Tensor] | None = None,
) -> Tensor:
    """y1 = K1(x1), y_i = K_i(x_i + y_{i-1}), the last passes; first in a stage, no chain."""
    *groups, last = x.chunk(4, 1)
    done: list[Tensor] = []
    for index, group in enumerate(groups):
        if done and not first_in_stage:
            group = group + done[-1]
        y = conv_norm(group, w, f"{p}convs.{index}", f"{p}bns.{index}", stride=stride)
        y = activate(y, activation)
        done.append(y if attention is None else attention(y, w, f"{p}attention."))
    if first_in_stage:
        last = F.pad(last, (1, 1, 1, 1)).unfold(2, 3, stride).unfold(3, 3, stride).mean((4, 5))
    return torch.cat([*done, last], 1)


def selective_kernel(x: Tensor, w: Weights, p: str, activation: str, stride: int) -> Tensor:
    """A 3x3 and a 3x3 dilated by 2, in 32 groups, weighed by softmax a channel at a time."""
    branches = []
    for index in range(2):
        y = conv_norm(
            x,
            w,
            f"{p}paths.{index}.conv",
            f"{p}paths.{index}.bn",
            stride=stride,
            dilation=index + 1,
            groups=32,
        )
        branches.append(activate(y, activation))
    mean = (branches[0] + branches[1]).mean((2, 3), keepdim=True)
    assert w[f"{p}attn.fc_reduce.weight"].shape[0] == max(mean.shape[1] // 16, 32)
    hidden = activate(conv_norm(mean, w, f"{p}attn.fc_reduce", f"{p}attn.bn"), "relu")
    scores = torch.stack(conv(hidden, w, f"{p}attn.fc_select").chunk(2, 1), 1)
    shares = softmax(scores, 1)
    return branches[0] * shares[:, 0] + branches[1] * shares[:, 1]
