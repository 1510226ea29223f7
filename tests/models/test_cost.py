"""Costs against the counts of the rebuilt designs (1x3x224x224, 1000 classes)."""

import pytest
import torch

import blocklab
from blocklab import cost, create_model
from blocklab.errors import InputError
from blocklab.models.spec import model_spec

# MACs in G and params in M, to the last digit.
COUNTS = {
    "resnet50": ("4.089", "25.557"),
    "resnet50_triplet": (None, "25.562"),
    "res2net50": ("2.586", "16.360"),
    "res2net50_s1": ("2.586", "16.371"),
    "res2net50_t1": ("2.599", "16.365"),
    "res2net50_s2": ("2.589", "18.891"),
    "res2net50_t2": ("2.633", "16.365"),
    "res2net50_ss": ("2.589", "18.902"),
    "res2net50_st": ("2.633", "16.376"),
    "res2net50_ts": ("2.601", "18.896"),
    "res2net50_tt": ("2.645", "16.370"),
    "res2net50_c": ("3.415", "16.426"),
    "res2net50_d": ("2.586", "16.360"),
    "res2net50_cd": ("3.415", "16.426"),
    "res2net50_celu_cd_t2": ("3.461", "16.431"),
    "res2net50_celu_cd_st": ("3.461", "16.442"),
    "van_b0": ("0.864", "4.106"),
    "van_b0_lk": ("0.925", "4.259"),
    "van_b0_bn": ("0.864", "4.115"),
    "van_b0_mb_3_5_7": ("1.121", "5.348"),
    "van_b0_mb": ("1.166", "5.463"),
    "van_b0_mb_7_9_11": ("1.227", "5.616"),
    "van_b0_replk": ("1.477", "5.806"),  # merged
    "van_b0_res2net": ("20.233", "62.463"),
    "van_b0_res2net_replk": ("20.862", "64.207"),
    "van_b1": ("2.495", "13.862"),
    "van_b1_lk": ("2.582", "14.120"),
    "van_b1_bn": ("2.495", "13.878"),
    "van_b1_mb": ("3.266", "18.197"),
    "van_b1_replk": ("3.454", "17.232"),  # merged
    "van_b1_res2net": ("58.211", "213.880"),
}
MERGED = ("van_b0_replk", "van_b1_replk")

# Those counts gave each gate of Triplet Attention inside Res2Net a convolution bias, which the
# paper's gates and ours have not: one parameter a gate, three gates a module, one module in the
# branches and one after the block (`_tt`) in each of the sixteen blocks.
GATE_BIASES = {
    "res2net50_t1": 16 * 3,
    "res2net50_t2": 16 * 3,
    "res2net50_ts": 16 * 3,
    "res2net50_st": 16 * 3,
    "res2net50_tt": 16 * 3 * 2,
    "res2net50_celu_cd_t2": 16 * 3,
    "res2net50_celu_cd_st": 16 * 3,
}


@pytest.mark.parametrize("name", COUNTS)
def test_cost_of_named_models(name: str) -> None:
    macs, params = COUNTS[name]
    counted = cost(name, merged=name in MERGED)
    if macs is not None:
        assert f"{counted.macs / 1e9:.3f}" == macs
    assert f"{(counted.params + GATE_BIASES.get(name, 0)) / 1e6:.3f}" == params


def test_only_one_count_shows_the_gates_biases() -> None:
    shown = [name for name in GATE_BIASES if f"{cost(name).params / 1e6:.3f}" != COUNTS[name][1]]
    assert shown == ["res2net50_tt"]
    assert cost("res2net50_tt").params == 16_369_480  # and 96 biases are 16.369576 M
    built = create_model("res2net50_tt")
    gates = [
        m for key, m in built.named_modules() if key.endswith(("cw.conv", "hc.conv", "hw.conv"))
    ]
    assert len(gates) == GATE_BIASES["res2net50_tt"]


def test_merging_costs_less_and_leaves_other_models_as_they_are() -> None:
    assert cost("van_b0_replk", merged=True).params < cost("van_b0_replk").params
    assert cost("van_b0_replk", merged=True).macs < cost("van_b0_replk").macs
    assert cost("van_b0", merged=True) == cost("van_b0")
    with pytest.raises(InputError, match="merged holds for models given by name"):
        cost(create_model("resnet20"), merged=True)


def test_a_module_a_specification_and_a_name_cost_the_same() -> None:
    for name in ("resnet20_gc", "van_b0_bn", "replknet_31n"):
        by_name = cost(name, input_size=32)
        assert cost(create_model(name), input_size=32) == by_name
        assert cost(model_spec(name), input_size=32) == by_name
        assert cost(model_spec(name).build_meta(), input_size=32) == by_name


@pytest.mark.parametrize(
    "name", ["resnet20_ca", "resnet20_triplet_avg_max_median", "van_b0_mb", "replknet_31n"]
)
def test_shapes_that_are_known_at_once_are_pytorchs(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name).eval()
        images = torch.empty(1, 3, 40, 40)
        with torch.no_grad():
            expected = [module_map.shape for module_map in model.forward_intermediates(images)[1]]
    seen: list[torch.Size] = []
    for stage in model.stage_modules:
        model.get_submodule(stage).register_forward_hook(lambda *io: seen.append(io[2].shape))
    cost(model, input_size=40)
    assert seen == expected


def test_a_block_that_is_registered_anew_is_counted_anew() -> None:
    def register(width: int) -> None:
        class Widened(torch.nn.Module):
            def __init__(self, channels: int) -> None:
                super().__init__()
                self.scale = torch.nn.Parameter(torch.ones(width))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x * self.scale.sum()

        blocklab.register_block("test_cost_widened")(Widened)

    register(5)
    first = cost("resnet20:attention=test_cost_widened", input_size=32)
    register(7)
    second = cost("resnet20:attention=test_cost_widened", input_size=32)
    assert second.params - first.params == 9 * 2


def test_unknown_names_are_refused_with_the_closest() -> None:
    with pytest.raises(InputError, match="did you mean 'resnet50_triplet'"):
        create_model("resnet50_tripel")
    with pytest.raises(InputError, match="did you mean 'attention'"):
        create_model("resnet50", atention="se")
    with pytest.raises(InputError, match="no attention 'tripel'; did you mean 'triplet'"):
        create_model("resnet50", attention="tripel")
    with pytest.raises(InputError, match="did you mean 'reduction'"):
        create_model("resnet18", attention={"type": "se", "reductoin": 4})
    with pytest.raises(InputError, match="input_size"):
        cost("resnet18", input_size=0)


def test_images_need_not_be_square() -> None:
    name = "resnet20"  # its MACs before the head are those of each pixel
    head = 64 * 1000
    square, wide = cost(name, 32).macs - head, cost(name, (32, 64)).macs - head
    assert wide == 2 * square == cost(name, (64, 32)).macs - head
