"""Deployed networks give the same outputs whatever users did to them, and say what was kept."""

from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from timm.layers import DropPath, FrozenBatchNormAct2d, freeze_batch_norm_2d
from torch import Tensor, nn

from blocklab import create_model, deploy
from blocklab.backbones.resnet import BasicBlock
from blocklab.blocks.folding import is_norm
from blocklab.errors import InputError
from blocklab.models.export import export_model

MODELS: dict[str, dict[str, Any]] = {
    "resnet20_triplet": {"widths": (4, 6), "depths": (2, 1)},
    "res2net50": {"widths": (8, 8), "depths": (2, 1), "stem": "deep"},
    "skresnet18": {"widths": (8, 8), "depths": (2, 1)},
    "van_b0_bn": {"widths": (4, 6), "depths": (2, 1), "ffn_ratios": (2, 2)},
    "replknet_31n": {"widths": (4, 6), "depths": (1, 1), "kernels": (7, 5)},
    "inception_next_atto": {"widths": (8, 8), "depths": (1, 1), "mlp_ratios": (2, 2)},
    "convnextv2_atto": {
        **{"widths": (4, 6), "depths": (1, 1), "mlp_ratios": (2, 2), "layer_scale": 0.5},
        **{"norm": "batch", "outer_norm": "batch", "embedding": "two_convs"},
    },
}


pytestmark = pytest.mark.usefixtures("one_thread_and_a_fixed_seed")


@torch.no_grad()
def randomised(model: nn.Module) -> nn.Module:
    """Give norms and layer scales values as after training, in float64."""
    for module in model.modules():
        if is_norm(module):
            for name, low, high in (
                ("running_mean", -0.3, 0.3),
                ("running_var", 0.5, 1.5),
                ("weight", 0.5, 1.5),
                ("bias", -0.3, 0.3),
            ):
                value = getattr(module, name)
                if value is not None:
                    value.uniform_(low, high)
    for name, parameter in model.named_parameters():
        if "layer_scale" in name:
            parameter.uniform_(0.5, 1.5)
        elif name.endswith(("fc1.weight", "fc2.weight")):  # or a clamp changes nothing
            parameter.uniform_(-2.0, 2.0)
    return model.double().eval()


def build(name: str) -> Any:
    return randomised(create_model(name, num_classes=5, drop_path_rate=0.2, **MODELS[name]))


@torch.no_grad()
def check(model: nn.Module, told: str = "", input_size: int = 32) -> Any:
    """Deploy, compare outputs, and see that each norm was folded or is named; the report."""
    deployed: Any = deploy(model, input_size)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected = model.eval()(x)
    assert (deployed(x) - expected).abs().max() < 1e-12 * expected.abs().max(), told
    report = deployed.deploy_report
    norms = {name for name, module in model.named_modules() if is_norm(module)}
    assert norms == norms & ({*report.folded} | report.kept.keys())
    assert all(report.kept.values()) and "\n" not in str(report)
    return report


def clamp_after(module: nn.Module) -> None:
    module.register_forward_hook(lambda _, inputs, out: out.clamp(-0.2, 0.3))


def clamp_before(module: nn.Module) -> None:
    module.register_forward_pre_hook(lambda _, inputs: (inputs[0].clamp(-0.2, 0.3),))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("change", [clamp_after, clamp_before])
def test_what_watches_a_part_goes_on(name: str, change: Callable[[nn.Module], None]) -> None:
    # A part that no call reaches, such as a list, is watched in vain.
    parts = [part for part, module in build(name).named_modules() if part]
    for part in parts:
        model = build(name)
        change(model.get_submodule(part))
        report = check(model, part)
        if type(model.get_submodule(part)) in (nn.BatchNorm2d, DropPath) and part != "norm":
            assert "has hooks" in str(report)


@pytest.mark.parametrize("name", MODELS)
def test_a_forward_of_a_parts_own_goes_on(name: str) -> None:
    for kind in {type(module) for module in build(name).modules()}:
        model = build(name)
        part = next(module for module in model.modules() if type(module) is kind)
        if kind.forward is nn.ModuleList.forward or part is model:  # which no call reaches
            continue

        def clamped(self: nn.Module, x: Tensor) -> Tensor:
            return type(self).forward(self, x).clamp(-0.2, 0.3)

        part.forward = MethodType(clamped, part)  # type: ignore[method-assign]
        check(model, kind.__name__)
        del part.forward
        part.__class__ = type("Clamped", (kind,), {"forward": _of_parent(kind)})
        check(model, kind.__name__)


def _of_parent(kind: type[nn.Module]) -> Callable[..., Tensor]:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        return kind.forward(self, x).clamp(-0.2, 0.3)

    return forward


@pytest.mark.parametrize("hooked", ["conv1", "bn1"])
def test_backward_hooks_keep_a_norm(hooked: str) -> None:
    model = build("resnet20_triplet")
    model.layer1[0].get_submodule(hooked).register_full_backward_pre_hook(lambda *_: None)
    assert check(model).kept == {"layer1.0.bn1": f"{hooked} has hooks"}


def test_what_is_shared_is_kept() -> None:
    model = build("resnet20_triplet")
    model.layer1[1].conv1 = model.layer1[0].conv1
    kept = check(model).kept
    assert kept == dict.fromkeys(("layer1.0.bn1", "layer1.1.bn1"), "conv1 is used in 2 places")
    model = build("resnet20_triplet")
    model.layer1[1].bn1 = model.layer1[0].bn1
    check(model)
    model = build("resnet20_triplet")
    model.layer1[1] = model.layer1[0]  # whole: both are the same function
    assert check(model).kept == {}


@pytest.mark.parametrize(
    ("name", "shared", "two"),
    [
        ("van_b0_bn", "block1.{}.attn", (0, 1)),
        ("van_b0_bn", "block1.{}.mlp.fc2", (0, 1)),
        ("van_b0_bn", "block1.{}.norm1", (0, 1)),
        ("res2net50", "layer1.{}.conv2.bns", (0, 1)),
        ("res2net50", "layer1.{}.conv3", (0, 1)),
    ],
)
def test_parts_shared_by_blocks(name: str, shared: str, two: tuple[int, int]) -> None:
    model = build(name)
    one, other = (shared.format(number) for number in two)
    owner, _, child = other.rpartition(".")
    setattr(model.get_submodule(owner), child, model.get_submodule(one))
    assert "is used in 2 places" in str(check(model))


def test_parts_shared_within_and_between_large_kernels() -> None:
    model = build("replknet_31n")
    block, following = model.stages[0].blocks
    following.pw1.conv = (
        block.pw1.conv
        if block.pw1.conv.weight.shape[0] == 16
        else nn.Conv2d(4, 16, 1, bias=False).double()
    )
    block.large_kernel.lkb_origin.bn.register_forward_hook(lambda _, inputs, out: out.abs())
    report = check(model)
    assert report.merged == ("stages.1.blocks.0.large_kernel",)
    assert report.kept["stages.0.blocks.0.large_kernel"] == "lkb_origin.bn has hooks"


class Halves(DropPath):
    """A user's own, which does something in evaluation, too."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x.clamp(-0.2, 0.3)


@pytest.mark.parametrize("name", ["resnet20_triplet", "van_b0_bn", "replknet_31n"])
def test_a_users_own_drop_path_stays(name: str) -> None:
    model = build(name)
    own = {part for part, module in model.named_modules() if type(module) is DropPath}
    for part in own:
        owner, _, child = part.rpartition(".")
        setattr(model.get_submodule(owner), child, Halves(0.5))
    report = check(model)
    assert report.dropped == ()
    assert "drop_path is a Halves" in report.kept.values()


class Doubled(BasicBlock):
    """A subclass that changes a method which its parent's forward() calls."""

    def branch(self, x: Tensor) -> Tensor:
        out = self.act1(self.bn1(2 * self.conv1(x)))
        return self.bn2(self.conv2(out))


def test_a_subclass_that_changes_a_step_is_not_spoken_for() -> None:
    model = build("resnet20_triplet")
    model.layer1[0].__class__ = Doubled
    why = "Doubled changes branch() and declares no fold_norms()"
    assert check(model).kept == dict.fromkeys(("layer1.0", "layer1.0.bn1", "layer1.0.bn2"), why)


def parametrised(model: nn.Module) -> nn.Module:
    for module in list(model.modules()):
        if isinstance(module, nn.Conv2d):
            nn.utils.parametrizations.weight_norm(module)
    return model


def replaced(model: nn.Module, norm: Callable[[int], nn.Module]) -> nn.Module:
    """Put another norm of as many channels in each BatchNorm's place."""
    for owner in list(model.modules()):
        for name, module in owner.named_children():
            if type(module) is nn.BatchNorm2d:
                setattr(owner, name, norm(module.num_features))
    return randomised(model)


CHANGES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "parametrised": parametrised,
    "synchronised": nn.SyncBatchNorm.convert_sync_batchnorm,
    "frozen": freeze_batch_norm_2d,
    "frozen_with_activation": lambda model: replaced(model, FrozenBatchNormAct2d),
    "not_affine": lambda model: replaced(model, lambda c: nn.BatchNorm2d(c, affine=False)),
    "no_statistics": lambda model: replaced(
        model, lambda c: nn.BatchNorm2d(c, track_running_stats=False)
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("change", CHANGES)
def test_every_kind_of_norm_is_folded_or_named(name: str, change: str) -> None:
    plain = check(build(name))
    report = check(CHANGES[change](build(name)))
    if change in ("synchronised", "frozen", "not_affine"):  # each of them, as a plain one
        assert report.kept == plain.kept and report.merged == plain.merged
        assert {*report.folded} == {*plain.folded}
    else:
        assert not any(f"{part}." in " ".join(report.folded) for part in ("bn", "norm"))
        assert report.merged == ()
        assert len(report.kept) > len(plain.kept)


def test_what_cannot_be_copied_is_one_line() -> None:
    model = build("resnet20_triplet")
    model.last = model(torch.randn(1, 3, 32, 32, dtype=torch.float64))
    with pytest.raises(InputError, match=r"cannot be copied .*; take out"):
        deploy(model)


@pytest.mark.parametrize("format", ["safetensors", "torch_export"])
def test_an_export_says_what_was_kept(tmp_path: Path, format: Any) -> None:
    model = build("replknet_31n").float()
    model.stages[0].blocks[0].large_kernel.lkb_origin.bn.register_forward_hook(lambda *_: None)
    done = export_model(model, tmp_path / "model.file", format, 32, deploy=True)
    line = str(done)
    assert "stages.0.blocks.0.large_kernel: lkb_origin.bn has hooks" in line
    assert "kernels merged: 1, " in line and "\n" not in line
    assert ("norm: no fold_norms() takes it" in line) == (format == "torch_export")
