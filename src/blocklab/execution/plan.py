"""What a study will do before it does it: its distinct runs, what they cost, which are done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from blocklab.blocks.plugins import plugin_errors
from blocklab.contract.networks import check_network
from blocklab.data.image_data import ImageData, open_data
from blocklab.data.spec import DataSpec
from blocklab.errors import InputError
from blocklab.execution.diagnosis import check_batches
from blocklab.execution.gpu_memory import measured_needs
from blocklab.execution.looks import resumed
from blocklab.execution.sharing import Sharing, asks_needs, share_machine
from blocklab.execution.study_folder import check_folders, study_folder, threads_begun_with
from blocklab.execution.tuning import with_candidates
from blocklab.files import canonical_json
from blocklab.measure.alone import alone_on_device
from blocklab.measure.amounts import counted, rough_time
from blocklab.measure.cost import Cost
from blocklab.measure.footprint import Footprint, check_memory, fits_machine
from blocklab.measure.timing import shortest_times
from blocklab.statistics.sequential import Looks, levels
from blocklab.study.study import Study
from blocklab.training.autotune import make_step
from blocklab.training.device import choose_setup
from blocklab.training.run_checks import check_batches_fill, check_start, count, training_memory
from blocklab.training.run_definition import RunDefinition
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
    runs: Mapping[str, Job] = field(default_factory=dict)  # by hash, the finished ones too


def make_plan(
    studies: Sequence[Study],
    out: Path,
    workers: int | None = None,
    threads: int | None = None,
    cluster: bool = False,
    plugins: Sequence[str] = (),
) -> Plan:
    """Open each row's data, check that its model can train on it, and list what is to be done.

    A run that several rows or studies share is listed once. Where GPUs may get several runs each,
    what the one of most memory takes is measured, with the blocks of `plugins`. On a cluster, whose
    machines are not this one, runs have the threads that are asked for, or one.

    Raises:
        InputError: naming the row that does not fit, or if the machine has fewer cores, or a
            study's folder is another one's.
    """
    check_folders(studies, out)
    kept = [threads_begun_with(study_folder(study, out)) or 0 for study in studies]
    opened: dict[DataSpec, ImageData] = {}
    counts: dict[tuple[str, int, int], tuple[Cost, Footprint]] = {}
    costs: list[Costs] = []
    runs: dict[str, Job] = {}
    memory: dict[str, int] = {}
    for number, study in enumerate(studies):
        of_rows: Costs = {}
        bytes_of: dict[str, int] = {}
        for row in study.rows:
            data = opened.get(row.data) or opened.setdefault(row.data, open_data(row.data))
            check_batches(study, row, data)
            try:
                check_batches_fill(row.recipe, data)
                key = canonical_json(row.model.to_dict()), len(data.class_names), data.image_size
                if key not in counts:  # once for all rows that train it otherwise
                    with plugin_errors():
                        counts[key] = count(row.model, *key[1:])
                        check_network(row.model, *key[1:])
                check_start(
                    row.definition(study.seeds_of(row.name)[0]),
                    len(data.class_names),
                    data.image_size,
                )
            except InputError as error:
                raise InputError(f"study '{study.name}', row '{row.name}': {error}") from None
            cost_of_one, taken = counts[key]
            of_rows[row.name] = cost_of_one, data.image_size
            bytes_of[row.name] = training_memory(taken, row.recipe, len(data.train))
        costs.append(of_rows)
        for run in study.plan():
            row, run_hash = run.row, run.definition.hash
            label = row.name if len(studies) == 1 else f"{study.name}: {row.name}"
            images = len(opened[row.data].train) * row.recipe.epochs
            work = float(of_rows[row.name][0].macs) * images
            memory[run_hash] = bytes_of[row.name]
            runs.setdefault(run_hash, Job(run.definition, run_hash, label, work, kept[number]))
    kept_threads = max((job.threads for job in runs.values()), default=0) or None
    largest = max(memory.values(), default=0)
    left = [job for job in runs.values() if not is_finished(out / job.hash)]
    if cluster:
        sharing = Sharing(len(runs), threads or kept_threads or 1, (), "as the cluster has room")
    else:
        needs = None
        if left and asks_needs(len(runs), workers):
            heaviest = max(left, key=lambda job: memory[job.hash])
            needs = measured_needs(heaviest.definition, memory[heaviest.hash], plugins)
        sharing = share_machine(len(runs), workers, threads, kept_threads, largest, needs)
    pending = tuple(replace(job, threads=threads or job.threads or sharing.threads) for job in left)
    done = len(runs) - len(pending)
    runs |= {job.hash: job for job in pending}
    return Plan(tuple(studies), out, tuple(costs), sharing, pending, done, memory, runs)


def grown_plan(plan: Plan, studies: Sequence[Study], threads: int | None = None) -> Plan:
    """Return the plan of the same studies with more seeds, which nothing need be opened for.

    `threads` are those that were asked for.
    """
    runs = dict(plan.runs)
    for study in studies:
        for run in study.plan():
            row, run_hash = run.row, run.definition.hash
            if run_hash not in runs:
                like = runs[row.definition(study.seeds_of(row.name)[0]).hash]
                of_it = threads or plan.sharing.threads
                runs[run_hash] = replace(
                    like, definition=run.definition, hash=run_hash, threads=of_it
                )
    jobs = tuple(job for job in runs.values() if not is_finished(plan.out / job.hash))
    done = len(runs) - len(jobs)
    return replace(plan, studies=tuple(studies), jobs=jobs, finished=done, runs=runs)


def check_memory_of(plan: Plan) -> None:
    """Refuse, before anything is trained, what this machine has not the memory for.

    Raises:
        InputError: naming the row.
    """
    for job in plan.jobs:
        check_memory(plan.memory[job.hash], f"'{job.label}'")


TIMED_MACS = 4e9  # of a forward pass: some of a batch, so that a list of runs takes seconds

PLAN_HEADINGS = (
    *("row", "MACs (G)", "input", "params (M)", "memory (MB)", "runs", "finished", "time left"),
)


def plan_lines(
    studies: Sequence[Study],
    out: Path,
    workers: int | None = None,
    threads: int | None = None,
    plugins: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Say of each row what it costs, and about how long what is left of it will take.

    The time is measured on one row's training step and scaled by MACs: a guide, not a promise.
    There is none for what the machine has not the memory for.
    """
    now = [resumed(study, study_folder(study, out)) for study in studies]
    plan = make_plan(with_candidates(now), out, workers, threads, plugins=plugins)
    jobs = [job for job in plan.jobs if fits_machine(plan.memory[job.hash])]
    rate = _macs_a_second(jobs) * plan.sharing.workers if jobs else 1.0
    left = {job.hash: job.work / rate for job in jobs}
    too_large = {job.hash for job in plan.jobs} - set(left)
    unfinished = {job.hash for job in plan.jobs}
    lines = []
    for study, costs in zip(plan.studies, plan.costs, strict=True):
        for row in study.rows:
            counted, size = costs[row.name]
            hashes = [row.definition(seed).hash for seed in study.seeds_of(row.name)]
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
                    "seconds_left": None
                    if too_large.intersection(waiting)
                    else sum(left.pop(run_hash, 0.0) for run_hash in waiting),
                    "runs_at_a_time": plan.sharing.workers,
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


def look_lines(studies: Sequence[Study]) -> list[dict[str, Any]]:
    """Return the looks of the studies that stop rows once they are decided."""
    return [
        {
            "study": study.name,
            "looks": list(looks.seeds),
            "baseline_times": looks.baseline_times,
            "gain": looks.gain,
            "levels": list(levels(looks, len(study.rows) - 1, study.paired)),
            "fewest_runs": _runs_at(looks, 0, len(study.rows) - 1),
            "most_runs": _runs_at(looks, -1, len(study.rows) - 1),
        }
        for study in studies
        if (looks := study.looks) is not None and len(study.rows) > 1
    ]


def _runs_at(looks: Looks, look: int, rows: int) -> int:
    return rows * looks.seeds[look] + looks.of_baseline(look)


def plan_cells(line: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a line of `plan_lines` as cells under `PLAN_HEADINGS`."""
    return (
        line["row"],
        counted(line["macs"] / 1e9),
        f"{line['cost_input_size']}",
        counted(line["params"] / 1e6),
        f"{line['memory_bytes'] / 2**20:,.0f}",
        f"{line['runs']}",
        f"{line['finished']}",
        "too large for this machine"
        if line["seconds_left"] is None
        else rough_time(line["seconds_left"]),
    )


def plan_total(lines: Sequence[Mapping[str, Any]]) -> str:
    """Say in one line how long all of `plan_lines` will take, or that nothing is left."""
    seconds = sum(line["seconds_left"] or 0.0 for line in lines)
    if any(line["seconds_left"] is None for line in lines):
        return "some rows are too large for this machine"
    if not seconds:
        return "nothing is left to train"
    return (
        f"about {rough_time(seconds)} in all, {lines[0]['runs_at_a_time']} at a time: by one row's "
        "step and the others' MACs; what moves much memory takes longer"
    )


@alone_on_device()
def _macs_a_second(jobs: Sequence[Job]) -> float:
    """Time a few training steps of the row of middling cost, on one run's threads."""
    job = sorted(jobs, key=lambda job: job.work)[len(jobs) // 2]
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
