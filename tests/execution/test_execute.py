"""Studies run end to end on tiny networks: what is trained, what is skipped, what fails."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blocklab.errors import InputError
from blocklab.execution.crew import Silent
from blocklab.execution.plan import make_plan
from blocklab.execution.sharing import share_machine
from blocklab.execution.train_studies import train_studies
from blocklab.execution.verify import untimed, verify_run
from blocklab.files import write_checked_json
from blocklab.measure.footprint import machine_memory
from blocklab.study.study import Study
from blocklab.training.device import available_cores
from blocklab.training.run import execute_run
from blocklab.training.run_checks import count, training_memory
from blocklab.training.run_definition import RunDefinition
from blocklab.training.run_folder import write_result
from blocklab.training.run_reader import RunReader, is_finished

TINY = {"backbone": "resnet20", "widths": [4, 8, 8], "depths": [1, 1, 1]}
ROWS = {"plain": TINY, "se": {**TINY, "attention": "se"}}


def study(name: str = "tiny", **changes: Any) -> Study:
    fields = {
        "title": "Tiny",
        "data": {"source": "digits", "train_images": 60, "test_images": 50},
        "recipe": {"base": "quick", "epochs": 2, "batch_size": 20},
        "seeds": 2,
        "varies": ["attention"],
        "rows": ROWS,
    }
    return Study.parse({**fields, **changes}, name)


class Watching(Silent):
    """Counts what it is told."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.failures: list[str] = []

    def planned(self, jobs: Any, finished: int, sharing: Any) -> None:
        self.seen.update(jobs=len(jobs), finished=finished)

    def started(self, job: Any) -> None:
        self.seen["started"] += 1

    def epoch(self, job: Any, record: dict[str, Any]) -> None:
        self.seen["epoch"] += 1

    def ended(self, job: Any, failure: str | None) -> None:
        self.seen["ended"] += 1
        if failure:
            self.failures.append(failure)


def bits(folder: Path) -> dict[str, Any]:
    """Everything of a run that must repeat to the bit."""
    log = [untimed(json.loads(line)) for line in (folder / "log.jsonl").read_text().splitlines()]
    result = untimed(RunReader(folder).result or {})
    result.pop("files")
    arrays = ((folder / name).read_bytes() for name in ("predictions.npz", "model.safetensors"))
    return {"log": log, "result": result, "arrays": list(arrays)}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies that share the row `plain`, run at once by two workers of one thread."""
    out = tmp_path_factory.mktemp("done")
    other = {"plain": TINY, "coordinate": {**TINY, "attention": "coordinate"}}
    watching = Watching()
    results = train_studies((study(), study("other", rows=other)), out, 2, watcher=watching)
    assert [row.name for result in results for row in result.rows] == [*ROWS, *other]
    assert all(len(row.finished) == 2 for result in results for row in result.rows)
    # Three distinct rows of two seeds: a shared run is trained once.
    assert watching.seen == {"jobs": 6, "started": 6, "epoch": 12, "ended": 6, "finished": 0}
    return out


def test_a_run_folder_holds_what_is_promised(done: Path) -> None:
    folder = done / next(study().plan()).definition.hash
    names = {file.name for file in folder.iterdir()}
    promised = {"run.json", "log.jsonl", "model.safetensors"}
    assert names == promised | {"predictions.npz", "logits.npz", "result.json", "lock"}
    run = json.loads((folder / "run.json").read_text())
    assert run["threads"] == 1 and run["class_names"] == [str(digit) for digit in range(10)]
    assert RunDefinition.from_dict(run["definition"], run["data_address"]).hash == folder.name
    assert len(RunReader(folder).weights()) > 10


def test_a_rerun_trains_nothing(done: Path) -> None:
    watching = Watching()
    results = train_studies((study(),), done, 2, watching)[0]
    assert watching.seen == {"jobs": 0, "finished": 4}
    assert [len(row.finished) for row in results.rows] == [2, 2]


def test_workers_order_and_processes_change_no_bit(done: Path, tmp_path: Path) -> None:
    """Two workers of one thread did the same as this process does, in the other order."""
    for run in reversed(list(study().plan())):
        folder = execute_run(run.definition, tmp_path, threads=1)
        assert bits(folder) == bits(done / folder.name)


def test_verify_trains_again_and_finds_the_first_difference(done: Path, tmp_path: Path) -> None:
    folder = done / next(study().plan()).definition.hash
    same = verify_run(folder, tmp_path)
    assert same.same and same.compared == ("log", "result", "predictions", "weights")
    assert "the same to the bit" in str(same)
    other = execute_run(next(study().plan()).definition, tmp_path / "changed", threads=1)
    lines = (other / "log.jsonl").read_text().splitlines()
    record = json.loads(lines[1]) | {"train_loss": 0.5}
    result, run = RunReader(other).result or {}, RunReader(other).require_run()
    (other / "log.jsonl").write_text(f"{lines[0]}\n{json.dumps(record)}\n")
    now, run["versions"]["code"] = run["versions"]["code"], "0a1b2c3d"
    write_checked_json(other / "run.json", run)
    write_result(other, result)
    differs = verify_run(other, tmp_path)
    assert not differs.same
    assert str(differs).endswith(f"; changed since: code 0a1b2c3d -> {now}")
    assert (differs.difference or "").startswith("epoch 2, train_loss: 0.5 before")
    with pytest.raises(InputError, match="not a run's folder"):
        verify_run(tmp_path)


def test_verify_says_that_the_images_are_others(tmp_path: Path) -> None:
    rng, images = np.random.default_rng(0), tmp_path / "images"
    for split, split_images in (("train", 20), ("test", 10)):
        for name in ("cat", "dog"):
            (images / split / name).mkdir(parents=True)
            for number in range(split_images):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(images / split / name / f"{number}.png")
    asked = study(data={"source": f"folder:{images}", "image_size": 8}, seeds=1)
    folder = execute_run(next(asked.plan()).definition, tmp_path / "runs", threads=1)
    assert verify_run(folder, tmp_path).same
    (images / "train" / "cat" / "3.png").unlink()
    with pytest.raises(InputError, match=r"images in folder:.* are not those"):
        verify_run(folder, tmp_path)


SCRIPT = """
import sys
import blocklab

block, out = sys.argv[1:]
blocklab.load_plugin(block)
study = blocklab.Study.parse(
    {
        "title": "Mine",
        "data": {"source": "digits", "train_images": 64, "test_images": 20},
        "recipe": {"base": "quick", "epochs": 1, "batch_size": 32},
        "varies": ["attention"],
        "rows": {"mine": {"base": "resnet20", "depths": [1], "attention": "contrast_gate"}},
    },
    "mine",
)
(row,) = blocklab.run_study(study, out=out, workers=1, plugins=[block]).rows
assert len(row.finished) == 1, row.failed
print("at the top level, once")
"""


@pytest.mark.slow
def test_a_script_runs_a_study_of_ones_own_block_at_its_top_level(tmp_path: Path) -> None:
    """A worker registers the block by itself, and does not run the script again."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    block = Path(__file__).parents[2] / "examples" / "my_block.py"
    command = [sys.executable, str(script), str(block), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("at the top level, once\n", 0), done.stderr
    assert (tmp_path / "mine" / "report.html").is_file()


def test_one_runs_failure_ends_no_other(tmp_path: Path) -> None:
    """One run's folder cannot be made; one diverges; the third is as it should be."""
    rows = {
        "plain": TINY,
        "diverges": {"model": {**TINY, "attention": "se"}, "recipe": {"lr": 1e30}},
        "blocked": {**TINY, "attention": "coordinate"},
    }
    three = study(rows=rows, seeds=1, varies=["attention", "recipe.lr"])
    hashes = {run.row.name: run.definition.hash for run in three.plan()}
    (tmp_path / hashes["blocked"]).write_text("a file where a folder should be")
    watching = Watching()
    plain, diverges, blocked = train_studies((three,), tmp_path, 1, watching)[0].rows
    assert len(plain.finished) == 1
    assert len(diverges.diverged) == 1 and not diverges.finished
    assert len(watching.failures) == 1 and "cannot write to" in watching.failures[0]
    assert blocked.missing_seeds == (0,)
    folder = tmp_path / hashes["diverges"]
    assert is_finished(folder) and not (folder / "model.safetensors").exists()


def test_bad_shares_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = available_cores()
    for arguments in ({"workers": 0}, {"workers": cores + 1}, {"threads": 0}, {"threads": 10**6}):
        with pytest.raises(InputError, match=f"this machine has {cores} cores"):
            share_machine(4, **arguments)
    monkeypatch.setattr("blocklab.execution.sharing.available_cores", lambda: 4)
    with pytest.raises(InputError, match="set --workers 2 or --threads 1"):
        share_machine(4, workers=3, threads=2)


def test_cores_are_shared_across_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blocklab.execution.sharing.available_cores", lambda: 8)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    share = share_machine(100)
    assert (share.workers, share.threads) == (8, 1) and "across runs" in share.reason
    share = share_machine(2)
    assert (share.workers, share.threads) == (2, 4) and "2 runs" in share.reason
    share = share_machine(100, run_bytes=machine_memory() // 4)
    assert (share.workers, share.threads) == (3, 2) and "memory" in share.reason
    share = share_machine(100, kept_threads=4)
    assert (share.workers, share.threads) == (2, 4) and "began" in share.reason
    share = share_machine(100, kept_threads=16)
    assert (share.workers, share.threads) == (1, 16), "the bits before the speed"
    share = share_machine(100, workers=2)
    assert (share.workers, share.threads) == (2, 4)
    assert str(share) == "2 runs at a time, 4 threads each: as asked"


def test_threads_are_the_studys_and_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rerun on a machine of more cores begins its other runs with the threads of the first."""
    monkeypatch.setattr("blocklab.execution.sharing.available_cores", lambda: 2)
    tiny = {"base": "quick", "epochs": 1, "batch_size": 60}
    train_studies((study(seeds=1, rows={"plain": TINY}, recipe=tiny),), tmp_path, 1, threads=2)
    monkeypatch.setattr("blocklab.execution.sharing.available_cores", lambda: 16)
    plan = make_plan((study(recipe=tiny),), tmp_path)
    assert plan.finished == 1 and {job.threads for job in plan.jobs} == {2}
    assert plan.sharing.workers == 4
    plan = make_plan((study(recipe=tiny),), tmp_path, threads=1)
    assert {job.threads for job in plan.jobs} == {1}


def test_memory_estimates_grow_with_batch_and_width() -> None:
    def estimate(batch: int, widths: list[int]) -> int:
        made = study(
            recipe={"base": "quick", "batch_size": batch},
            rows={"plain": {**TINY, "widths": widths}},
        )
        _, taken = count(made.rows[0].model, 10, 32)
        return training_memory(taken, made.rows[0].recipe, 1000)

    base = estimate(32, [16, 32, 64])
    assert estimate(256, [16, 32, 64]) > base + 50_000_000
    assert estimate(32, [64, 128, 256]) > base + 10_000_000


def test_zeros_are_counted_once_runs_have_trained(tmp_path: Path) -> None:
    asked = study(
        rows={"relu": TINY, "celu": {**TINY, "activation": "celu"}},
        varies=["activation"],
        recipe={"base": "quick", "epochs": 1, "batch_size": 20},
        data={"source": "digits", "train_images": 60, "test_images": 300},
        diagnose={"first": 1, "last": 40},  # of 250 and of 50 images
        claims=["relu > celu in zeros"],
    )
    (results,) = train_studies((asked,), tmp_path, 2)
    relu_row, celu_row = results.rows
    assert {run.zeros_over for row in results.rows for run in row.runs} == {(1, 2, 300)}
    zeros = relu_row.by_seed("zeros")
    assert set(zeros) == {0, 1} and min(zeros.values()) > 0
    assert max(celu_row.by_seed("zeros").values()) < min(zeros.values())
    diagnosis = relu_row.runs[0].folder / "diagnosis.json"
    known = json.loads(diagnosis.read_text())["last_block"]
    assert zeros[0] == known["zeros"]
    assert "zeros, 2 seeds" in results.judgements[0].numbers

    files = sorted(tmp_path.glob("*/diagnosis.json"))
    times = [path.stat().st_mtime_ns for path in files]
    assert len(files) == 4
    files[0].write_text("{")  # damaged: made again, and none of the others
    train_studies((asked,), tmp_path, 2)
    after = [path.stat().st_mtime_ns for path in files]
    assert [a != b for a, b in zip(times, after, strict=True)] == [True, False, False, False]


def test_too_few_test_batches_are_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        train_studies((study(diagnose={"first": 2, "last": 3}),), tmp_path, 1)
    assert str(caught.value) == (
        "study 'tiny', row 'plain': its 50 test images are 1 batch, and diagnose begins at 2; "
        "begin earlier"
    )
    assert not list(tmp_path.iterdir())


def test_a_long_tmpdir_keeps_no_study_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sockets of the server that forks workers lie there, and their paths are short."""
    long = tmp_path / ("a" * 120)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr("tempfile.tempdir", None)
    (results,) = train_studies((study(seeds=1, rows={"plain": TINY}),), tmp_path / "out", 1)
    assert not results.rows[0].failed and not results.rows[0].missing_seeds
