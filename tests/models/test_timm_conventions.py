"""What timm's own tests ask of its models, asked of every named one of ours.

Not asked: `torch.jit.script`, as stages are found by name, which it cannot compile; use
`torch.export` (see `test_export.py`).
"""

from typing import Any

import pytest
import timm
import torch
from timm.models import FeatureInfo, group_modules, group_parameters
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

from blocklab import list_models
from blocklab.blocks.protocol import smallest_batch
from blocklab.errors import InputError
from blocklab.models.names import declared_params

# A family, a stem and a kind of slot each; the others are slow.
IN_CI = (
    "resnet18d",
    "resnet20_sk",
    "resnet20_triplet",
    "resnet50_gc",
    "res2net20_tt",
    "van_b0_mb",
    "van_b0_replk",
    "replknet_31n",
    "convnextv2_atto",
    "inception_next_atto",
)
NAMES = [
    pytest.param(name, marks=() if name in IN_CI else pytest.mark.slow) for name in list_models()
]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def build(name: str, **options: Any) -> Any:
    # Of the four largest (more than 400 million parameters) one block a stage.
    if declared_params(name) > 400_000_000:
        options["depths"] = (1, 1, 1, 1)
    return timm.create_model(f"blocklab_{name}", pretrained=False, **options)


def images(model: Any, target: int = 64, batch: int = 2) -> Tensor:
    channels, height, width = model.default_cfg["input_size"]
    return torch.randn(batch, channels, min(height, target), min(width, target))


@pytest.mark.parametrize("name", NAMES)
def test_forward_and_backward(name: str) -> None:
    model = build(name, num_classes=42, drop_path_rate=0.1, drop_rate=0.1).train()
    outputs = model(images(model))
    assert outputs.shape == (2, 42)
    assert outputs.isfinite().all()
    outputs.square().mean().backward()
    assert not [key for key, value in model.named_parameters() if value.grad is None]
    model.eval()
    with torch.inference_mode():
        assert model(images(model, batch=smallest_batch(model))).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_default_cfg_is_the_models(name: str) -> None:
    model = build(name).eval()
    cfg, state = model.default_cfg, model.state_dict()
    assert cfg is model.pretrained_cfg
    assert cfg["architecture"] == f"blocklab_{name}"
    assert f"{cfg['classifier']}.weight" in state
    assert state[f"{cfg['first_conv']}.weight"].shape[1] == cfg["input_size"][0] == 3
    assert state[f"{cfg['classifier']}.weight"].shape[0] == cfg["num_classes"] == 1000
    config = timm.data.resolve_data_config(model=model)
    assert config["input_size"] == cfg["input_size"]
    registered = timm.get_pretrained_cfg(f"blocklab_{name}")
    assert registered is not None
    assert registered.first_conv == cfg["first_conv"]
    with torch.inference_mode():
        batch = smallest_batch(model)
        x = torch.randn(batch, *cfg["input_size"])
        features = model.forward_features(x)
        assert features.shape == (batch, model.num_features, *cfg["pool_size"])
        pooled = model.forward_head(features, pre_logits=True)
        assert pooled.shape == (batch, model.head_hidden_size)
        assert model.get_classifier()(pooled).shape == (batch, 1000)
        model.reset_classifier(0)
        assert torch.equal(model.forward_head(features), pooled)
        model.reset_classifier(0, "")
        assert torch.equal(model.forward_head(features), features)
        model.reset_classifier(5)
        assert model.forward_head(features).shape == (batch, 5)


@pytest.mark.parametrize("name", NAMES)
def test_intermediates_are_the_features(name: str) -> None:
    model = build(name).eval()
    x = images(model)
    info = FeatureInfo(model.feature_info, len(model.feature_info))
    with torch.inference_mode():
        last, maps = model.forward_intermediates(x)
        assert torch.equal(last, model.forward_features(x))
    for found, channels, reduction in zip(maps, info.channels(), info.reduction(), strict=True):
        assert found.shape == (2, channels, -(-x.shape[2] // reduction), found.shape[3])
    modules = dict(model.named_modules())
    assert all(module in modules for module in info.module_name())
    pruned = build(name, features_only=True, out_indices=(0, -2)).eval()
    pruned.load_state_dict(
        {f"model.{key}": value for key, value in model.state_dict().items()}, strict=False
    )
    assert pruned.feature_info.channels() == [info.channels()[0], info.channels()[-2]]
    with torch.inference_mode():
        chosen = pruned(x)
    assert torch.equal(chosen[0], maps[0])
    assert torch.equal(chosen[1], maps[-2])
    count = sum(parameter.numel() for parameter in pruned.parameters())
    assert count < sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_features_by_a_traced_graph(name: str) -> None:
    model = build(name).eval()
    graph = build(name, features_only=True, feature_cls="fx", out_indices=(0, -1)).eval()
    hooks = build(name, features_only=True, feature_cls="hook", out_indices=(0, -1)).eval()
    for other, prefix in ((graph, "graph_module."), (hooks, "body.")):
        result = other.load_state_dict(
            {f"{prefix}{key}": value for key, value in model.state_dict().items()}, strict=False
        )
        assert not result.missing_keys
    x = images(model)
    with torch.inference_mode():
        maps = model.forward_intermediates(x, intermediates_only=True)
        for other in (graph, hooks):
            first, last = other(x)
            assert torch.equal(first, maps[0])
            assert torch.equal(last, maps[-1])


@pytest.mark.parametrize("name", NAMES)
def test_layers_for_their_own_learning_rates(name: str) -> None:
    with torch.device("meta"):
        model = build(name)
    names = [key for key, _ in model.named_parameters()]
    blocks = sum(model.config.blocks_per_stage)
    head = {f"{model.default_cfg['classifier']}.{part}" for part in ("weight", "bias")}
    head |= {key for key in names if key.startswith("pre_logits.")}  # as timm's twins have it
    for coarse in (False, True):
        groups = group_parameters(model, model.group_matcher(coarse=coarse))
        assert sorted(key for group in groups.values() for key in group) == sorted(names)
        assert set(groups[max(groups)]) == head, "only the head is left to the last group"
        assert f"{model.default_cfg['first_conv']}.weight" in groups[0]
        if coarse:
            assert len(groups) == 1 + len(model.config.blocks_per_stage) + 1
        else:
            parts = 2 if model.family == "replknet" else 1
            assert len(groups) == 1 + parts * blocks + 1
        modules = group_modules(model, model.group_matcher(coarse=coarse))
        assert len(modules) == len(groups)
    assert {key for key in names if "layer_scale" in key} == set(model.no_weight_decay())


@pytest.mark.parametrize("name", [name for name in IN_CI if name != "resnet50_gc"])
def test_an_optimizer_with_layer_decay(name: str) -> None:
    model = build(name)
    optimizer = create_optimizer_v2(model, "sgd", lr=0.1, weight_decay=0.05, layer_decay=0.5)
    grouped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(grouped) == len(list(model.parameters()))
    scales = [group["lr_scale"] for group in optimizer.param_groups]
    assert max(scales) == 1
    assert min(scales) < 0.5 ** sum(model.config.blocks_per_stage)
    undecayed = {
        id(p) for g in optimizer.param_groups if not g["weight_decay"] for p in g["params"]
    }
    assert all(id(p) in undecayed for key, p in model.named_parameters() if p.ndim <= 1)


@pytest.mark.parametrize("name", IN_CI)
def test_checkpointed_stages_change_nothing(name: str) -> None:
    """Outputs, gradients and BatchNorm's counts, which a second forward pass would add to."""
    results = []
    for checkpointed in (False, True):
        torch.manual_seed(3)
        model = build(name, num_classes=5, drop_path_rate=0.2).train()
        model.set_grad_checkpointing(checkpointed)
        x = torch.randn(4, *images(model, 48).shape[1:])
        outputs = model(x)
        outputs.square().mean().backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        counts = [value.clone() for value in model.buffers()]
        results.append((outputs.detach(), *gradients, *counts))
    for plain, again in zip(*results, strict=True):
        assert torch.equal(plain, again)


@pytest.mark.parametrize(
    ("indices", "expected"),
    [(None, [0, 1, 2]), (1, [2]), (2, [1, 2]), ([0, -1], [0, 2]), ((1,), [1]), ([-3], [0])],
)
@pytest.mark.parametrize("stop_early", [False, True])
def test_indices_mean_what_timms_do(indices: Any, expected: list[int], stop_early: bool) -> None:
    model = build("resnet20").eval()
    x = images(model)
    with torch.inference_mode():
        every = model.forward_intermediates(x, intermediates_only=True)
        last, maps = model.forward_intermediates(x, indices=indices, stop_early=stop_early)
    assert all(torch.equal(a, every[i]) for a, i in zip(maps, expected, strict=True))
    assert torch.equal(last, every[max(expected) if stop_early else 2])


@pytest.mark.parametrize("indices", [0, 4, [3], [-4], [], -1])
def test_stages_that_are_not_there(indices: Any) -> None:
    with pytest.raises(InputError, match=r"has stages 0 to 2 \(or -3 to -1\): it has no"):
        build("resnet20").forward_intermediates(torch.randn(1, 3, 16, 16), indices=indices)
    with pytest.raises(InputError, match="has stages 0 to 2"):
        build("resnet20", features_only=True, out_indices=indices)


def test_the_last_norm_on_request() -> None:
    model = build("replknet_31n", depths=(1, 1, 1, 1)).eval()
    nn.init.constant_(model.norm.bias, 2.0)
    x = images(model)
    with torch.inference_mode():
        last, maps = model.forward_intermediates(x, norm=True)
        raw = model.forward_intermediates(x, norm=False, intermediates_only=True)
        assert torch.equal(maps[-1], last)
        assert torch.equal(model.norm(raw[-1]), last)
        assert torch.equal(maps[0], raw[0])
        model.prune_intermediate_layers([0, 1])
        kept = model.forward_intermediates(x, norm=True, intermediates_only=True)
        assert all(torch.equal(a, b) for a, b in zip(kept, raw, strict=False))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_fmt": "NHWC"}, "output_fmt is NCHW"),
        ({"x": torch.randn(2, 4, 16, 16)}, r"takes \(batch, 3, height, width\)"),
    ],
)
def test_what_intermediates_refuse(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build("resnet20").forward_intermediates(**{"x": torch.randn(2, 3, 16, 16), **options})


def test_pools_and_heads_that_go_together() -> None:
    model = build("resnet20")
    with pytest.raises(InputError, match="it goes with num_classes=0"):
        model.reset_classifier(5, "")
    with pytest.raises(InputError, match="global_pool is 'avg' or ''"):
        model.reset_classifier(5, "max")
    pooled = build("resnet20", num_classes=0, global_pool="avg")
    assert pooled(torch.randn(2, 3, 16, 16)).shape == (2, 64)
    raw = build("resnet20", num_classes=0, global_pool="")
    assert raw(torch.randn(2, 3, 16, 16)).shape == (2, 64, 4, 4)


def test_feature_classes_of_timm() -> None:
    with pytest.raises(InputError, match="feature_cls is one of getter, hook, fx, not 'list'"):
        build("resnet20", features_only=True, feature_cls="list")
    with pytest.raises(InputError, match="out_indices goes with features_only"):
        build("resnet20", out_indices=(1,))


@pytest.mark.parametrize("name", ["resnet20", "van_b0", "replknet_31n"])
@pytest.mark.parametrize("rate", ["drop_path_rate", "drop_rate"])
def test_what_is_dropped_in_training(name: str, rate: str) -> None:
    depths = (2, 2) if name != "resnet20" else (2, 2, 2)
    sizes: dict[str, Any] = {"depths": depths}
    if name != "resnet20":
        sizes["widths"] = (8, 16)
        sizes |= {"ffn_ratios": (2, 2)} if name == "van_b0" else {"kernels": (7, 5)}
    dropping = build(name, num_classes=5, **sizes, **{rate: 0.5})
    plain = build(name, num_classes=5, **sizes)
    plain.load_state_dict(dropping.state_dict())
    x = torch.randn(8, *dropping.default_cfg["input_size"])
    with torch.no_grad():
        first, second = dropping.train()(x), dropping(x)
        assert not torch.allclose(first, second)
        assert torch.equal(plain.train()(x), plain(x))
        plain.load_state_dict(dropping.state_dict())
        assert torch.equal(dropping.eval()(x), plain.eval()(x))
    if rate == "drop_path_rate":
        found = [module.drop_prob for module in dropping.modules() if hasattr(module, "drop_prob")]
        assert (found[0], found[-1]) == (0.0, 0.5)


@pytest.mark.parametrize("name", IN_CI)
def test_training_after_inference(name: str) -> None:
    """What inference mode leaves behind (a cached table, say) must not meet a backward pass."""
    model = build(name, num_classes=3).eval()
    x = torch.randn(2, *images(model, 56).shape[1:])  # a size that no other test has
    with torch.inference_mode():
        model(x)
    model(x).sum().backward()
