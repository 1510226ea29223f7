"""What a study will do before it does it: its distinct runs, what they cost, which are done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from blocklab.data.image_data import ImageData, open_data
from blocklab.data.spec import DataSpec
from blocklab.errors import InputError
from blocklab.execution.diagnosis import check_batches
from blocklab.execution.sharing import Sharing, run_memory, share_machine
from blocklab.execution.study_folder import check_folders, study_folder, threads_begun_with
from blocklab.execution.tuning import with_candidates
from blocklab.measure.cost import Cost
from blocklab.measure.timing import shortest_times
from blocklab.study.rows import Row
from blocklab.study.study import Study
from blocklab.training.autotune import make_step
from blocklab.training.device import choose_setup
from blocklab.training.run import RunDefinition, check_fits
from blocklab.training.run_reader import is_finished
from blocklab.training.workload import Workload

Costs = dict[str, tuple[Cost, int]]  # row -> its cost, and the input size it is counted at


@dataclass(frozen=True)
class Job:
    """One run to train, named after the first row that needs it.

    `work` is in MACs of a forward pass, over all epochs: what the time left is estimated by.
    """

    definition: RunDefinition
    hash: str
    label: str
    work: float
    threads: int

    @property
    def epochs(self) -> int:
        """Epochs to train."""
        return self.definition.recipe.epochs

    @property
    def name(self) -> str:
        """The row and the seed."""
        return f"{self.label} seed {self.definition.seed}"


@dataclass(frozen=True)
class Plan:
    """Studies, their costs a row, and the runs that have no result yet."""

    studies: tuple[Study, ...]
    out: Path
    costs: tuple[Costs, ...]
    sharing: Sharing
    jobs: tuple[Job, ...]
    finished: int
    memory: Mapping[str, int]  # hash -> about how many bytes that run takes


def make_plan(
    studies: Sequence[Study],
    out: Path,
    workers: int | None = None,
    threads: int | None = None,
    cluster: bool = False,
) -> Plan:
    """Open each row's data, check that its model can train on it, and list what is to be done.

    A run that several rows or studies share is listed once. On a cluster, whose machines are not
    this one, runs have the threads that are asked for, or one.

    Raises:
        InputError: naming the row that does not fit, or if the machine has fewer cores, or a
            study's folder is another one's.
    """
    check_folders(studies, out)
    kept = [threads_begun_with(study_folder(study, out)) or 0 for study in studies]
    opened: dict[DataSpec, ImageData] = {}
    fitted: dict[str, Cost] = {}
    bytes_a_run: dict[str, int] = {}
    costs: list[Costs] = []
    runs: dict[str, Job] = {}
    memory: dict[str, int] = {}
    for number, study in enumerate(studies):
        of_rows: Costs = {}
        for row in study.rows:
            data = opened.get(row.data) or opened.setdefault(row.data, open_data(row.data))
            check_batches(study, row, data)
            key = _key(row)
            if key not in fitted:
                fitted[key] = _fit(row, data, study)
                bytes_a_run[key] = run_memory(
                    row.definition(0), len(data.class_names), data.image_size
                )
            of_rows[row.name] = fitted[key], data.image_size
        costs.append(of_rows)
        for run in study.plan():
            row, run_hash = run.row, run.definition.hash
            label = row.name if len(studies) == 1 else f"{study.name}: {row.name}"
            images = len(opened[row.data].train) * row.recipe.epochs
            work = float(of_rows[row.name][0].macs) * images
            memory[run_hash] = bytes_a_run[_key(row)]
            runs.setdefault(run_hash, Job(run.definition, run_hash, label, work, kept[number]))
    kept_threads = max((job.threads for job in runs.values()), default=0) or None
    largest = max(memory.values(), default=0)
    if cluster:
        sharing = Sharing(len(runs), threads or kept_threads or 1, 0, "as the cluster has room")
    else:
        sharing = share_machine(len(runs), workers, threads, kept_threads, largest)
    pending = tuple(
        replace(job, threads=threads or job.threads or sharing.threads)
        for job in runs.values()
        if not is_finished(out / job.hash)
    )
    done = len(runs) - len(pending)
    return Plan(tuple(studies), out, tuple(costs), sharing, pending, done, memory)


def _key(row: Row) -> str:
    return repr((row.model, row.data, row.recipe))


def _fit(row: Row, data: ImageData, study: Study) -> Cost:
    try:
        return check_fits(row.definition(study.seeds[0]), data)
    except InputError as error:
        raise InputError(f"study '{study.name}', row '{row.name}': {error}") from None


TIMED_MACS = 4e9  # of a forward pass: some of a batch, so that a list of runs takes seconds

PLAN_HEADINGS = (
    *("row", "MACs (G)", "input", "params (M)", "memory (MB)", "runs", "finished", "time left (s)"),
)


def plan_lines(
    studies: Sequence[Study], out: Path, workers: int | None = None, threads: int | None = None
) -> list[dict[str, Any]]:
    """Say of each row what it costs, and about how long what is left of it will take.

    The time is measured on one row's training step and scaled by MACs: a guide, not a promise.
    """
    plan = make_plan(with_candidates(studies), out, workers, threads)
    rate = _macs_a_second(plan) * plan.sharing.workers if plan.jobs else 1.0
    left = {job.hash: job.work / rate for job in plan.jobs}
    unfinished = set(left)
    lines = []
    for study, costs in zip(plan.studies, plan.costs, strict=True):
        for row in study.rows:
            counted, size = costs[row.name]
            hashes = [row.definition(seed).hash for seed in study.seeds]
            waiting = [run_hash for run_hash in hashes if run_hash in unfinished]
            lines.append(
                {
                    "study": study.name,
                    "row": row.name,
                    "macs": counted.macs,
                    "cost_input_size": size,
                    "params": counted.params,
                    "memory_bytes": plan.memory[hashes[0]],
                    "runs": len(hashes),
                    "finished": len(hashes) - len(waiting),
                    # A run that two rows share is counted for the first of them.
                    "seconds_left": sum(left.pop(run_hash, 0.0) for run_hash in waiting),
                }
            )
    return lines


def claim_lines(studies: Sequence[Study]) -> list[dict[str, str]]:
    """Return what studies claim, in their order: study, claim, and the sentence it stands for."""
    return [
        {"study": study.name, "claim": claim, "text": study.claim_notes.get(claim, "")}
        for study in studies
        for claim in study.claims
    ]


def plan_cells(line: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a line of `plan_lines` as cells under `PLAN_HEADINGS`."""
    return (
        line["row"],
        f"{line['macs'] / 1e9:.3f}",
        f"{line['cost_input_size']}",
        f"{line['params'] / 1e6:.3f}",
        f"{line['memory_bytes'] / 2**20:,.0f}",
        f"{line['runs']}",
        f"{line['finished']}",
        f"{line['seconds_left']:,.0f}",
    )


def _macs_a_second(plan: Plan) -> float:
    """Time a few training steps of the row of middling cost, on one run's threads."""
    job = sorted(plan.jobs, key=lambda job: job.work)[len(plan.jobs) // 2]
    recipe = job.definition.recipe
    work = Workload.of(job.definition.model, recipe, open_data(job.definition.data), job.threads)
    macs_an_image = job.work / (work.train_images * recipe.epochs)
    few = min(recipe.batch_size, max(2, int(TIMED_MACS / macs_an_image)))
    before = torch.get_num_threads()
    torch.set_num_threads(job.threads)
    try:
        setup = replace(choose_setup(recipe), compiled=False)
        seconds = shortest_times({"step": make_step(work, setup, few)}, rounds=2)["step"]
    finally:
        torch.set_num_threads(before)
    return macs_an_image * few / seconds
