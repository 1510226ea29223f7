"""Grad-CAM held against a slow loop of its equations, and gates against what is known of them."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from blocklab.blocks.squeeze_excitation import SqueezeExcitation
from blocklab.errors import InputError
from blocklab.measure.saliency import attentions, grad_cam, let_through
from blocklab.models.factory import create_model
from blocklab.models.own_backbones import register_backbone

TINY = {"backbone": "resnet20", "widths": [4, 4, 8], "depths": [1, 1, 1]}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    torch.manual_seed(0)
    yield


def slow_grad_cam(model: nn.Module, image: Tensor, label: int, layer: str) -> np.ndarray:
    """Equations 1 and 2 of arXiv:1610.02391, a channel and a position at a time."""
    kept: list[Tensor] = []

    def keep(*given: object) -> Tensor:  # what follows may work in place, on a copy
        assert isinstance(given[2], Tensor)
        kept.append(given[2])
        return given[2].clone()

    hook = model.get_submodule(layer).register_forward_hook(keep)
    logits = model(image[None])
    hook.remove()
    (gradient,) = torch.autograd.grad(logits[0, label], kept[0])
    _, channels, height, width = gradient.shape
    total = np.zeros((height, width))
    for channel in range(channels):
        alpha = 0.0
        for row in range(height):
            for column in range(width):
                alpha += float(gradient[0, channel, row, column]) / (height * width)
        total += alpha * kept[0][0, channel].detach().numpy()
    return np.maximum(total, 0)


@pytest.mark.parametrize("layer", ["layer2.0", "layer3.0", "layer3.0.bn1", "layer3.0.bn2"])
def test_grad_cam_is_its_equations(layer: str) -> None:
    model = create_model(TINY | {"attention": "se"}, 5).eval()
    images = torch.randn(3, 3, 32, 24)
    found = grad_cam(model, images, [0, 4, 2], layer)
    assert found.layer == layer and found.values.shape == (3, *found.size)
    for image, label, values in zip(images, (0, 4, 2), found.values, strict=True):
        expected = slow_grad_cam(model, image, label, layer)
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6)
    assert found.values.max() > 0 and found.values.min() == 0


def test_grad_cam_leaves_the_network_as_it_was() -> None:
    model = create_model(TINY, 5).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    grad_cam(model, torch.randn(2, 3, 32, 32), [0, 1])
    assert model.training and all(one.grad is None for one in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("learns", [False, True])
def test_a_frozen_network_is_weighed_as_one_that_learns(learns: bool) -> None:
    model = create_model(TINY, num_classes=5).eval()
    images = torch.randn(2, 3, 32, 24)
    wanted = grad_cam(model, images, [1, 2])
    model.requires_grad_(False)
    model.get_submodule("fc").requires_grad_(learns)
    found = grad_cam(model, images, [1, 2])
    assert found.layer == wanted.layer and np.array_equal(found.values, wanted.values)
    assert not images.requires_grad


def test_a_map_of_one_pixel_says_nothing_so_an_earlier_one_is_taken() -> None:
    model = create_model({**TINY, "backbone": "resnet18", "stem": "imagenet"}, 5)
    found = grad_cam(model, torch.randn(1, 3, 32, 32), [0])  # maps of 8, 4, 2 and 1 pixels
    assert found.size == (4, 4)


def test_a_model_that_gives_its_maps_channels_last_is_weighed_by_channels() -> None:
    class Last(nn.Module):
        output_fmt = "NHWC"

        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(_Turned())
            self.head = nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.blocks(x).mean((1, 2)))

    found = grad_cam(Last(), torch.randn(2, 3, 9, 7), [0, 1], "blocks.0")
    assert found.values.shape == (2, 9, 7)


class _Turned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).movedim(1, 3)


@pytest.mark.usefixtures("registry_as_it_was")
def test_a_users_stage_of_plain_layers_counts_as_a_block() -> None:
    @register_backbone("plain_layers")
    class _PlainLayers(nn.Module):
        native_size = 16

        def __init__(self, in_chans: int) -> None:
            super().__init__()
            self.stem = nn.Conv2d(in_chans, 4, 3, padding=1)
            first = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
            second = nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1), nn.ReLU())
            self.stages = nn.ModuleList([first, second])

    for given, layer in (({}, "stages.1"), ({"attention": "se"}, "attentions.1")):
        model = create_model({"backbone": "plain_layers", **given}, 5)
        found = grad_cam(model, torch.randn(1, 3, 16, 12), [0])
        assert found.layer == layer and found.size == (8, 6)


def test_what_cannot_be_weighed_is_said_in_a_line() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(InputError, match="no residual block is found"):
        grad_cam(plain, torch.randn(1, 3, 8, 8), [0])
    assert grad_cam(plain, torch.randn(1, 3, 8, 8), [0], "0").size == (6, 6)
    model = create_model(TINY, 5)
    with pytest.raises(InputError, match=r"no module 'layer3.9'; did you mean"):
        grad_cam(model, torch.randn(1, 3, 32, 32), [0], "layer3.9")
    with pytest.raises(InputError, match="'fc' gives no map"):
        grad_cam(model, torch.randn(1, 3, 32, 32), [0], "fc")
    with pytest.raises(InputError, match="1 or more, not 0"):
        let_through(create_model({**TINY, "attention": "se"}), torch.randn(1, 3, 32, 32), most=0)
    with pytest.raises(InputError, match="no attention that gates a map"):
        let_through(model, torch.randn(1, 3, 32, 32))


def test_a_gate_shows_its_value() -> None:
    """A squeeze-and-excitation whose gates are all at a quarter lets a quarter through."""
    model = create_model(TINY | {"attention": "se"}, 5)
    for module in model.modules():
        if isinstance(module, SqueezeExcitation):
            nn.init.zeros_(module.fc2.weight)
            nn.init.constant_(module.fc2.bias, float(np.log(1 / 3)))
    found = let_through(model, torch.randn(2, 3, 32, 32)).maps
    assert [one.layer for one in found] == [f"layer{n}.0.attention" for n in (1, 2, 3)]
    assert [one.size for one in found] == [(32, 32), (16, 16), (8, 8)]
    for one in found:
        np.testing.assert_allclose(one.values, 0.25, rtol=1e-5)


@pytest.mark.parametrize(
    ("attention", "everywhere"),
    [
        ("se", True),
        ("eca", True),
        ("global_context", True),
        ("triplet", False),
        ("coordinate", False),
    ],
)
def test_what_treats_all_positions_alike_is_known(attention: str, everywhere: bool) -> None:
    model = create_model(TINY | {"attention": attention, "depths": [2, 2, 2]}, 5)
    for parameter in model.parameters():  # no gate is left at what it begins with
        nn.init.normal_(parameter, std=0.5)
    found = let_through(model, torch.randn(2, 3, 32, 32), most=4)
    assert len(found.maps) == 4 and found.of == 6
    assert [one.everywhere for one in found.maps] == [everywhere] * 4


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (TINY | {"attention": ["se", "triplet"]}, "layer1.0.attention"),
        ({"backbone": "van_b0", "widths": [8] * 4, "depths": [1] * 4}, "spatial_gating_unit"),
        ("timm:mobilenetv3_small_050", "blocks.0.0.se"),
        ("timm:seresnet33ts", "attn"),
    ],
)
def test_attentions_are_found_in_any_family(model: object, named: str) -> None:
    found = attentions(create_model(model, 5))  # type: ignore[arg-type]
    assert found and all(not inner.startswith(f"{outer}.") for inner in found for outer in found)
    assert any(name.endswith(named) for name in found)
