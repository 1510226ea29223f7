"""timm finds our models once blocklab is imported."""

import inspect
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import blocklab
from blocklab.errors import InputError
from blocklab.models.timm_registry import register_with_timm


def test_every_named_model_is_listed() -> None:
    expected = sorted(f"blocklab_{name}" for name in blocklab.list_models())
    assert sorted(timm.list_models("blocklab_*")) == expected
    assert all(timm.is_model(name) for name in expected)
    assert not set(timm.list_models("blocklab_*", pretrained=True))


def test_a_second_registration_is_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register_with_timm()


def test_timm_builds_what_we_build() -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("blocklab_resnet20_se", num_classes=7, drop_path_rate=0.1)
    torch.manual_seed(0)
    ours = blocklab.create_model("resnet20_se", num_classes=7, drop_path_rate=0.1)
    assert str(theirs) == str(ours)
    x = torch.randn(2, 3, 16, 24)
    assert torch.equal(theirs.eval()(x), ours.eval()(x))
    assert theirs.num_classes == 7


def test_a_filled_slot_says_what_images_it_takes() -> None:
    cifar: Any = timm.create_model("blocklab_resnet18", stem="cifar")
    deep: Any = timm.create_model("blocklab_resnet18", stem="deep")
    ours: Any = blocklab.create_model("resnet18", stem="cifar")
    for key in ("input_size", "pool_size", "crop_pct", "first_conv"):
        assert cifar.pretrained_cfg[key] == ours.pretrained_cfg[key]
    assert cifar.pretrained_cfg["input_size"] == (3, 32, 32)
    assert deep.pretrained_cfg["first_conv"] == "conv1.0"
    said: Any = timm.create_model(
        "blocklab_resnet18", stem="cifar", pretrained_cfg_overlay={"input_size": (3, 48, 48)}
    )
    assert said.pretrained_cfg["input_size"] == (3, 48, 48)


def test_features_of_chosen_stages() -> None:
    features: Any = timm.create_model(
        "blocklab_resnet50_se", num_classes=10, in_chans=1, features_only=True, out_indices=(1, 2)
    )
    assert features.feature_info.channels() == [512, 1024]
    assert features.feature_info.reduction() == [8, 16]
    shapes = [tuple(m.shape) for m in features.eval()(torch.randn(2, 1, 64, 96))]
    assert shapes == [(2, 512, 8, 12), (2, 1024, 4, 6)]


@pytest.mark.parametrize("name", ["blocklab_resnet18", "blocklab_resnet18.a1_in1k"])
def test_pretrained_weights_without_a_file_are_refused(name: str) -> None:
    with pytest.raises(
        InputError, match=r"no pretrained weights.*pretrained_cfg_overlay"
    ) as caught:
        timm.create_model(name, pretrained=True)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="pretrained_cfg is not timm's"):
        timm.create_model("blocklab_resnet18", pretrained_cfg_overlay={"fyle": "x"})


@pytest.mark.parametrize("kind", ["file", "state_dict"])
def test_pretrained_weights_that_are_named(kind: str, tmp_path: Path) -> None:
    theirs = timm.create_model("seresnet50", num_classes=10, layers=(1, 1, 1, 1)).state_dict()
    torch.save(theirs, tmp_path / "se.pth")
    overlay = {"file": str(tmp_path / "se.pth")} if kind == "file" else {"state_dict": theirs}
    options: dict[str, Any] = {"pretrained": True, "depths": (1, 1, 1, 1)}
    ours: Any = timm.create_model(
        "blocklab_resnet50_se",
        pretrained_cfg_overlay={**overlay, "num_classes": 10},
        num_classes=10,
        **options,
    )
    assert torch.equal(ours.layer4[0].attention.fc1.weight, theirs["layer4.0.se.fc1.weight"])
    assert torch.equal(ours.fc.weight, theirs["fc.weight"])
    pooled: Any = timm.create_model(
        "blocklab_resnet50_se",
        pretrained_cfg_overlay={**overlay, "num_classes": 10},
        num_classes=10,
        global_pool="avg",  # as it is
        **options,
    )
    assert torch.equal(pooled.fc.weight, theirs["fc.weight"])
    # For other classes and channels, as timm does: a fresh head, an adapted first convolution.
    other: Any = timm.create_model(
        "blocklab_resnet50_se",
        pretrained_cfg_overlay={**overlay, "num_classes": 10},
        num_classes=3,
        in_chans=1,
        **options,
    )
    assert other.fc.weight.shape == (3, 2048)
    assert torch.equal(other.conv1.weight, theirs["conv1.weight"].sum(1, keepdim=True))
    features: Any = timm.create_model(
        "blocklab_resnet50_se", pretrained_cfg_overlay=overlay, features_only=True, **options
    )
    assert torch.equal(features.model.conv1.weight, theirs["conv1.weight"])


def test_a_specification_as_a_model() -> None:
    spec = {"base": "resnet20", "attention": "se"}
    torch.manual_seed(0)
    theirs = timm.create_model("blocklab", spec=spec, num_classes=4)
    torch.manual_seed(0)
    ours = blocklab.create_model(spec, num_classes=4)
    x = torch.randn(2, 3, 16, 24)
    assert torch.equal(theirs.eval()(x), ours.eval()(x))
    with pytest.raises(InputError, match="needs spec="):
        timm.create_model("blocklab")
    with pytest.raises(InputError, match="put attention into it"):
        timm.create_model("blocklab", spec=spec, attention="se")


def test_unknown_options_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'attention'"):
        timm.create_model("blocklab_resnet18", atention="se")


def test_entry_points_name_themselves() -> None:
    entry = timm.model_entrypoint("blocklab_van_b0")
    assert entry.__name__ == "blocklab_van_b0"
    assert "van_b0" in (inspect.getdoc(entry) or "")
