"""Devices: one place that knows their kinds, GPUs as they are given, and a GPU alone to measure."""

import ast
import fcntl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import blocklab
from blocklab.backbones.van import VAN
from blocklab.blocks import folding
from blocklab.errors import InputError
from blocklab.measure import alone
from blocklab.measure.device import device_name, probe_device, visible_gpus, widest

OWN = {"measure/device.py", "training/graph.py"}  # and CUDA graphs, which no other device has
# What no other device has, where the device is CUDA in any case.
OF_CUDA = {"Stream", "stream", "current_stream", "Event", "graph", "CUDAGraph"}
MPS = torch.device("mps", 0)


def test_cuda_and_mps_are_named_in_one_place() -> None:
    root = Path(blocklab.__file__).parent
    elsewhere = {}
    for file in root.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith(
                ("torch.cuda.", "torch.mps.", "torch.backends.mps")
            ):
                if ast.unparse(node).split(".")[2].rstrip("()") in OF_CUDA:
                    continue
                elsewhere.setdefault(str(file.relative_to(root)), ast.unparse(node))
    assert {name: what for name, what in elsewhere.items() if name not in OWN} == {}


@pytest.mark.parametrize(
    ("given", "count", "each"),
    [
        (None, 2, ["0", "1"]),
        ("2,3", 2, ["2", "3"]),
        (" 3 , 1", 2, ["3", "1"]),
        ("GPU-5ebe,GPU-87ac", 2, ["GPU-5ebe", "GPU-87ac"]),
        ("MIG-1", 1, ["MIG-1"]),
        ("1,-1,2", 1, ["1"]),  # CUDA stops at the first that is none
        ("", 0, []),
        ("-1", 0, []),
    ],
)
def test_workers_get_the_gpus_that_are_given(
    given: str | None, count: int, each: list[str]
) -> None:
    environment = {} if given is None else {"CUDA_VISIBLE_DEVICES": given}
    assert visible_gpus(count, environment) == ("CUDA_VISIBLE_DEVICES", each)


def test_amds_variable_comes_first_where_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.4")
    both = {"CUDA_VISIBLE_DEVICES": "0", "HIP_VISIBLE_DEVICES": "5,7"}
    assert visible_gpus(2, both) == ("HIP_VISIBLE_DEVICES", ["5", "7"])
    assert visible_gpus(1, {"CUDA_VISIBLE_DEVICES": "4"}) == ("CUDA_VISIBLE_DEVICES", ["4"])
    # What ROCR lets through, HIP counts from 0.
    assert visible_gpus(2, {"ROCR_VISIBLE_DEVICES": "2,3"}) == ("HIP_VISIBLE_DEVICES", ["0", "1"])


@pytest.mark.parametrize(
    ("environment", "index"),
    [
        ({}, 0),
        ({"LOCAL_RANK": "2"}, 0),  # left over: nobody started this process
        ({"LOCAL_RANK": "2", "TORCHELASTIC_RUN_ID": "a"}, 2),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_LOCALID": "3"}, 3),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "1", "SLURM_LOCALID": "3"}, 0),
        ({"LOCAL_RANK": "5", "TORCHELASTIC_RUN_ID": "a"}, 1),  # sees four GPUs only
    ],
)
def test_a_process_of_several_probes_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], index: int
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for name in ("LOCAL_RANK", "TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert probe_device() == torch.device("cuda", index)


def test_a_rank_that_is_no_number_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
    monkeypatch.setenv("LOCAL_RANK", "two")
    with pytest.raises(InputError, match="LOCAL_RANK is 'two' and should be a number"):
        probe_device()


def test_apples_gpus_have_a_name_and_no_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    assert widest(MPS) == torch.float32 and widest(torch.device("cuda")) == torch.float64
    assert device_name(MPS).endswith(" GPU")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert probe_device() == MPS


class _OnMps(torch.Tensor):
    """A tensor that says it is on an Apple GPU, which refuses float64."""

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        return MPS

    def double(self) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    def cpu(self) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.as_subclass(torch.Tensor)


def test_what_apples_gpus_lack_is_folded_on_the_processor() -> None:
    values = torch.rand(3).as_subclass(_OnMps)
    assert folding.exact(values).dtype == torch.float64
    assert VAN.__module__ == "blocklab.backbones.van"


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A device of this machine that the locks take for a GPU."""
    monkeypatch.setenv("BLOCKLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(alone, "probe_device", lambda: MPS)
    monkeypatch.setattr(alone, "wait", lambda _: None)
    monkeypatch.setattr(alone, "release_memory", lambda: None)
    monkeypatch.setattr(alone, "LOOK_SECONDS", 0.0)


def _held_by_others(tmp_path: Path, what: str) -> bool:
    (lock,) = (tmp_path / "devices").glob(f"*-{what}.lock")
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.mark.usefixtures("one_gpu")
def test_who_trains_makes_room_for_who_measures(tmp_path: Path) -> None:
    order: list[str] = []
    measuring, done = threading.Event(), threading.Event()

    def measure() -> None:
        with alone.alone_on_device():
            order.append("measures")
            measuring.set()
            time.sleep(0.3)
            order.append("measured")
        done.set()

    with alone.taking_turns(MPS, 1, lambda step, steps: order.append(f"step {step}")) as after_step:
        assert after_step is not None
        after_step(1, 3)
        assert _held_by_others(tmp_path, "room") and not _held_by_others(tmp_path, "gate")
        thread = threading.Thread(target=measure)
        thread.start()
        deadline = time.monotonic() + 120
        while not _held_by_others(tmp_path, "gate") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not measuring.wait(0.3), "it must wait for the step to end"
        after_step(2, 3)
        after_step(3, 3)
        thread.join()
    assert order == ["step 1", "step 2", "measures", "measured", "step 3"]
    assert done.is_set() and not _held_by_others(tmp_path, "room")


@pytest.mark.usefixtures("one_gpu")
def test_who_is_stopped_keeps_nobody_from_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone, "PATIENCE_SECONDS", 0.2)
    with alone.taking_turns(MPS, 1, None), alone.alone_on_device(), alone.alone_on_device():
        pass  # the room is never left, and the inner one must not wait for the outer


@pytest.mark.parametrize(("device", "processes"), [(torch.device("cpu"), 1), (MPS, 2)])
def test_a_processor_and_runs_of_several_processes_take_no_turns(
    device: torch.device, processes: int
) -> None:
    told: Callable[[int, int], None] = lambda step, steps: None  # noqa: E731
    with alone.taking_turns(device, processes, told) as after_step:
        assert after_step is told
