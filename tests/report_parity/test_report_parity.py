"""Every model that the report names, against its text: outputs, gradients, running statistics.

Each is built under its name, few blocks deep and narrow, in float64, and compared in training and
in evaluation with functions written from the report's words (`report_networks`), on images that
are higher than wide by no common factor. Counts cannot see what this sees: the groups of a
hierarchical split, say, count the same chained and not.
"""

import json
from functools import cache
from typing import Any

import pytest
import torch
from report_layers import Weights
from report_models import LARGER, MODELS
from torch import Tensor, nn

from blocklab.models.spec import ModelSpec, model_spec
from blocklab.study.schema import find_study, is_collection, study_names
from blocklab.study.study import Study

DEPTHS = (1, 2, 1, 1)
IMAGE = (3, 3, 37, 70)  # the stages' maps are 10x18, 5x9, 3x5 and 2x3: odd sides are halved too
CLASSES = 5
MASKS = 7  # the seed of what drop path drops


def narrow(name: str) -> ModelSpec:
    """The named model with all its slots, but for the number and the width of its blocks."""
    widths = (32, 32, 64, 64) if name == "resnet50_sk" else (8, 12, 16, 20)
    if "res2net" in name and not name.startswith("van"):
        widths = (8, 16, 16, 24)  # groups of 2, 4, 4 and 6 channels
    return model_spec(name, depths=DEPTHS, widths=widths)


def randomised(network: nn.Module) -> nn.Module:
    """Give every tensor random values: what starts at zero or one would hide a fault behind it."""
    network.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_mean"):
                tensor.normal_(0, 0.3, generator=generator)
            elif name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.ndim > 1:
                fan_in = tensor[0].numel()
                tensor.normal_(0, fan_in**-0.5, generator=generator)
            elif tensor.is_floating_point():
                tensor.uniform_(-0.6, 0.6, generator=generator)
    return network


def close(got: Tensor, expected: Tensor, what: str) -> None:
    size = float(expected.detach().abs().max())
    torch.testing.assert_close(
        got, expected, rtol=1e-7, atol=1e-9 * max(1.0, size), msg=lambda text: f"{what}: {text}"
    )


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_what_the_report_says(name: str) -> None:
    network = randomised(narrow(name).build(CLASSES))
    generator = torch.Generator().manual_seed(2)
    image = torch.randn(IMAGE, generator=generator, dtype=torch.float64)
    weighting = torch.randn(IMAGE[0], CLASSES, generator=generator, dtype=torch.float64)
    for training in (False, True):
        mode = "training" if training else "evaluation"
        network.train(training)
        weights = Weights(network)
        x, slow_x = image.clone().requires_grad_(), image.clone().requires_grad_()
        torch.manual_seed(MASKS)
        expected = MODELS[name](slow_x, weights, DEPTHS)
        torch.manual_seed(MASKS)
        got = network(x)
        close(got, expected, f"outputs in {mode}")
        slow = torch.autograd.grad(expected, [slow_x, *weights.parameters.values()], weighting)
        fast = torch.autograd.grad(got, [x, *network.parameters()], weighting)
        for of, one, other in zip(["input", *weights.parameters], fast, slow, strict=True):
            close(one, other, f"gradient of {of} in {mode}")
        for of, buffer in network.named_buffers():
            close(buffer, weights.buffers[of], f"{of} after {mode}")


@pytest.mark.parametrize("name", LARGER)
def test_larger_ones_are_the_same_but_for_their_size(name: str) -> None:
    assert narrow(name) == narrow(LARGER[name])
    assert model_spec(name) != model_spec(LARGER[name])


@pytest.mark.parametrize("name", ["van_b0", "van_b1_res2net_replk"])
def test_layer_scales_start_at_a_hundredth(name: str) -> None:
    scales = [value for key, value in narrow(name).build().named_parameters() if "scale" in key]
    assert len(scales) == 2 * sum(DEPTHS)
    assert all(bool((scale == 0.01).all()) for scale in scales)


# No row of the report's studies without a comparison.
@cache
def compared() -> set[str]:
    return {_function(model_spec(name)) for name in MODELS}


def _function(spec: ModelSpec) -> str:
    """A model but for what a study chooses for all of its rows: sizes, stem, drop path."""
    apart = {"stem", "drop_path_rate", "widths", "depths", "ffn_ratios"}
    plain: dict[str, Any] = {k: v for k, v in spec.to_dict().items() if k not in apart}
    deep = isinstance(spec.to_dict()["stem"], dict) and spec.to_dict()["stem"]["type"] == "deep"
    return json.dumps({**plain, "deep stem": deep}, sort_keys=True)


def report_studies() -> list[str]:
    names = [name for name in study_names() if name.startswith(("table_", "figure_"))]
    return [name for name in names if not is_collection(find_study(name)[0])]


@pytest.mark.parametrize("study", report_studies())
def test_every_row_of_the_reports_studies_is_compared(study: str) -> None:
    rows = [plan.row for plan in Study.load(study).plan()]
    assert rows
    missing = [row.name for row in rows if _function(row.model) not in compared()]
    assert not missing


def test_all_tables_are_looked_at() -> None:
    assert {f"table_{number}" for number in range(1, 12)} <= set(report_studies())
