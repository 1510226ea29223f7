"""Speed reports: what they hold; never how fast the machine is."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from blocklab import create_model
from blocklab.errors import InputError
from blocklab.measure import speed, ways
from blocklab.measure.cost import cost
from blocklab.measure.speed import bench
from blocklab.measure.ways import onnxruntime_latency
from blocklab.models.deploy import deploy


@pytest.fixture(autouse=True)
def _small_matrices_and_one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(speed, "PEAK_SIDES", {"cpu": 64})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_every_way_is_timed_and_the_model_stays() -> None:
    model = create_model("resnet20_se", num_classes=5, depths=(1,), widths=(8,))
    before = copy.deepcopy(model.state_dict())
    report = bench(model, input_size=8, batch_size=4, rounds=2)
    assert {one.mode for one in report.speeds} == {"eager"} and not report.notes
    ways = [(one.work, one.layout, one.precision) for one in report.speeds]
    works = ("training", "inference", "inference, deployed")
    assert ways == [
        (work, layout, precision)
        for work in works
        for layout in ("contiguous", "channels_last")
        for precision in ("fp32", "bf16")
    ]
    for one in report.speeds:
        assert 0 < one.slowest <= one.images_per_second <= one.fastest
        assert (one.memory_bytes or 0) >= 0 and one.peak_percent > 0
        assert (one.latency_ms is None) == (one.work == "training")
        assert one.latency_ms is None or one.latency_ms > 0
    after = model.state_dict()
    assert all(after[name].equal(value) for name, value in before.items()) and model.training
    cells = report.cells()
    assert len(cells) == 12 and all(len(line) == len(report.headings) for line in cells)
    assert "ResNet at 8x8, batch 4" in report.title
    assert report.onnxruntime_ms is None or report.onnxruntime_ms > 0
    assert "ONNX Runtime" in report.title
    assert json.loads(json.dumps(report.to_dict()))["peaks_macs_per_second"].keys() == {
        "fp32",
        "bf16",
    }


def test_the_share_of_the_peak_is_of_the_macs_that_run() -> None:
    model = create_model("van_b0_replk", num_classes=5, depths=(1, 1, 1, 1))
    report = bench(model, input_size=32, batch_size=2, rounds=1)
    peaks = dict(report.peaks)
    as_trained, deployed = cost(model, 32).macs, cost(deploy(model, 32), 32).macs
    assert deployed < as_trained
    macs = {"training": 3 * as_trained, "inference": as_trained, "inference, deployed": deployed}
    for one in report.speeds:
        counted = one.peak_percent / 100 * peaks[one.precision] / one.images_per_second
        assert counted == pytest.approx(macs[one.work])


def test_memory_of_a_batch_grows_with_it() -> None:
    model = create_model("resnet20", num_classes=5, depths=(1,), widths=(32,))
    small, large = (
        max(one.memory_bytes or 0 for one in bench(model, 32, batch, rounds=1).speeds[:4])
        for batch in (2, 32)
    )
    activations = 32 * 32 * 32 * 32 * 4
    assert large > small + activations


def test_a_mode_that_fails_is_named_and_the_rest_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled as asked: the fastest layout and precision of each work but the deployed one."""

    def compiled(network: nn.Module, dynamic: bool, disable: bool) -> nn.Module:
        if not disable and network.training:
            raise RuntimeError("no compiler\nat all")
        return network

    monkeypatch.setattr(torch, "compile", compiled)
    report = bench("resnet20:depths=[1],widths=[8]", 8, 4, rounds=1, compiled=True)
    eager = [one for one in report.speeds if one.mode == "eager"]
    (way,) = (one for one in report.speeds if one.mode == "compiled")
    assert len(eager) == 12 and way.work == "inference" and way.latency_ms is not None
    assert report.notes == ("training, compiled: left out (RuntimeError: no compiler at all)",)
    assert report.notes[0] in report.title


def test_a_mode_that_fails_on_one_image_alone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(network: nn.Module, dynamic: bool, disable: bool) -> nn.Module:
        def refuse(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
            if len(inputs[0]) == 1:
                raise RuntimeError("not for one")

        if not disable:
            network.register_forward_pre_hook(refuse)
        return network

    monkeypatch.setattr(torch, "compile", compiled)
    report = bench("resnet20:depths=[1],widths=[8]", 8, 4, rounds=1, compiled=True)
    assert [one.work for one in report.speeds if one.mode == "compiled"] == ["training"]
    assert report.notes == ("inference, compiled: left out (RuntimeError: not for one)",)


def test_a_network_that_mixes_the_images_of_a_batch_has_no_latency() -> None:
    mixing = "{base: resnet20_triplet_gate_softmax_as_run, depths: [1], widths: [8]}"
    report = bench(mixing, 8, 4, rounds=1)
    assert len(report.speeds) == 12 and {one.latency_ms for one in report.speeds} == {None}
    assert "left out: one image alone is none, " in report.title


def test_without_onnxruntime_a_word_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways.importlib.util, "find_spec", lambda name: None)
    found = onnxruntime_latency(create_model("resnet20", depths=(1,), widths=(8,)), 8, 1)
    assert found == (None, "left out: onnx, onnxscript, onnxruntime not installed")


def test_onnxruntime_times_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    shapes = []
    write = ways.write_onnx

    def watched(*arguments: Any) -> Any:
        run = write(*arguments)
        return lambda images: (shapes.append(tuple(images.shape)), run(images))

    monkeypatch.setattr(ways, "write_onnx", watched)
    threads, session = [], onnxruntime.InferenceSession

    def on_threads(path: str, options: Any, providers: Any) -> Any:
        threads.append(options.intra_op_num_threads)
        return session(path, options, providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", on_threads)
    network = create_model("resnet20", depths=(1,), widths=(8,)).eval()
    milliseconds, word = onnxruntime_latency(network, (8, 12), 1)
    assert milliseconds is not None and milliseconds > 0 and word.startswith("ONNX Runtime ")
    assert set(shapes) == {(1, 3, 8, 12)} and len(shapes) == 6
    assert threads == [1]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"input_size": 0}, "positive number of pixels"),
        ({"batch_size": 1}, "batch_size must be a whole number from 2 to"),
        ({"rounds": 0}, "rounds must be a whole number from 1 to"),
    ],
)
def test_what_is_wrong_is_said(told: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bench("resnet20", **told)  # type: ignore[arg-type]
    assert torch.is_grad_enabled()
