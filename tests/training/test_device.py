"""Device, precision and layout: what `auto` takes, what is refused, what a resumed run keeps."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from blocklab.errors import InputError, RunError
from blocklab.models.spec import model_spec
from blocklab.training import device
from blocklab.training.device import (
    choose_precision,
    choose_setup,
    make_setup,
    missing_compiler,
    resumed_setup,
)
from blocklab.training.finished import FinishedRun
from blocklab.training.loop import prepare
from blocklab.training.recipe import Recipe

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def _fast(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    monkeypatch.setattr(device, "has_fast_bf16", lambda _: fast)


@pytest.mark.parametrize(
    ("wanted", "fast", "precision", "layout"),
    [
        ("auto", True, "bf16-mixed", "channels_last"),
        ("auto", False, "32-true", "contiguous"),
        ("fp32", True, "32-true", "contiguous"),
        ("bf16", False, "bf16-mixed", "channels_last"),  # emulated on a CPU, and slower
    ],
)
def test_precision_follows_the_processor(
    monkeypatch: pytest.MonkeyPatch, wanted: str, fast: bool, precision: str, layout: str
) -> None:
    _fast(monkeypatch, fast)
    setup = choose_setup(Recipe.parse({"precision": wanted}))
    assert (setup.precision, setup.layout) == (precision, layout)


def test_bf16_on_a_gpu_without_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _fast(monkeypatch, False)
    with pytest.raises(InputError, match="no bf16; set precision=fp16 or fp32"):
        choose_precision(Recipe(precision="bf16"), CUDA)
    assert choose_precision(Recipe(), CUDA) == "16-mixed"  # T4, V100, RTX 20
    assert choose_precision(Recipe(), CPU) == "32-true"


def test_fp16_off_cuda_is_refused() -> None:
    for where in (CPU, torch.device("mps")):
        with pytest.raises(InputError, match="fp16 needs a CUDA device; set precision=bf16"):
            choose_precision(Recipe(precision="fp16"), where)


def test_bf16_is_found_by_the_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    for there in (True, False):
        monkeypatch.setattr(
            torch.cpu, "_is_avx512_bf16_supported", lambda there=there: there, raising=False
        )
        assert device.has_fast_bf16(CPU) is there
    assert not device.has_fast_bf16(torch.device("mps"))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_recipes_layout_is_the_models(network: Callable[[], nn.Module], layout: str) -> None:
    recipe = Recipe.parse({"memory_format": layout, "precision": "fp32"})
    setup = choose_setup(recipe)
    weight = prepare(network(), recipe, setup).model.get_parameter("0.weight")
    assert weight.is_contiguous(memory_format=setup.memory_format)
    other = {"contiguous": torch.channels_last, "channels_last": torch.contiguous_format}[layout]
    assert not weight.is_contiguous(memory_format=other)


def test_a_resumed_run_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    _fast(monkeypatch, True)
    setup = make_setup("32-true", "contiguous", "default", note="measured")
    run = setup.describe()
    assert run == {
        "precision": "32-true",
        "memory_format": "contiguous",
        "compile": True,
        "cuda_graph": False,
        "algorithms": {},
        "setup_note": "measured",
        "devices": 1,
    }
    again = resumed_setup(run)
    assert again.describe() == run
    named = make_setup("32-true", "contiguous", "reduce-overhead").describe()
    assert (named["compile"], named["compile_mode"]) == (True, "reduce-overhead")
    assert resumed_setup(named).compiled == "reduce-overhead"
    assert resumed_setup({**run, "compile": False}).compiled == ""
    lean = make_setup("32-true", "contiguous", lean=True).describe()
    assert lean["lean"] is True and resumed_setup(lean).lean
    with pytest.raises(RunError, match="did you mean 'reduce-overhead'"):
        resumed_setup({**named, "compile_mode": "reduced-overhead"})
    with pytest.raises(InputError, match="began on 1 devices, not 2"):
        resumed_setup(run, devices=2)


@pytest.mark.parametrize(
    ("precision", "layout", "message"),
    [
        ("16", "contiguous", "no precision '16'"),
        ("32-true", "channel_last", "did you mean 'channels_last'"),
    ],
)
def test_what_no_version_ever_wrote_is_refused_in_one_line(
    precision: str, layout: str, message: str
) -> None:
    with pytest.raises(RunError, match=message):
        make_setup(precision, layout)


def test_compile_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    assert missing_compiler(CPU) == "a C++ compiler"
    with pytest.raises(InputError, match=r"needs a C\+\+ compiler; install it, or set compile=off"):
        choose_setup(Recipe(compile="on"))
    assert not choose_setup(Recipe(compile="auto")).compiled
    assert not choose_setup(Recipe()).compiled


def test_what_was_compiled_is_used_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    recipe, spec = Recipe(compile="on"), model_spec("resnet20")
    run = {"precision": "32-true", "memory_format": "contiguous", "compile": True}
    finished = FinishedRun(Path("run"), run, {}, spec, recipe, spec.build(2))
    assert not finished.setup().compiled
    with pytest.raises(InputError, match="set compile=off"):  # to go on with it takes one
        resumed_setup(run)
