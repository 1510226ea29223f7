"""Deployed networks: the same outputs, nothing folded that no class declares."""

import copy
import json
import re
from typing import Any, cast

import pytest
import torch
from one_of_each import one_of_each
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode

from blocklab import cost, create_model, deploy, list_models
from blocklab.blocks.large_kernel_attention import LargeKernelAttention
from blocklab.errors import InputError
from blocklab.kernels.depthwise import DepthwiseConv2d
from blocklab.models.deploy import copy_of
from blocklab.models.spec import ModelSpec, model_spec

_ACTIVATION = re.compile(r'"((?:inner_)?activation)": "\w+"')


pytestmark = pytest.mark.usefixtures("one_thread_and_a_fixed_seed")


def narrow(name: str) -> dict[str, Any]:
    """A model's specification with its slots as they are and few, narrow blocks."""
    value = model_spec(name).to_dict()
    stages = len(value["widths"])
    value["depths"] = [2, *[1] * (stages - 1)]
    value["widths"] = [16, 24, 32, 48][:stages] if "van" in value["family"] else [16] * stages
    if value["family"] == "metaformer":  # narrow mixers still need three channels
        value["widths"] = [16, 24, 32, 48]
    value["drop_path_rate"], value["drop_rate"] = 0.2, 0.1
    return value


def cases() -> list[Any]:
    """Every named model once narrowed; names that differ in an activation alone are one."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for name in list_models():
        value = narrow(name)
        text = _ACTIVATION.sub(r"\1", json.dumps(value, sort_keys=True))
        found.setdefault(text, (name, value))
    here = one_of_each(found.values())
    return [
        pytest.param(value, id=name, marks=() if name in here else pytest.mark.slow)
        for name, value in found.values()
    ]


@torch.no_grad()
def randomised(model: nn.Module) -> nn.Module:
    """Give norms and layer scales values as after training, so that each of them matters."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.3)
    for name, parameter in model.named_parameters():
        if "layer_scale" in name:
            parameter.uniform_(0.05, 0.2)
    return model.eval()


def difference(deployed: nn.Module, model: nn.Module, images: Tensor) -> float:
    """The largest difference of outputs, relative to the largest output."""
    with torch.inference_mode():
        out, expected = deployed(images), model(images)
    return ((out - expected).abs().max() / expected.abs().max()).item()


def images(size: int = 32, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(2, 3, size, size, dtype=dtype)


@pytest.mark.parametrize("value", cases())
def test_every_named_model_gives_the_same_outputs(value: dict[str, Any]) -> None:
    model = randomised(ModelSpec.from_dict(value).build(7, 3))
    deployed = deploy(model, input_size=32)
    assert difference(deployed, model, images()) < 1e-5
    model = model.double()
    deployed = deploy(model)
    assert difference(deployed, model, images(dtype=torch.float64)) < 1e-12
    report: Any = deployed.deploy_report
    # All but RepLKNet's last norm and those behind an activation are part of a convolution.
    assert all(name == "norm" or re.search(r"\.conv\.bn$", name) for name in report.kept)
    folds = value.get("layer_scale", True) or any(
        isinstance(m, _BatchNorm) for m in model.modules()
    )
    assert bool(report.folded) == bool(folds) and report.dropped
    assert not any(parameter.requires_grad for parameter in deployed.parameters())
    assert not deployed.training


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_every_named_model_at_full_size(name: str) -> None:
    if cost(name, 32).params > 100_000_000:
        pytest.skip("more than 100 M parameters")
    model = create_model(name, num_classes=10)
    model.train()
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(4, 3, 64, 64))
    model.eval()
    assert difference(deploy(model), model, images(64)) < 1e-5


def test_the_model_stays_as_it_is() -> None:
    model = randomised(create_model("resnet20_triplet", num_classes=5)).train()
    before = copy.deepcopy(model.state_dict())
    deploy(model)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(after[name].equal(value) for name, value in before.items())


def test_the_report_names_what_was_done() -> None:
    model = create_model("replknet_31n", depths=(1, 1, 1, 1), num_classes=5, drop_path_rate=0.1)
    report: Any = deploy(randomised(model), input_size=16).deploy_report
    kernels = tuple(f"stages.{stage}.blocks.0.large_kernel" for stage in range(4))
    assert report.merged == kernels
    assert {f"{kernel}.small_conv.bn" for kernel in kernels} < set(report.folded)
    assert "stages.0.blocks.0.prelkb_bn" in report.folded
    assert report.kept == {"norm": "no fold_norms() takes it"}
    assert set(report.cut) == {f"{kernel}.lkb_reparam" for kernel in kernels[1:]}
    assert str(report) == (
        f"kernels merged: 4, norms and scales folded: {len(report.folded)}, drops left out: 8, "
        "kernels cut for images up to 16x16: 3, kept: 1 (norm: no fold_norms() takes it)"
    )


def test_kernels_are_cut_to_the_images_and_larger_ones_refused() -> None:
    model = randomised(create_model("van_b0", num_classes=5, widths=(8,) * 4, depths=(1,) * 4))
    deployed = deploy(model, input_size=64)
    sizes = {
        name: module.kernel_size[0]
        for name, module in deployed.named_modules()
        if isinstance(module, DepthwiseConv2d) and "conv_spatial" in name
    }
    assert list(sizes.values()) == [7, 5, 3, 1]  # 16, 8, 4 and 2 pixels; taps lie 3 apart
    for size in (64, 32):
        assert difference(deployed, model, images(size)) < 1e-5
    with pytest.raises(InputError, match=r"cut for maps up to .*deploy the network for the larger"):
        deployed(images(96))
    assert sum(p.numel() for p in deployed.parameters()) < sum(
        p.numel() for p in model.parameters()
    )
    assert cost(deployed, 64).macs < cost(model, 64).macs


def test_timms_methods_go_on() -> None:
    model = randomised(create_model("res2net20", num_classes=5))
    deployed: Any = deploy(model)
    x = images()
    with torch.inference_mode():
        features = deployed.forward_features(x)
        expected = model.forward_features(x)  # type: ignore[operator]
        assert (features - expected).abs().max() < 1e-5 * expected.abs().max()
        assert deployed.forward_head(features, pre_logits=True).shape == (2, model.num_features)
        assert len(deployed.forward_intermediates(x)[1]) == 3
    maps = randomised(create_model("resnet20_se", features_only=True))
    with torch.inference_mode():
        for one, other in zip(deploy(maps)(x), maps(x), strict=True):
            assert (one - other).abs().max() < 1e-5 * other.abs().max()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_layouts_and_half_precision(layout: torch.memory_format) -> None:
    model = randomised(create_model("resnet20_triplet", num_classes=5))
    model = model.to(memory_format=layout)  # type: ignore[call-overload]
    deployed = deploy(model)
    assert deployed.get_submodule("layer1.0.conv1").weight.is_contiguous(memory_format=layout)  # type: ignore[operator,union-attr]
    x = images().contiguous(memory_format=layout)
    assert difference(deployed, model, x) < 1e-5
    with torch.autocast("cpu", torch.bfloat16):
        assert difference(deployed, model, x) < 5e-2


class Declares(LargeKernelAttention):
    """A subclass that computes as its parent."""


class Recomputes(LargeKernelAttention):
    """A subclass that computes something else, of whose norms nothing is known."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn0(self.conv0(x).abs())


class Silent(nn.Module):
    """A user's block that declares nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.both = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.both[1](self.bn(self.conv(x).relu()))


def test_only_what_is_declared_is_folded() -> None:
    model = nn.Sequential(Declares(4, norm=True), Recomputes(4, norm=True), Silent())
    deployed = deploy(randomised(model))
    report: Any = deployed.deploy_report
    assert report.folded == ("0.bn0", "0.bn_spatial", "0.bn1")
    changed = "Recomputes changes forward() and declares no fold_norms()"
    names = ("1", "1.bn0", "1.bn_spatial", "1.bn1")
    silent = dict.fromkeys(("2.bn", "2.both.1"), "no fold_norms() takes it")
    assert report.kept == dict.fromkeys(names, changed) | silent
    assert report.dropped == ()
    assert difference(deployed, model, torch.randn(2, 4, 6, 5)) < 1e-5


def test_hooks_and_parametrisations_are_respected() -> None:
    model = nn.Sequential(LargeKernelAttention(4, norm=True))
    block: Any = model[0]
    block.bn0.register_forward_hook(lambda module, inputs, out: 2 * out)
    nn.utils.parametrizations.weight_norm(block.conv1)
    deployed = deploy(randomised(model))
    report: Any = deployed.deploy_report
    assert report.folded == ("0.bn_spatial",)
    assert report.kept == {"0.bn0": "bn0 has hooks", "0.bn1": "conv1 is parametrized"}
    assert difference(deployed, model, torch.randn(2, 4, 6, 5)) < 1e-5


def test_networks_of_others_are_copied() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    deployed = deploy(randomised(model))
    report: Any = deployed.deploy_report
    assert report.folded == report.dropped == () and report.kept == {
        "1": "no fold_norms() takes it"
    }
    assert difference(deployed, model, images()) == 0


class _NewMemory(TorchDispatchMode):
    """Count the bytes that operations take on the processor besides memory that is known."""

    def __init__(self, known: nn.Module) -> None:
        super().__init__()
        tensors = known.state_dict().values()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.device.type == "cpu":
            storage = out.untyped_storage()
            self.bytes += storage.nbytes() * (storage.data_ptr() not in self.known)
        return out


def test_a_copy_on_another_device_takes_no_memory_where_the_network_is() -> None:
    model = create_model("resnet20", num_classes=5)
    model.layer2 = model.layer1  # a shared part stays one
    with _NewMemory(model) as taken:
        there = cast(Any, copy_of(model, "meta"))
    assert taken.bytes == 0 and there.layer2 is there.layer1
    for name, tensor in there.state_dict(keep_vars=True).items():
        before = model.state_dict(keep_vars=True)[name]
        assert tensor.is_meta and not before.is_meta
        assert (tensor.shape, type(tensor)) == (before.shape, type(before))
        assert tensor.requires_grad == before.requires_grad
    here, again = copy_of(model, "cpu"), copy_of(model)
    for name, tensor in model.state_dict().items():
        for copied in (here, again):
            assert torch.equal(copied.state_dict()[name], tensor)
            assert copied.state_dict()[name].data_ptr() != tensor.data_ptr()
    lazy = copy_of(nn.Sequential(nn.LazyConv2d(4, 3)), "cpu")
    assert lazy(images()).shape[1] == 4


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(InputError, match="deploy takes a network, not a str"):
        deploy("resnet18")  # type: ignore[arg-type]
    model = create_model("resnet20", num_classes=5)
    for size in (0, -3, True, 2.5):
        with pytest.raises(InputError, match="positive number of pixels"):
            deploy(model, input_size=size)  # type: ignore[arg-type]


def test_kernels_are_cut_for_images_that_are_not_square() -> None:
    model = randomised(
        create_model("replknet_31n", num_classes=5, depths=(1, 1), widths=(8, 16), kernels=(31, 13))
    )
    deployed = deploy(model, input_size=(8, 12))
    report: Any = deployed.deploy_report
    assert report.input_size == (8, 12) and len(report.cut) == 2
    x = torch.randn(2, 3, 8, 12)
    assert difference(deployed, model, x) < 1e-5
    with pytest.raises(InputError, match="deploy the network for the larger input_size"):
        deployed(torch.randn(1, 3, 12, 12))
    # Nothing is cut where the longer side needs every tap, and then nothing larger is refused.
    deployed = deploy(model, input_size=(8, 96))
    assert cast(Any, deployed.deploy_report).cut == ()
    x = torch.randn(1, 3, 96, 96)
    assert difference(deployed, model, x) < 1e-5
