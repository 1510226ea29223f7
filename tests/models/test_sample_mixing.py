"""A network whose samples mix by design: counted, described, deployed; never written as a graph."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from blocklab import cost, create_model, deploy
from blocklab.blocks.protocol import mixed_by
from blocklab.data.image_data import open_data
from blocklab.data.spec import DataSpec
from blocklab.errors import InputError
from blocklab.measure.description import describe
from blocklab.measure.receptive_field import live_taps
from blocklab.models.export import export_model
from blocklab.models.model_file import load_model
from blocklab.models.spec import model_spec
from blocklab.training.recipe import load_recipe
from blocklab.training.run_checks import check_no_lone_image
from blocklab.training.run_definition import RunDefinition

MIXING, PLAIN = "resnet20_triplet_gate_softmax_as_run", "resnet20_triplet_gate_softmax"
SMALL: dict[str, Any] = {"depths": (1, 1), "num_classes": 5}


def test_it_costs_what_the_network_costs_that_does_not_mix() -> None:
    assert cost(MIXING, 32) == cost(PLAIN, 32)
    assert cost(create_model(MIXING), 32) == cost(PLAIN, 32)
    here, there = (describe(create_model(name, **SMALL), 32) for name in (MIXING, PLAIN))
    assert here.parts == there.parts
    assert mixed_by(create_model(MIXING)) == "softmax over the batch"
    assert mixed_by(create_model(PLAIN)) == ""


def test_its_large_kernels_are_looked_at() -> None:
    large = {"type": "large_kernel_attention", "local_kernel": 3, "kernel": 21, "dilation": 1}
    mixer = {"type": "mean", "of": [{"type": "triplet", "gate": "softmax_over_batch"}, large]}
    model = create_model("van_b0", depths=(1,) * 4, widths=(8,) * 4, mixer=mixer)
    assert [taps.live for taps in live_taps(model, 64)] == [(21, 21), (15, 15), (7, 7), (3, 3)]


def test_deployed_it_gives_the_same_and_refuses_one_image() -> None:
    model = create_model(MIXING, **SMALL).eval()
    images = torch.randn(3, 3, 16, 16)
    deployed = deploy(model, 16)
    with torch.inference_mode():
        torch.testing.assert_close(deployed(images), model(images), rtol=1e-4, atol=1e-5)
        with pytest.raises(InputError, match="give two images or more"):
            deployed(images[:1])


@pytest.mark.parametrize("format", ["onnx", "torch_export"])
def test_no_graph_is_written(format: Any, tmp_path: Path) -> None:
    path = tmp_path / "network"
    with pytest.raises(InputError, match=r"\(softmax over the batch\); export it as safetensors"):
        export_model(create_model(MIXING, **SMALL), path, format)
    assert not path.exists()


def test_a_run_that_could_not_be_evaluated_is_refused_before_it_trains() -> None:
    """The last of 251 images would be alone in its batch, once all is trained, and each time."""
    data = open_data(DataSpec(source="digits", test_images=251))
    for name, spec, refused in (
        (MIXING, data, True),
        (PLAIN, data, False),
        (MIXING, open_data(DataSpec(source="digits", test_images=250)), False),
    ):
        definition = RunDefinition(
            model_spec(name), DataSpec(source="digits"), load_recipe("quick"), 0
        )
        with (
            pytest.raises(InputError, match="251 test images, evaluated 250 at")
            if refused
            else (nullcontext())
        ):
            check_no_lone_image(definition, spec)


def test_its_tensors_are_written(tmp_path: Path) -> None:
    model = create_model(MIXING, **SMALL)
    done = export_model(model, tmp_path / "network.safetensors", "safetensors", 16)
    assert done.difference == 0
    assert mixed_by(load_model(done.path)) == "softmax over the batch"
