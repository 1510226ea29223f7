"""Zeros counted on networks whose every zero is known, and as the report counted them."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab import create_model
from blocklab.errors import InputError
from blocklab.measure.activations import Diagnosis, count_zeros, residual_blocks


class Shift(nn.Module):
    """Adds a constant a channel: (B, C, H, W) -> same."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.values


class Block(nn.Module):
    """x + f(shift(x)), activated: by a module, then by a function."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.shift = Shift(values)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.act(self.shift(x)) - 3)


def batches(*values: float) -> list[tuple[Tensor, Tensor]]:
    """Batches of two images of 3 channels and 2 x 4 pixels, one value each."""
    return [(torch.full((2, 3, 2, 4), value), torch.zeros(2)) for value in values]


def counts(diagnosis: Diagnosis) -> dict[tuple[str, str], tuple[int, int, int, int]]:
    return {
        (one.layer, one.kind): (one.outputs, one.zeros, one.channels, one.channels_dead)
        for one in diagnosis.layers
    }


def test_every_zero_of_a_network_made_by_hand() -> None:
    # of x = 1: shifted to (0, -1, 3), so two channels of zeros; then 1 + (0, 0, 3) - 3 is
    # (-2, -2, 1). Of x = 5: shifted to (4, 3, 7), none; then (6, 5, 9), none.
    model = nn.Sequential(Block([-1.0, -2.0, 2.0]))
    one = counts(count_zeros(model, batches(1), 1, 1))
    assert one == {
        ("0.act", "activation"): (48, 32, 3, 2),
        ("0", "activation"): (48, 32, 3, 2),
        ("0", "residual block"): (48, 32, 3, 2),
    }
    both = counts(count_zeros(model, batches(1, 5), 1, 2))
    assert both["0.act", "activation"] == (96, 32, 3, 0)  # revived by the second batch
    assert both["0", "residual block"] == (96, 32, 3, 0)


def test_channels_of_maps_that_a_linear_layer_gives_are_the_last_axis() -> None:
    """(B, H, W, C), as timm's ConvNeXt has them inside its blocks."""

    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 1)
            self.fc1, self.act = nn.Linear(5, 6), nn.ReLU()
            nn.init.zeros_(self.fc1.weight)
            self.fc1.bias.data = torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0, 1.0])

        def forward(self, x: Tensor) -> Tensor:
            x = self.act(self.fc1(F.relu(self.conv(x)).permute(0, 2, 3, 1)))
            return x.permute(0, 3, 1, 2)

    found = counts(count_zeros(Inside(), batches(1.0), 1, 1))
    assert found["act", "activation"] == (2 * 2 * 4 * 6, 2 * 2 * 4 * 3, 6, 3)
    assert found["(1)", "activation"][2] == 5  # of the convolution before, the second


def test_a_permuted_view_of_a_linear_layer_has_its_channels_second() -> None:
    class Permuted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.act = nn.Linear(3, 5), nn.ReLU()
            nn.init.zeros_(self.fc.weight)
            self.fc.bias.data = torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0])

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.fc(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))

    found = counts(count_zeros(Permuted(), batches(1.0), 1, 1))
    assert found["act", "activation"][2:] == (5, 3)


def test_batches_are_counted_from_one_and_both_ends_count() -> None:
    model = nn.Sequential(nn.ReLU())
    seen: list[float] = []
    handle = model.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].max().item()))
    found = count_zeros(model, batches(*range(1, 60)), 30, 40)
    handle.remove()
    assert seen == list(range(30, 41))
    assert (found.first_batch, found.last_batch, found.images) == (30, 40, 22)
    short = count_zeros(model, batches(*range(1, 39)), 30, 40)
    assert (short.last_batch, short.images) == (38, 18)


def test_an_activation_used_twice_is_two_layers() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.act(x) - 2)

    found = counts(count_zeros(Twice(), batches(1, 3), 1, 2))
    assert found["act", "activation"] == (96, 0, 3, 0)
    assert found["act (2)", "activation"] == (96, 48, 3, 0)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "celu", "selu", "gelu", "silu"])
def test_every_activation_is_seen(name: str) -> None:
    torch.manual_seed(0)
    model = create_model("resnet20", num_classes=3, activation=name)
    found = count_zeros(model, [torch.randn(4, 3, 32, 32)], 1, 1)
    layers = [one.layer for one in found.layers if one.kind == "activation"]
    assert layers[:3] == ["act1", "layer1.0.act1", "layer1.0.act"]
    assert len(layers) == 1 + 2 * 9
    # the last block's output is what its residual activation gave
    last, act = found.layers[-1], found.layers[-2]
    assert found.last_block == last
    assert (last.layer, last.zeros) == ("layer3.2", act.zeros)
    if name == "relu":
        assert 0.2 < last.zeros / last.outputs < 0.8
    else:
        assert last.zeros < 0.05 * last.outputs  # GELU and SiLU end in 0 far below it


@pytest.mark.parametrize(
    "name", ["relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "hardtanh"]
)
def test_a_function_is_counted_as_its_module_is(name: str) -> None:
    """Also one that PyTorch makes of another: relu6."""
    function = getattr(torch.nn.functional, name)

    class Called(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    images = [torch.randn(4, 3, 8, 8)]
    (found,) = count_zeros(nn.Sequential(Called()), images, 1, 1).layers
    assert (found.kind, found.outputs) == ("activation", 4 * 3 * 8 * 8)


def test_zeros_after_the_last_block_by_a_plain_loop() -> None:
    model = create_model("res2net50", num_classes=10)
    images = torch.randn(3, 2, 3, 32, 32)
    found = count_zeros(model, images, 2, 3)
    outputs: list[Tensor] = []
    model.get_submodule("layer4.2.act").register_forward_hook(
        lambda _, __, out: outputs.append(out.clone())
    )
    model.eval()
    with torch.no_grad():
        for batch in images[1:]:
            model(batch)
    last = found.last_block
    assert last is not None
    assert last.zeros == sum(int((out == 0).sum()) for out in outputs)
    assert last.outputs == sum(out.numel() for out in outputs)
    dead = torch.cat(outputs).eq(0).movedim(1, 0).flatten(1).all(1)
    assert last.channels_dead == int(dead.sum())


def test_blocks_of_backbones() -> None:
    assert residual_blocks(create_model("resnet20"))[-1] == "layer3.2"
    van = residual_blocks(create_model("van_b0"))
    assert (van[0], van[-1], len(van)) == ("block1.0", "block4.1", 13)
    assert residual_blocks(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())) == []


def test_network_is_left_as_it_was() -> None:
    model = create_model("resnet20", num_classes=3).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count_zeros(model, [torch.randn(4, 3, 32, 32)], 1, 1)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_numbers_that_are_no_range_are_refused() -> None:
    model = nn.Sequential(nn.ReLU())
    with pytest.raises(InputError, match="fewer than 30 batches"):
        count_zeros(model, batches(1, 2))
    for first, last in ((0, 3), (4, 3)):
        with pytest.raises(InputError, match="are no range"):
            count_zeros(model, batches(1, 2), first, last)


def test_table_and_json_say_the_same() -> None:
    found = count_zeros(nn.Sequential(Block([-1.0, -2.0, 2.0])), batches(1), 1, 1)
    assert found.title == "Zeros over test batches 1 to 1 (2 images)"
    assert found.cells()[0] == ("0.act", "activation", "48", "32", "66.67", "3", "2")
    assert len(found.headings) == len(found.cells()[0])
    plain = found.to_dict()
    assert plain["last_block"]["zeros"] == 32
    assert plain["layers"][0]["zero_percent"] == pytest.approx(200 / 3)
