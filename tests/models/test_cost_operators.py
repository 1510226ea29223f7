"""Every common operator has a cost: products are counted, others are free, unknown ones refused."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import DeformConv2d, RoIAlign

import blocklab
from blocklab import cost
from blocklab.errors import InputError
from blocklab.measure import operators
from blocklab.measure.cost import count_macs


class Calls(nn.Module):
    def __init__(self, call: Callable[[Tensor], Any], *parts: nn.Module) -> None:
        super().__init__()
        self.call, self.parts = call, nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Any:
        return self.call(x)


def macs(call: Callable[[Tensor], Any], device: str = "meta", *parts: nn.Module) -> int:
    """The MACs of a call on (1, 8, 6, 4)."""
    counted: list[int] = []
    model = Calls(call, *parts).to(device)
    count_macs(model, torch.zeros(1, 8, 6, 4, device=device), counted.append)
    return sum(counted)


def grid(x: Tensor) -> Tensor:
    return torch.zeros(1, 5, 5, 2, device=x.device)


def index(x: Tensor) -> Tensor:
    return torch.zeros(x.shape, dtype=torch.long, device=x.device)


FREE: dict[str, Callable[[Tensor], Any]] = {
    "adaptive_max_pool": lambda x: F.adaptive_max_pool2d(x, 1),
    "adaptive_avg_pool": lambda x: F.adaptive_avg_pool2d(x, (2, 3)),
    "adaptive_max_pool1d": lambda x: F.adaptive_max_pool1d(x.flatten(2), 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "channel_shuffle": lambda x: F.channel_shuffle(x, 2),
    "unfold": lambda x: F.unfold(x, 3),
    "fold": lambda x: F.fold(F.unfold(x, 3), (6, 4), 3),
    "roll": lambda x: x.roll((1, 2), (2, 3)),
    "flip": lambda x: x.flip(3),
    "rot90": lambda x: x.rot90(1, (2, 3)),
    "reflect": lambda x: F.pad(x, (1, 1, 1, 1), "reflect"),
    "replicate": lambda x: F.pad(x, (1, 1, 1, 1), "replicate"),
    "circular": lambda x: F.pad(x, (1, 1, 1, 1), "circular"),
    "gather": lambda x: x.gather(1, index(x)),
    "take_along": lambda x: x.take_along_dim(index(x), 1),
    "index_select": lambda x: x.index_select(1, index(x)[0, :3, 0, 0]),
    "index": lambda x: x[:, index(x)[0, :3, 0, 0]],
    "index_add": lambda x: x.index_add(1, index(x)[0, :, 0, 0], x),
    "put": lambda x: x.clone().index_put_((index(x)[:, 0, 0, 0],), x),
    "scatter": lambda x: x.scatter(1, index(x), x),
    "scatter_reduce": lambda x: x.scatter_reduce(1, index(x), x, "amax"),
    "fill": lambda x: x.clone().fill_(x[0, 0, 0, 0]),  # a number that is a tensor
    "assigned": lambda x: x.clone().__setitem__(0, x[0, 0, 0, 0]),
    "zero": lambda x: x.clone().zero_(),
    "masked_fill": lambda x: x.masked_fill(x > 0, 1.0),
    "where": lambda x: torch.where(x > 0, x, -x),
    "glu": lambda x: F.glu(x, 1),
    "prelu": lambda x: F.prelu(x, x[0, :, 0, 0]),
    "rrelu": F.rrelu,
    "softmin": lambda x: F.softmin(x, 1),
    "gumbel": lambda x: F.gumbel_softmax(x, dim=1),
    "cumsum": lambda x: x.cumsum(1),
    "cummax": lambda x: x.cummax(2),
    "sort": lambda x: x.sort(1),
    "topk": lambda x: x.topk(2, 1),
    "kthvalue": lambda x: x.kthvalue(2, 1),
    "argsort": lambda x: x.argsort(1),
    "tril": lambda x: x.tril(),
    "diag": lambda x: torch.diag_embed(x),
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "meshgrid": lambda x: torch.meshgrid(x[0, 0, 0], x[0, 0, 0], indexing="ij"),
    "one_hot": lambda x: F.one_hot(index(x)[0, 0], 3) if x.device.type == "cpu" else x,
    "embedding": lambda x: F.embedding(index(x)[0, 0], x[0, 0]),
    "stack": lambda x: torch.stack([x, x]),
    "cat": lambda x: torch.cat([x, x], 1),
    "clamp": lambda x: x.clamp(x - 1, x + 1),
    "addcmul": lambda x: torch.addcmul(x, x, x),
    "lerp": lambda x: x.lerp(x, x),
    "einsum_of_one": lambda x: torch.einsum("bchw->bwhc", x),
    "cross": lambda x: torch.linalg.cross(x[:, :3], x[:, :3], dim=1),
    "batch_norm": lambda x: F.batch_norm(x, x[0, :, 0, 0], x[0, :, 0, 0].abs() + 1),
    "instance_norm": F.instance_norm,
    "group_norm": lambda x: F.group_norm(x, 2),
    "layer_norm": lambda x: F.layer_norm(x, (4,)),
    "rms_norm": lambda x: F.rms_norm(x, (4,)),
    "local_response_norm": lambda x: F.local_response_norm(x, 2),
    "normalize": lambda x: F.normalize(x),
    "cosine": lambda x: F.cosine_similarity(x, x),
    "lp_pool": lambda x: F.lp_pool2d(x, 2, 2),
    "fractional": lambda x: F.fractional_max_pool2d(x, 2, output_size=2),
    "unpool": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
    "grid_sample": lambda x: F.grid_sample(x, grid(x), align_corners=False),
    "affine_grid": lambda x: F.affine_grid(x.new_zeros(1, 2, 3), [1, 3, 4, 4], False),
    "bicubic": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    "antialias": lambda x: F.interpolate(x, size=3, mode="bilinear", antialias=True),
    "in_place": lambda x: x.clone().mul_(2).clamp_(0).copysign_(x).fill_(1),
    "losses": lambda x: F.mse_loss(x, x) + F.huber_loss(x, x) + F.kl_div(x, x, reduction="sum"),
    "std": lambda x: x.std((2, 3)) + x.var((2, 3)),
    "quantile": lambda x: x.flatten(2).quantile(0.5, 2),
    "logsumexp": lambda x: x.logsumexp(1) + x.amax(1) + x.norm(dim=1),
    "outer": lambda x: x[:, :, :1] * x[:, :, :, :1],  # a product that broadcasts
}


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("name", FREE)
def test_what_multiplies_no_matrices_is_free(name: str, device: str) -> None:
    assert macs(FREE[name], device) == 0


def heads(x: Tensor) -> Tensor:
    return x.flatten(2)[:, None]  # (1, 1, 8, 24)


ATTENTION = 2 * 8 * 8 * 24
PRODUCTS: dict[str, tuple[Callable[[Tensor], Any], int]] = {
    "matmul": (lambda x: x @ x.mT, 8 * 6 * 4 * 6),
    "einsum": (lambda x: torch.einsum("bchw,bdhw->bcd", x, x), 8 * 8 * 24),
    "mv": (lambda x: x[0, 0] @ x[0, 0, 0], 24),
    "dot": (lambda x: x[0, 0, 0].dot(x[0, 0, 0]), 4),
    "addmv": (lambda x: torch.addmv(x[0, 0, :, 0], x[0, 0], x[0, 0, 0]), 24),
    "addbmm": (lambda x: torch.addbmm(x[0, 0, :4, :4], x[0].mT, x[0]), 8 * 4 * 6 * 4),
    "linear": (lambda x: F.linear(x, x[0, 0]), 8 * 6 * 4 * 6),
    "in_place": (lambda x: x.new_zeros(6, 6).addmm_(x[0, 0], x[0, 0].mT), 6 * 4 * 6),
    "conv1d": (lambda x: F.conv1d(x.flatten(2), x.new_zeros(3, 8, 3)), 22 * 3 * 8 * 3),
    "transposed": (lambda x: F.conv_transpose2d(x, x.new_zeros(8, 3, 2, 2)), 24 * 8 * 3 * 4),
    "cdist": (lambda x: torch.cdist(x, x), 8 * 6 * 6 * 4),
    "bilinear": (
        lambda x: F.bilinear(x[0, 0], x[0, 1], x.new_zeros(5, 4, 4)),
        6 * 5 * 4 * 4 + 6 * 5 * 4,
    ),
    "attention": (lambda x: F.scaled_dot_product_attention(*[heads(x)] * 3), ATTENTION),
    "causal": (
        lambda x: F.scaled_dot_product_attention(*[heads(x)] * 3, is_causal=True),
        ATTENTION,
    ),
}


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_are_counted(name: str, device: str) -> None:
    call, expected = PRODUCTS[name]
    assert macs(call, device) == expected

    def inferred(x: Tensor) -> Any:  # where operators that are made of others arrive whole
        with torch.inference_mode():
            return call(x.clone())

    assert macs(inferred, device) == expected


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("weights", [False, True])
def test_attention_costs_the_same_with_weights_and_without(device: str, weights: bool) -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def call(x: Tensor) -> Any:
        tokens = x.flatten(2).mT  # (1, 24, 8)
        return attention(tokens, tokens, tokens, need_weights=weights)

    before = torch.backends.mha.get_fastpath_enabled()
    assert macs(call, device, attention) == 4 * 24 * 8 * 8 + 2 * 24 * 24 * 8
    assert torch.backends.mha.get_fastpath_enabled() is before


def test_layers_of_torch_and_torchvision() -> None:
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    expected = 4 * 24 * 8 * 8 + 2 * 24 * 24 * 8 + 2 * 24 * 8 * 16
    for device in ("cpu", "meta"):
        assert macs(lambda x: encoder(x.flatten(2).mT), device, encoder) == expected
        recurrent = nn.LSTM(8, 5, batch_first=True)
        count = macs(lambda x, r=recurrent: r(x.flatten(2).mT), device, recurrent)
        assert count == 24 * 4 * 5 * (8 + 5)
        gated = nn.GRU(8, 5, batch_first=True)
        assert macs(lambda x, r=gated: r(x.flatten(2).mT), device, gated) == 24 * 3 * 5 * (8 + 5)
    deformed = DeformConv2d(8, 3, 3, padding=1)
    count = macs(lambda x: deformed(x, x.new_zeros(1, 18, 6, 4)), "cpu", deformed)
    assert count == 24 * 3 * 8 * 9
    aligned = RoIAlign(2, 1.0, 2)
    assert macs(lambda x: aligned(x, [x.new_zeros(1, 4)]), "cpu") == 0


class CBAM(nn.Module):
    """Channel and spatial gates of means and maxima, as users bring it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, max(1, channels // 4), 1)
        self.act = nn.PReLU()
        self.widen = nn.Conv2d(max(1, channels // 4), channels, 1)
        self.conv = nn.Conv2d(2, 1, 7, padding=3, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        pooled = (F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1))
        scores = [self.widen(self.act(self.reduce(one))) for one in pooled]
        x = x * (scores[0] + scores[1]).sigmoid()
        planes = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * self.conv(planes).sigmoid()


def test_a_users_cbam_is_counted() -> None:
    blocklab.register_block("test_cbam")(CBAM)
    plain = cost("resnet20", 32)
    counted = cost("resnet20:attention=test_cbam", 32)
    added = sum(
        3 * (2 * 2 * width * (width // 4) + 2 * 49 * side * side)
        for width, side in ((16, 32), (32, 16), (64, 8))
    )
    assert counted.macs - plain.macs == added


@pytest.fixture
def own_operator() -> Iterator[str]:
    @torch.library.custom_op("blocklab_test::shifted", mutates_args=())
    def shifted(x: Tensor) -> Tensor:
        return x.roll(1, 3)

    @shifted.register_fake
    def _(x: Tensor) -> Tensor:
        return torch.empty_like(x)

    yield "blocklab_test::shifted"
    operators.COUNTS.pop("blocklab_test::shifted", None)


def test_a_count_is_not_taken_for_one_that_is_gone(own_operator: str) -> None:
    """Whose place in memory a later one has: each model was counted by another's."""

    class Shifts(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()

        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.blocklab_test.shifted(x)

    blocklab.register_block("test_counted")(Shifts)
    plain = cost("resnet20", 32).macs
    for number in range(20):
        blocklab.register_macs(own_operator, lambda *inputs, out, number=number: number)
        assert cost("resnet20:attention=test_counted", 32).macs == plain + 9 * number


def test_an_operator_of_ones_own_is_refused_until_it_is_registered(own_operator: str) -> None:
    class Shifts(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()

        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.blocklab_test.shifted(x)

    blocklab.register_block("test_shifts")(Shifts)
    model, plain = "resnet20:attention=test_shifts", cost("resnet20", 32).macs
    remedy = rf"blocklab\.register_macs\('{own_operator}', count\)"
    with pytest.raises(InputError, match=remedy):
        cost(model, 32)
    blocklab.register_macs(own_operator, lambda *inputs, out: 0)
    assert cost(model, 32).macs == plain
    blocklab.register_macs(own_operator, lambda x, *, out: x.numel())
    maps = 3 * (16 * 32 * 32 + 32 * 16 * 16 + 64 * 8 * 8)
    assert cost(model, 32).macs == plain + maps
    blocklab.register_macs(own_operator, lambda x: 0)  # type: ignore[misc]
    with pytest.raises(InputError, match=r"count that was registered .* fails: TypeError"):
        cost(model, 32)
    blocklab.register_macs(own_operator, lambda x, *, out: -0.5)  # type: ignore[arg-type,return-value]
    with pytest.raises(InputError, match=r"gives -0\.5; it is to be a whole number"):
        cost(model, 32)


@pytest.mark.parametrize("name", ["shifted", "a::b::c", "", 3])
def test_what_is_no_operator_cannot_be_registered(name: Any) -> None:
    with pytest.raises(InputError, match="named as 'library::operator'"):
        blocklab.register_macs(name, lambda *inputs, out: 0)
    with pytest.raises(InputError, match="takes a function"):
        blocklab.register_macs("a::b", 5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "call",
    [
        lambda x: torch.fft.rfft2(x),
        lambda x: torch.linalg.inv(x[:, :, :4]),
        lambda x: torch.linalg.matrix_exp(x[:, :, :4]),
        lambda x: torch.linalg.svd(x),
        lambda x: torch.linalg.solve(x[:, :, :4], x[:, :, :4]),
    ],
)
def test_transforms_and_linear_algebra_are_not_zero(call: Callable[[Tensor], Any]) -> None:
    with pytest.raises(InputError, match=r"register_macs\('aten::"):
        macs(call, "cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
def test_no_product_of_pytorchs_is_free(dtype: torch.dtype) -> None:
    """All of its operators with a word in their name that products have are counted or refused."""
    words = ("mm", "matmul", "conv", "linear", "attention", "rnn", "lstm", "gru", "fft", "linalg")
    numbers = torch.empty(2, 2, device="meta", dtype=dtype)
    free = []
    for full in torch._C._dispatch_get_all_op_names():
        name = full.removeprefix("aten::").partition(".")[0]
        if not full.startswith("aten::") or not any(w in name.split("_") for w in words):
            continue
        packet = getattr(torch.ops.aten, name)
        func = getattr(packet, packet.overloads()[0])
        known = packet in operators.flop_registry or f"aten::{name}" in operators.COUNTS
        if not known and operators.macs_of(func, (numbers,) * 2, {}, numbers) == 0:
            free.append(name)
    assert {*free} <= {"linalg_vector_norm", "linalg__powsum", "linalg_diagonal"}
