"""`auto`: what it measures, what it picks, and that it picks once; no test looks at the clock."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from blocklab.data.spec import DataSpec
from blocklab.errors import RunError
from blocklab.files import cache_folder
from blocklab.models.spec import model_spec
from blocklab.training import algorithms, autotune, workload
from blocklab.training.algorithms import measured_algorithms
from blocklab.training.autotune import choose, measured_layouts, row_setup
from blocklab.training.device import make_setup, resumed_setup
from blocklab.training.loop import prepare
from blocklab.training.recipe import Recipe
from blocklab.training.run import execute_run
from blocklab.training.run_definition import RunDefinition, row_hash
from blocklab.training.workload import Workload

Times = dict[str, float]


def _work(steps: int = 4000, **changes: Any) -> Workload:
    fields: dict[str, Any] = {"epochs": 1, "batch_size": 4, "precision": "bf16"}
    recipe = Recipe.parse({**fields, **changes})
    return Workload(model_spec("resnet20"), recipe, 8, 5, 4 * steps, 1)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Times, list[list[str]]]]:
    """Made-up seconds of a step, by name; and which steps were timed."""
    seconds = {"contiguous": 0.1, "channels_last": 0.1, "step": 0.1}
    seconds |= {"direct": 0.1, "plain": 0.1, "fourier": 0.1}
    asked: list[list[str]] = []

    def shortest_times(steps: dict[str, Callable[[], None]], threads: int) -> Times:
        asked.append(list(steps))
        return {name: seconds[name] for name in steps}

    monkeypatch.setattr(autotune, "shortest_times", shortest_times)
    monkeypatch.setattr(algorithms, "shortest_times", shortest_times)
    monkeypatch.setattr(autotune, "make_step", lambda *_: lambda: None)
    yield seconds, asked


@pytest.mark.parametrize(
    ("contiguous", "channels_last", "precision", "picked"),
    [
        (0.10, 0.20, "bf16-mixed", "contiguous"),
        (0.20, 0.10, "bf16-mixed", "channels_last"),
        (0.098, 0.10, "bf16-mixed", "channels_last"),  # 2 % may be noise: the usual one stays
        (0.10, 0.098, "32-true", "contiguous"),
        (0.20, 0.10, "32-true", "channels_last"),
    ],
)
def test_the_layout_that_is_clearly_faster_is_picked(
    timed: tuple[Times, list[list[str]]],
    contiguous: float,
    channels_last: float,
    precision: str,
    picked: str,
) -> None:
    timed[0].update(contiguous=contiguous, channels_last=channels_last)
    choice = choose(_work(), precision)
    assert (choice.precision, choice.memory_format) == (precision, picked)
    assert choice.note.startswith(f"{picked}, by the time of a step: ")
    assert not choice.compiled


def test_nothing_is_measured_that_the_recipe_settles(
    timed: tuple[Times, list[list[str]]],
) -> None:
    choice = choose(_work(memory_format="contiguous"), "bf16-mixed")
    assert (choice.memory_format, choice.note) == ("contiguous", "")
    assert choose(_work(compile="on", memory_format="contiguous"), "bf16-mixed").compiled
    assert choose(_work(steps=399), "bf16-mixed").note.endswith("399 steps are too few to measure")
    assert timed[1] == []


def test_what_was_measured_is_remembered_until_something_changes(
    timed: tuple[Times, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        choose(_work(), "bf16-mixed")
    assert len(timed[1]) == 1
    choose(_work(epochs=2, lr=0.3), "bf16-mixed")  # of no matter for a step's time
    assert len(timed[1]) == 1
    choose(_work(), "32-true")
    choose(_work(batch_size=8), "bf16-mixed")
    choose(_work(optimizer="adamw"), "bf16-mixed")
    assert len(timed[1]) == 4
    newer = {**workload.versions(), "blocklab": "99.0"}
    monkeypatch.setattr(workload, "versions", lambda: newer)
    choose(_work(), "bf16-mixed")
    assert len(timed[1]) == 5


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"key": 1}', "null", "other key", "a zero"])
def test_a_damaged_memory_is_measured_again(
    timed: tuple[Times, list[list[str]]], damage: str
) -> None:
    measured_layouts(_work(), "bf16-mixed")
    (file,) = (cache_folder() / "setups").glob("*.json")
    saved = json.loads(file.read_text())
    if damage == "other key":
        damage = json.dumps({**saved, "key": {}})
    if damage == "a zero":
        damage = json.dumps({**saved, "seconds": {**saved["seconds"], "contiguous": 0.0}})
    file.write_text(damage)
    measured_layouts(_work(), "bf16-mixed")
    assert len(timed[1]) == 2
    assert json.loads(file.read_text()) == saved


def test_an_unwritable_memory_is_no_reason_not_to_train(
    timed: tuple[Times, list[list[str]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BLOCKLAB_CACHE", str(tmp_path / "file"))
    assert choose(_work(), "bf16-mixed").memory_format == "channels_last"
    assert len(timed[1]) == 1


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A CUDA device, and the made-up times of whole steps on it: by mode, and then as graphs."""
    times: dict[str, Any] = {"asked": []}

    def measured(_: Workload, way: autotune.MeasuredSetup) -> Times:
        times["asked"].append((way.compiled, way.graph))
        found = times[f"{way.compiled} graph" if way.graph else way.compiled]
        if isinstance(found, Exception):
            raise found
        return {"step": found, "first": 30.0}

    monkeypatch.setattr(autotune, "probe_device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(autotune, "missing_compiler", lambda _: None)
    monkeypatch.setattr(autotune, "measured_step", measured)
    monkeypatch.setattr(autotune, "choose_gate_form", lambda *_: (False, ""))
    monkeypatch.setattr(algorithms, "_large_kernels", lambda *_: {})
    return times


def _compiled(steps: int = 100_000, **changes: Any) -> autotune.MeasuredSetup:
    fields = {"memory_format": "contiguous", "compile": "auto", "cuda_graph": "off", **changes}
    return choose(_work(steps, **fields), "bf16-mixed")


@pytest.mark.parametrize(
    ("steps", "plain", "default", "overhead", "picked", "why"),
    [
        (400, 0.1, 0.01, 0.01, "", "a run of 40 s is too short"),
        (399, 0.1, 0.01, 0.01, "", "399 steps are too few"),
        (2500, 0.1, 0.089, 0.095, "", "89 ms a step against 100, after 30 s"),  # 27.5 s are won
        (100_000, 0.1, 0.05, 0.06, "default", "50 ms a step against 100"),
        (100_000, 0.1, 0.06, 0.05, "reduce-overhead", "50 ms a step against 100"),
        (100_000, 0.1, 0.099, 0.11, "", "99 ms a step against 100"),
    ],
)
def test_compiling_must_repay_its_time(
    on_cuda: dict[str, Any],
    steps: int,
    plain: float,
    default: float,
    overhead: float,
    picked: str,
    why: str,
) -> None:
    on_cuda.update({"": plain, "default": default, "reduce-overhead": overhead})
    choice = _compiled(steps)
    assert choice.compiled == picked
    assert f"compile: {picked or 'off'} (" in choice.note and why in choice.note


def test_where_steps_are_graphs_compiled_ones_must_be_faster_as_graphs(
    on_cuda: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = {"step": 0.1, "graph": 0.06}
    monkeypatch.setattr(autotune, "measured_graph", lambda *_: graphs)
    on_cuda.update({" graph": 0.06, "default graph": 0.03})
    choice = _compiled(cuda_graph="auto")
    assert (choice.compiled, choice.graph) == ("default", True)
    assert on_cuda["asked"] == [("", True), ("default", True)]
    on_cuda.update({"default graph": 0.059})
    assert (_compiled(cuda_graph="auto").compiled, choice.graph) == ("", True)


def test_graphs_of_a_mode_are_not_tried_with_parts_of_a_batch(on_cuda: dict[str, Any]) -> None:
    on_cuda.update({"": 0.1, "default": 0.05, "reduce-overhead": 0.01})
    assert _compiled(accumulate=2).compiled == "default"


def test_a_mode_with_graphs_of_its_own_leaves_no_step_to_capture(
    on_cuda: dict[str, Any], timed: tuple[Times, list[list[str]]]
) -> None:
    choice = _compiled(compile="reduce-overhead", cuda_graph="auto")
    assert (choice.compiled, choice.graph) == ("reduce-overhead", False)
    assert choice.note == "CUDA graph: off (compile=reduce-overhead makes its own)"
    assert on_cuda["asked"] == timed[1] == []


def test_compiling_that_fails_or_has_no_compiler_is_noted(
    on_cuda: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = RuntimeError("no such operator")
    on_cuda.update({"": 0.1, "default": broken, "reduce-overhead": broken})
    assert "compile: off (it fails with RuntimeError)" in _compiled().note
    on_cuda.update({"reduce-overhead": 0.05})  # one mode's failure is not the other's
    assert _compiled().compiled == "reduce-overhead"
    monkeypatch.setattr(autotune, "missing_compiler", lambda _: "a C++ compiler")
    choice = _compiled()
    assert not choice.compiled
    assert choice.note.endswith("compile: off (no C++ compiler)")


def test_on_a_processor_auto_spends_no_minute_on_compiling(
    timed: tuple[Times, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autotune, "measured_step", lambda *_: pytest.fail("it compiled"))
    choice = _compiled()
    assert choice.compiled == ""
    assert choice.note == "compile: off (no processor trains faster by it)"
    assert timed[1] == []


@pytest.mark.parametrize("mode", ["", "default"])
def test_a_real_measurement_of_whole_steps(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    asked: list[str] = []
    original = autotune.compiled_network

    def compiled(model: Any, setup: Any) -> Any:
        asked.append(setup.compiled)
        return original(model, replace(setup, compiled=""))

    monkeypatch.setattr(autotune, "compiled_network", compiled)
    way = autotune.MeasuredSetup("32-true", "contiguous", mode)
    found = autotune.measured_step(_work(), way)
    assert asked == [mode]
    assert found.keys() == {"step", "first"} and min(found.values()) > 0


@pytest.mark.parametrize(("saved", "mode"), [(True, "default"), (False, ""), ("max", None)])
def test_a_rows_choice_of_before_modes_had_names_is_read(
    timed: tuple[Times, list[list[str]]], tmp_path: Path, saved: object, mode: str | None
) -> None:
    file = tmp_path / autotune.SETUPS / "row.json"
    file.parent.mkdir()
    choice = {"precision": "bf16-mixed", "memory_format": "contiguous", "compiled": saved}
    file.write_text(json.dumps(choice))
    setup = row_setup(_work(), tmp_path, "row")
    if mode is None:  # no such mode: chosen anew
        assert (setup.compiled, setup.layout) == ("", "channels_last")
    else:
        assert (setup.compiled, setup.layout) == (mode, "contiguous")


def _large(steps: int = 4000) -> Workload:
    """A narrow RepLKNet with maps of 16x16 down to 2x2: the first ones meet 31 and 15 taps."""
    recipe = Recipe.parse({"epochs": 1, "batch_size": 2, "memory_format": "contiguous"})
    spec = model_spec({"base": "replknet_31b", "widths": [4, 4, 8, 8], "depths": [1, 1, 1, 1]})
    return Workload(spec, recipe, 64, 5, 2 * steps, 1)


def test_large_kernels_take_the_algorithm_that_is_clearly_faster(
    timed: tuple[Times, list[list[str]]], tmp_path: Path
) -> None:
    assert measured_algorithms(_large(), "32-true", "contiguous") == {}
    assert timed[1] and all(set(names) == {"direct", "plain", "fourier"} for names in timed[1])
    timed[0].update(fourier=0.01)
    assert measured_algorithms(_large(), "32-true", "contiguous") == {}  # remembered
    found = measured_algorithms(_large(), "bf16-mixed", "contiguous")
    assert found and set(found.values()) == {"fourier"}
    setup = row_setup(_large(), tmp_path, "row")
    assert dict(setup.algorithms)
    assert "large kernels by measurement: " in setup.note
    state = prepare(_large().spec.build(5), _large().recipe, setup)
    ways = {name: state.model.get_submodule(name).algorithm for name in found}
    assert ways == found
    assert resumed_setup(setup.describe()).algorithms == setup.algorithms
    assert not row_setup(_large(steps=10), tmp_path, "short row").algorithms


@pytest.mark.parametrize(
    ("device", "precision", "layout", "package", "tried"),
    [
        ("cpu", "bf16-mixed", "channels_last", True, ["direct", "plain", "fourier"]),
        ("mps", "32-true", "channels_last", True, ["direct", "fourier"]),
        ("cuda", "bf16-mixed", "channels_last", True, ["direct", "fourier", "contiguous"]),
        ("cuda", "bf16-mixed", "contiguous", False, ["direct", "fourier"]),
        ("cuda", "32-true", "contiguous", True, ["direct", "fourier", "implicit_gemm"]),
        ("cuda", "16-mixed", "contiguous", False, ["direct", "fourier"]),
    ],
)
def test_each_device_tries_its_own_ways(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    precision: str,
    layout: str,
    package: bool,
    tried: list[str],
) -> None:
    monkeypatch.setattr(algorithms, "probe_device", lambda: torch.device(device))
    monkeypatch.setattr(algorithms, "has_implicit_gemm", lambda: package)
    assert list(algorithms.tried_algorithms(precision, layout)) == tried


def test_a_way_that_fails_on_a_gpu_is_not_taken(
    timed: tuple[Times, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed[0].update(contiguous=0.01, fourier=0.001)

    def make(_: Workload, setup: Any, kernel: algorithms.Kernel, way: str) -> Callable[[], None]:
        def step() -> None:
            if way == "fourier":
                raise RuntimeError("cuFFT error")

        return step

    cuda = make_setup("32-true", "channels_last")
    monkeypatch.setattr(type(cuda), "device", torch.device("cuda", 0))
    monkeypatch.setattr(algorithms, "probe_device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(algorithms, "make_setup", lambda *_: cuda)
    monkeypatch.setattr(algorithms, "_step", make)
    found = measured_algorithms(_large(), "32-true", "channels_last")
    assert set(found.values()) == {"contiguous"}
    assert all(names == ["direct", "contiguous"] for names in timed[1])
    assert len(found) == len(timed[1]) > 4


def test_a_real_measurement_of_large_kernels_names_only_what_there_is() -> None:
    found = measured_algorithms(_large(), "32-true", "contiguous")
    kernels = algorithms._large_kernels(_large())
    assert kernels
    assert found.keys() <= kernels.keys()


def test_a_real_measurement_times_both_layouts_and_leaves_random_numbers() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    seconds = measured_layouts(_work(), "32-true")
    assert seconds.keys() == {"contiguous", "channels_last"}
    assert all(value > 0 for value in seconds.values())
    assert torch.equal(torch.rand(1), expected)


def test_a_row_keeps_its_choice_whatever_is_faster_later(
    timed: tuple[Times, list[list[str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed[0].update(contiguous=0.1, channels_last=0.5)
    first = row_setup(_work(), tmp_path, "row")
    assert first.layout == "contiguous"
    timed[0].update(contiguous=0.5, channels_last=0.1)
    monkeypatch.setenv("BLOCKLAB_CACHE", str(tmp_path / "another"))
    assert row_setup(_work(), tmp_path, "row").describe() == first.describe()
    assert row_setup(_work(), tmp_path, "other row").layout == "channels_last"


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_choice_is_measured_in_the_arithmetic_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deterministic: bool
) -> None:
    seen: list[bool] = []

    def chosen(work: Workload, precision: str, world: int) -> autotune.MeasuredSetup:
        seen.append(torch.are_deterministic_algorithms_enabled())
        assert world == 1
        return autotune.MeasuredSetup(precision, "contiguous", "")

    monkeypatch.setattr(autotune, "choose", chosen)
    row_setup(_work(deterministic=deterministic), tmp_path, "row")
    assert seen == [deterministic]
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_run_on_several_devices_is_not_measured_as_a_graph(
    timed: tuple[Times, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(autotune, "_choose_graph", lambda *_: asked.append(1) or (True, "faster"))
    for world in (1, 2):
        way = choose(_work(), "32-true", world)
        assert way.graph == (world == 1) and ("CUDA graph" in way.note) == (world == 1)
    assert len(asked) == 1


def test_automatic_precision_is_one_for_a_folder_of_runs(
    timed: tuple[Times, list[list[str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fast, own in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr("blocklab.training.device.has_fast_bf16", lambda _, fast=fast: fast)
        setup = row_setup(_work(precision="auto"), tmp_path, f"row {own}")
        assert setup.precision == "bf16-mixed"
    assert setup.note.startswith("bf16-mixed as the other runs in this folder")
    fixed = row_setup(_work(precision="fp32"), tmp_path, "row fp32")
    assert fixed.precision == "32-true"


@pytest.mark.parametrize(
    "damage",
    ["{", "{}", '{"precision": "16", "memory_format": "contiguous", "compiled": false}'],
)
def test_a_rows_damaged_choice_is_made_again(
    timed: tuple[Times, list[list[str]]], tmp_path: Path, damage: str
) -> None:
    first = row_setup(_work(), tmp_path, "row")
    file = tmp_path / autotune.SETUPS / "row.json"
    file.write_text(damage)
    assert row_setup(_work(), tmp_path, "row").describe() == first.describe()
    assert json.loads(file.read_text())["precision"] == "bf16-mixed"


def test_an_unwritable_folder_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / autotune.SETUPS).write_text("")
    with pytest.raises(RunError, match="choose another folder"):
        row_setup(_work(), tmp_path, "row")


def test_two_at_once_measure_once(timed: tuple[Times, list[list[str]]], tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        setups = list(pool.map(lambda _: row_setup(_work(), tmp_path, "row"), range(4)))
    assert len(timed[1]) == 1
    assert len({str(setup.describe()) for setup in setups}) == 1


def test_a_run_records_its_setup_and_a_rows_seeds_share_it(
    timed: tuple[Times, list[list[str]]], tmp_path: Path
) -> None:
    timed[0].update(contiguous=0.1, channels_last=0.5)
    recipe = Recipe.parse({"epochs": 100, "batch_size": 16, "precision": "bf16", "lr": 1e-30})
    data = DataSpec(source="digits", image_size=8, train_images=80, test_images=20)
    spec = model_spec("resnet20")
    runs = [RunDefinition(spec, data, recipe, seed) for seed in (0, 1)]
    assert row_hash(runs[0]) == row_hash(runs[1])

    class Enough(Exception):
        pass

    def stop(_: object) -> None:
        raise Enough

    for run in runs:
        with pytest.raises((Enough, RunError)):
            execute_run(run, tmp_path, threads=1, on_epoch=stop)
        written = json.loads((tmp_path / run.hash / "run.json").read_text())
        assert (written["memory_format"], written["compile"]) == ("contiguous", False)
        assert "by the time of a step" in written["setup_note"]
        timed[0].update(contiguous=0.5, channels_last=0.1)
    assert len(timed[1]) == 1


@pytest.mark.parametrize(
    ("wanted", "seconds", "graph", "says"),
    [
        ("auto", {"step": 0.05, "graph": 0.01}, True, "on (10 ms a step against 50)"),
        ("auto", {"step": 0.05, "graph": 0.049}, False, "off (49 ms a step against 50)"),
        ("on", {"step": 0.05, "graph": 0.06}, True, "on (60 ms a step against 50)"),
        ("on", None, False, "off (the step cannot be captured: RuntimeError: it reads a number)"),
        ("off", {"step": 0.05, "graph": 0.01}, False, ""),
    ],
)
def test_a_graph_is_taken_where_it_is_faster_or_asked_for(
    timed: tuple[Times, list[list[str]]],
    monkeypatch: pytest.MonkeyPatch,
    wanted: str,
    seconds: dict[str, float] | None,
    graph: bool,
    says: str,
) -> None:
    def measured(*_: object) -> dict[str, float]:
        if seconds is None:
            raise RuntimeError("it reads a number")
        return seconds

    monkeypatch.setattr(autotune, "probe_device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(autotune, "measured_graph", measured)
    monkeypatch.setattr(autotune, "choose_gate_form", lambda *_: (False, ""))
    choice = choose(_work(memory_format="contiguous", cuda_graph=wanted), "bf16-mixed")
    assert choice.graph is graph
    assert choice.note == (f"CUDA graph: {says}" if says else "")


def test_a_graph_off_cuda_is_said(timed: tuple[Times, list[list[str]]]) -> None:
    choice = choose(_work(memory_format="contiguous", cuda_graph="on"), "bf16-mixed")
    assert (choice.graph, choice.note) == (
        False,
        "CUDA graph: off (only a CUDA device has them)",
    )
