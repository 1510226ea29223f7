"""Speed reports: what they hold; never how fast the machine is."""

import copy
import json
from collections.abc import Iterator

import pytest
import torch

from blocklab import create_model
from blocklab.errors import InputError
from blocklab.measure import speed
from blocklab.measure.speed import bench


@pytest.fixture(autouse=True)
def _small_matrices_and_one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(speed, "PEAK_SIDE", 64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_every_way_is_timed_and_the_model_stays() -> None:
    model = create_model("resnet20_se", num_classes=5, depths=(1,), widths=(8,))
    before = copy.deepcopy(model.state_dict())
    report = bench(model, input_size=8, batch_size=4, rounds=2)
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
        assert one.memory_bytes >= 0 and one.peak_percent > 0
    after = model.state_dict()
    assert all(after[name].equal(value) for name, value in before.items()) and model.training
    cells = report.cells()
    assert len(cells) == 12 and all(len(line) == len(report.headings) for line in cells)
    assert "ResNet at 8x8, batch 4" in report.title
    assert json.loads(json.dumps(report.to_dict()))["peaks_macs_per_second"].keys() == {
        "fp32",
        "bf16",
    }


def test_memory_of_a_batch_grows_with_it() -> None:
    model = create_model("resnet20", num_classes=5, depths=(1,), widths=(32,))
    small, large = (
        max(one.memory_bytes for one in bench(model, 32, batch, rounds=1).speeds[:4])
        for batch in (2, 32)
    )
    activations = 32 * 32 * 32 * 32 * 4
    assert large > small + activations


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
