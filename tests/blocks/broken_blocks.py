"""Blocks that each break one promise of the contract, and one that breaks none."""

import random
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab.blocks.folding import fold


class Good(nn.Module):
    """A gate of each channel by its mean, with an option of each kind."""

    def __init__(
        self,
        channels: int,
        *,
        factor: float = 2.0,
        gate: Literal["sigmoid", "tanh"] = "sigmoid",
        bias: bool = True,
        reduction: int | None = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels // (reduction or 1), 1, bias=bias)
        self.back = nn.Conv2d(channels // (reduction or 1), channels, 1)
        self.factor, self.gate = factor, gate

    def forward(self, x: Tensor) -> Tensor:
        score = self.back(F.relu(self.conv(x.mean((2, 3), keepdim=True))))
        gate = score.sigmoid() if self.gate == "sigmoid" else score.tanh()
        return x * gate * self.factor


class Simple(nn.Module):
    """y = w x: what the broken ones below break."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class LeaksAcrossTheBatch(Simple):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * x.mean(0, keepdim=True).sigmoid()


class DeadParameter(Simple):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.forgotten = nn.Parameter(torch.ones(channels))


class ParameterTimesZero(DeadParameter):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0 * self.forgotten.sum()


class CutsTheInput(Simple):
    """Its parameters learn, but nothing below it does."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


class InfiniteGradient(Simple):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.where(x > 0, x.sqrt(), 0.0))


class WrongBackward(Simple):
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return gradient

    def forward(self, x: Tensor) -> Tensor:
        return self.Double.apply(super().forward(x))  # type: ignore[return-value]


class IgnoredOption(Simple):
    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__(channels)
        self.reduction = reduction


class IgnoredChoice(Simple):
    """One of its three gates was never written."""

    def __init__(
        self, channels: int, *, gate: Literal["none", "double", "square"] = "none"
    ) -> None:
        super().__init__(channels)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x if self.gate == "double" else x)


class OverwritesItsInput(Simple):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(self.weight)


class NeedsMoreThanOnePixel(Simple):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.norm = nn.InstanceNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.norm(x).sigmoid()


class WrongShape(Simple):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).transpose(2, 3)


class ViewsItsInput(Simple):
    """`view` fails where channels lie last in memory."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.view(x.shape[0], -1).mean(1)
        return super().forward(x) * mean[:, None, None, None].sigmoid()


class ReadsMemoryInOrder(Simple):
    """Silently another map where channels lie last in memory."""

    def forward(self, x: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        strides = (channels * height * width, height * width, width, 1)
        return super().forward(torch.as_strided(x, x.shape, strides))


class DrawsInEvaluation(Simple):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.01 * torch.rand((), dtype=x.dtype)


class StartsByChance(Simple):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        nn.init.constant_(self.weight, random.random() + 0.5)


class LearnsInEvaluation(Simple):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1  # type: ignore[operator]
        return super().forward(x)


class StateOnTheSide(Simple):
    """What it learns is no buffer, so it is not saved."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.mean = 0.0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * float(x.detach().mean())
        return super().forward(x) + (0 if self.training else self.mean)


class NeedsManyBits(Simple):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x + 1000) - 1000)


class AlwaysFloat32(Simple):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.zeros(1, dtype=torch.float32, device=x.device)


class OtherwiseWhenCompiled(Simple):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x if torch.compiler.is_compiling() else x)


class UnknownCost(Simple):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.fft.fft(x.double()).real.to(x.dtype)


class NotOnMeta(Simple):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2 if float(self.weight.detach()[0]) > 1e9 else 1)


class MergeForgetsTheBias(Simple):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))
        self.merged = False

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if self.merged else y + self.bias

    def merge(self) -> None:
        self.merged = True


class FoldsOverAnActivation(Simple):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.conv, self.bn = nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.bn(self.conv(x).tanh()))

    def fold_norms(self) -> None:
        fold(self, "conv", "bn")


class CannotBeBuilt(Simple):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.weight = nn.Parameter(torch.ones(self.absent))  # type: ignore[arg-type]


class IgnoresTheStride(nn.Conv2d):
    """A mixer."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)


class WidensInSilence(nn.Conv2d):
    """A token mixer that doubles its channels without an `out_channels` that says so."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 2 * channels, 1)
        self.out_channels = channels


class CountsOn64Channels(Simple):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.weight = nn.Parameter(torch.ones(64, 1, 1))


class LeavesNoChannel(Simple):
    """Four channels or more reduce to one; three to none, and the gate is then always a half."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.down = nn.Conv2d(channels, channels // 4, 1, bias=False)
        self.up = nn.Conv2d(channels // 4, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.up(self.down(x)).sigmoid()


class KnowsSmallMapsAlone(Simple):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.place = nn.Parameter(torch.zeros(channels, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.place[:, : x.shape[2], : x.shape[3]]


class KnowsOneActivation(Simple):
    """An FFN mixer."""

    def __init__(self, channels: int, activation: str) -> None:
        super().__init__(channels)
        self.act = {"relu": nn.ReLU()}[activation]


class KeepsAWordBesideItsTensors(Simple):
    """Its state_dict holds what no file of weights takes."""

    def get_extra_state(self) -> str:
        return "a word"

    def set_extra_state(self, state: str) -> None:
        pass


class NotOnSmallMapsOfManyChannels(Simple):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] == (100, 4, 4):
            raise ZeroDivisionError("a fault that only a network meets")
        return super().forward(x)


class SaysThatItMixesSamples(Simple):
    mixes_samples = "a wish"


BROKEN: list[tuple[type[nn.Module], str, str]] = [
    (LeaksAcrossTheBatch, "samples", "an image's output changes"),
    (SaysThatItMixesSamples, "samples", r"says that it mixes samples \(a wish\), and does not"),
    (DeadParameter, "gradients", "forgotten gets no gradient"),
    (ParameterTimesZero, "gradients", "forgotten gets no gradient"),
    (CutsTheInput, "gradients", "the input gets no gradient"),
    (InfiniteGradient, "gradients", "is not finite"),
    (WrongBackward, "finite differences", "50 % from what small steps measure"),
    (IgnoredOption, "options", "reduction changes nothing"),
    (IgnoredChoice, "options", "gate='square' changes nothing"),
    (OverwritesItsInput, "keeps its input", "the input is overwritten"),
    (NeedsMoreThanOnePixel, "shape", "1x1 maps"),
    (WrongShape, "shape", "7x5 maps, .* instead of"),
    (ViewsItsInput, "bf16", r"RuntimeError: view size .*\(broken_blocks.py, line \d+\)"),
    (ReadsMemoryInOrder, "channels_last", "the output is another"),
    (DrawsInEvaluation, "deterministic", "two runs on one input differ"),
    (StartsByChance, "deterministic", "weight starts otherwise from the same seed"),
    (LearnsInEvaluation, "deterministic", "seen changes in evaluation"),
    (StateOnTheSide, "state_dict", "a fresh block with its state_dict gives other outputs"),
    (NeedsManyBits, "bf16", "% from float32"),
    (AlwaysFloat32, "bf16", "which the next layer cannot take"),
    (OtherwiseWhenCompiled, "compile", "the output is another"),
    (UnknownCost, "cost", "does not know operator"),
    (NotOnMeta, "cost", ""),
    (MergeForgetsTheBias, "merge", "changes the output"),
    (FoldsOverAnActivation, "fold_norms", "changes the output"),
    (CannotBeBuilt, "builds", "AttributeError"),
    (IgnoresTheStride, "shape", "stride 2"),
    (WidensInSilence, "shape", "instead of"),
    (CountsOn64Channels, "shape", r"7x5 maps.*\(3 channels\): RuntimeError"),
    (LeavesNoChannel, "builds", r"down.weight is empty \(3 channels\)"),
    (KnowsSmallMapsAlone, "shape", r"32x32 maps.*RuntimeError.*\(broken_blocks.py, line \d+\)"),
    (KnowsOneActivation, "builds", r"built \(activation gelu, drop_path 0.1\): KeyError"),
    (KeepsAWordBesideItsTensors, "deterministic", "_extra_state of its state_dict is a str"),
    (NotOnSmallMapsOfManyChannels, "study", "resnet20 with 3, 16, 64 and 100 channels, counted: "),
]
# What else must fail where one fault breaks two promises.
ALSO = {
    CutsTheInput: {"finite differences"},
    ViewsItsInput: {"channels_last"},  # as bf16 is tried in both layouts
    InfiniteGradient: {"finite differences", "channels_last", "bf16"},
}
KINDS = {KnowsOneActivation: "ffn_mixer", IgnoresTheStride: "mixer", WidensInSilence: "token_mixer"}
