"""What `blocklab study --dry-run` lists: each row's cost and time, what is claimed, the looks."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from blocklab.data.image_data import ImageData, open_data
from blocklab.execution.looks import fewest_and_most_runs, resumed
from blocklab.execution.plan import Job, make_plan
from blocklab.execution.study_folder import study_folder
from blocklab.execution.tuning import with_candidates
from blocklab.files import canonical_json
from blocklab.measure.alone import alone_on_device
from blocklab.measure.amounts import counted, rough_time
from blocklab.measure.footprint import fits_machine
from blocklab.measure.timing import shortest_times
from blocklab.statistics.sequential import levels
from blocklab.study.study import Study
from blocklab.training.autotune import make_step
from blocklab.training.device import choose_setup
from blocklab.training.workload import Workload

TIMED_MACS = 4e9  # of a forward pass: some of a batch, so that a list of runs takes seconds
TIMED_SECONDS = 20.0  # for timing steps; what is not timed by then is scaled by MACs

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

    The time is measured on a training step of each network, those of most work first; of those for
    which `TIMED_SECONDS` were too short it is scaled by MACs: a guide, not a promise. There is none
    for what the machine has not the memory for.
    """
    now = [resumed(study, study_folder(study, out)) for study in studies]
    plan = make_plan(with_candidates(now), out, workers, threads, plugins=plugins)
    jobs = [job for job in plan.jobs if fits_machine(plan.memory[job.hash])]
    seconds, timed = _seconds_of(jobs) if jobs else ({}, set[str]())
    left = {run_hash: taken / plan.sharing.workers for run_hash, taken in seconds.items()}
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
                    "timed": timed.issuperset(waiting),
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


def look_lines(studies: Sequence[Study], out: Path) -> list[dict[str, Any]]:
    """Return the looks of the studies that stop rows once they are decided."""
    found = []
    for study in studies:
        if (looks := study.looks) is None or len(study.rows) < 2:
            continue
        fewest, most = fewest_and_most_runs(study, study_folder(study, out))
        found.append(
            {
                "study": study.name,
                "looks": list(looks.seeds),
                "baseline_times": looks.baseline_times,
                "gain": looks.gain,
                "levels": list(levels(looks, len(study.rows) - 1, study.paired)),
                "fewest_runs": fewest,
                "most_runs": most,
            }
        )
    return found


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
    guessed = sum(not line["timed"] for line in lines)
    how = "by a training step of each row"
    if guessed:
        how = f"by a training step of {len(lines) - guessed} of {len(lines)} rows and the MACs of "
        how += "the others, whose time may be another"
    return f"about {rough_time(seconds)} in all, {lines[0]['runs_at_a_time']} at a time: {how}"


@alone_on_device()
def _seconds_of(jobs: Sequence[Job]) -> tuple[dict[str, float], set[str]]:
    """Time a training step of each network, on one run's threads.

    Returns:
        The seconds of each run by its hash, and which of them are of a network that was timed.
    """
    alike: dict[str, list[tuple[Job, Workload]]] = {}
    opened: dict[str, ImageData] = {}
    for job in jobs:
        given = job.definition.data
        address = canonical_json(given.definition())
        data = opened[address] = opened.get(address) or open_data(given)
        work = Workload.of(job.definition.model, job.definition.recipe, data, job.threads)
        kind = canonical_json(work.key(str(job.definition.recipe.precision)))
        alike.setdefault(kind, []).append((job, work))
    until = time.monotonic() + TIMED_SECONDS
    found: dict[str, float] = {}
    macs = seconds = 0.0  # of all that is timed
    most_work_first = sorted(alike.values(), key=lambda kind: -sum(job.work for job, _ in kind))
    for kind in most_work_first:
        if found and time.monotonic() > until:
            break
        job, work = kind[0]
        rate = _macs_a_second(job, work)
        for job, _ in kind:
            found[job.hash] = job.work / rate
            macs, seconds = macs + job.work, seconds + found[job.hash]
    timed = set(found)
    return {job.hash: found.get(job.hash, job.work * seconds / macs) for job in jobs}, timed


def _macs_a_second(job: Job, work: Workload) -> float:
    macs_an_image = job.work / (work.train_images * work.recipe.epochs)
    few = min(work.recipe.batch_size, max(2, int(TIMED_MACS / macs_an_image)))
    before = torch.get_num_threads()
    torch.set_num_threads(job.threads)
    try:
        setup = replace(choose_setup(work.recipe), compiled=False)
        step = {"step": make_step(work, setup, few)}
        seconds = shortest_times(step, rounds=2, threads=work.threads)["step"]
    finally:
        torch.set_num_threads(before)
    return macs_an_image * few / seconds
