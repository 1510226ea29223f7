"""GPUs shared between runs: how many fit, where each goes, what is refused."""

import itertools
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from blocklab.errors import InputError
from blocklab.execution import plan, sharing
from blocklab.execution.crew import Crew, Silent
from blocklab.execution.sharing import (
    MOST_A_GPU,
    GpuNeeds,
    Sharing,
    asks_needs,
    gpu_workers,
    places,
    share_machine,
)
from blocklab.execution.worker import work
from blocklab.study.study import Study

GB = 1 << 30


@pytest.fixture
def colab(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores, one GPU, 12.7 GB."""
    monkeypatch.setattr(sharing, "available_cores", lambda: 2)
    monkeypatch.setattr(sharing, "gpu_count", lambda: 1)
    monkeypatch.setattr(sharing, "machine_memory", lambda: int(12.7 * GB))


@pytest.mark.parametrize(
    ("cores", "memory", "fitting", "runs", "workers", "why"),
    [
        (2, 13, (7,), 10, 2, "on 1 GPU, 2 cores drive no more"),
        (1, 13, (7,), 10, 1, "1 core drive no more"),
        (16, 64, (7,), 10, 4, "a GPU is given 4 at most"),
        (16, 64, (3,), 10, 3, "more would not fit the memory"),
        (16, 64, (0,), 10, 1, "more would not fit the memory"),  # it is tried
        (16, 5, (7,), 10, 2, "main memory"),
        (16, 64, (7, 7), 3, 3, "the study has 3 runs"),
        (2, 64, (7,) * 8, 100, 8, "on 8 GPUs, 2 cores drive no more"),  # none of them idle
        (64, 512, (7, 1), 100, 5, "more would not fit the memory"),
    ],
)
def test_how_many_runs_a_gpu_gets(
    cores: int, memory: int, fitting: tuple[int, ...], runs: int, workers: int, why: str
) -> None:
    found, reason = gpu_workers(runs, cores, memory * GB, fitting)
    assert found == workers and why in reason


def test_on_any_machine_no_gpu_is_left_idle_or_overfull() -> None:
    shapes = itertools.product(
        (1, 2, 7, 64), (1, 13, 512), ((0,), (1,), (9,), (2, 2), (0, 9, 3), (5,) * 8), (1, 3, 500)
    )
    for cores, memory, fitting, runs in shapes:
        workers, _ = gpu_workers(runs, cores, memory * GB, fitting)
        gpus = places(workers, fitting)
        counts = [gpus.count(gpu) for gpu in range(len(fitting))]
        shape = (cores, memory, fitting, runs, counts)
        assert sum(counts) == workers <= runs, shape
        assert all(n <= max(1, fit) for n, fit in zip(counts, fitting, strict=True)), shape
        assert max(counts) <= MOST_A_GPU, shape
        assert min(counts) >= 1 or workers == runs, shape
        assert workers <= max(cores, len(fitting)), shape


def test_workers_are_spread_before_they_are_stacked() -> None:
    assert places(5, (2, 2)) == (0, 1, 0, 1, 0)
    assert places(4, (1, 3)) == (0, 1, 1, 1)
    assert places(2, (0, 0, 0)) == (0, 1)


def test_what_measures_leaves_room_for_itself() -> None:
    assert GpuNeeds(2 * GB, 2 * GB, (10 * GB,)).fitting == (4,)
    assert GpuNeeds(2 * GB, 5 * GB, (10 * GB,)).fitting == (3,)
    assert GpuNeeds(2 * GB, 5 * GB, (GB, 0)).fitting == (0, 0)


@pytest.mark.usefixtures("colab")
def test_two_cores_and_a_gpu_take_four_workers() -> None:
    needs = GpuNeeds(2 * GB, 2 * GB, (15 * GB,))
    share = share_machine(10, workers=4, needs=needs)
    assert share == Sharing(4, 1, (0, 0, 0, 0), "as asked")
    auto = share_machine(10, needs=needs)
    assert auto.gpus == (0, 0)
    assert str(auto) == "2 runs at a time, 1 thread each: on 1 GPU, 2 cores drive no more"
    assert share_machine(10, workers=1).threads == 2
    assert share_machine(10, kept_threads=2, needs=needs).threads == 2  # the host's, more than are


@pytest.mark.usefixtures("colab")
def test_more_workers_than_a_gpu_has_memory_for_are_refused_in_one_line() -> None:
    needs = GpuNeeds(6 * GB, 6 * GB, (15 * GB,))
    with pytest.raises(InputError) as refused:
        share_machine(10, workers=4, needs=needs)
    assert str(refused.value) == (
        "4 runs at a time of about 6,144 MB each do not fit the memory of 1 GPU, of which 15,360 MB"
        " are free; set --workers from 1 to 2, or a smaller batch_size"
    )
    with pytest.raises(InputError, match="set --workers to 1 or more"):
        share_machine(10, workers=0, needs=needs)
    assert asks_needs(10, None) and asks_needs(10, 4)
    assert not asks_needs(1, None) and not asks_needs(10, 1) and not asks_needs(1, 4)


def test_the_heaviest_run_is_measured_where_a_gpu_may_get_several(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[int, Any]] = []

    def measured(definition: Any, least: int, plugins: Any) -> GpuNeeds:
        asked.append((definition.recipe.batch_size, plugins))
        return GpuNeeds(6 * GB, 6 * GB, (15 * GB,))

    monkeypatch.setattr(plan, "measured_needs", measured)
    monkeypatch.setattr(sharing, "machine_memory", lambda: 64 * GB)
    monkeypatch.setattr(sharing, "available_cores", lambda: 8)
    model = {"backbone": "resnet20", "widths": [4, 8, 8], "depths": [1, 1, 1]}
    content = {
        "title": "t",
        "data": {"source": "digits", "train_images": 200},
        "recipe": {"base": "quick", "epochs": 1},
        "seeds": 3,
        "varies": ["recipe.batch_size"],
        "rows": {
            "small": {"model": model, "recipe": {"batch_size": 16}},
            "large": {"model": model, "recipe": {"batch_size": 64}},
        },
    }
    study = Study.parse(content, "shared")
    plan.make_plan((study,), tmp_path, plugins=("a.py",))
    assert asked == []  # no GPU here
    monkeypatch.setattr(sharing, "gpu_count", lambda: 1)
    made = plan.make_plan((study,), tmp_path, plugins=("a.py",))
    assert asked == [(64, ("a.py",))]
    assert made.sharing.gpus == (0, 0) and "fit the memory" in made.sharing.reason


def test_each_worker_sees_the_gpu_of_its_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    crew = Crew(tmp_path, Silent(), Sharing(3, 1, (0, 1, 0), ""), ())
    monkeypatch.setattr("blocklab.execution.crew.gpu_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert [crew._gpu_of(place)["CUDA_VISIBLE_DEVICES"] for place in range(3)] == ["2", "3", "2"]
    crew.sharing = Sharing(2, 1, (), "")
    assert crew._gpu_of(0) == {}


def test_a_worker_takes_its_gpu_before_it_does_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    # It is deaf to Ctrl-C from then on, as are its children: a worker, and not this process.
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    monkeypatch.setattr("blocklab.execution.worker.end_when_told", lambda: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    ours, theirs = multiprocessing.Pipe()
    ours.send(None)
    work(theirs, (), {"CUDA_VISIBLE_DEVICES": "3"})
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
