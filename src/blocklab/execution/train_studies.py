"""Training studies: what is not finished is trained, here or on a cluster, and the results read.

Several studies at once train each of their distinct runs once. Runs are independent: one that
fails ends no other, and whatever dies, the same command goes on from the last whole epochs.
"""

from collections.abc import Sequence
from pathlib import Path

from blocklab.errors import InputError
from blocklab.execution.crew import Crew, Silent, Watcher
from blocklab.execution.diagnosis import diagnose_studies
from blocklab.execution.looks import look, look_text, resumed
from blocklab.execution.plan import Plan, check_memory_of, grown_plan, make_plan
from blocklab.execution.stated import state_design
from blocklab.execution.study_folder import (
    check_folders,
    study_folder,
    study_there,
    write_study_folder,
)
from blocklab.execution.tuning import candidates, choose
from blocklab.results.study_folder import read_study_folder
from blocklab.results.study_results import StudyResults
from blocklab.study.study import Study
from blocklab.training.run_reader import RunReader
from blocklab.training.shorter_run import why_anew


def train_studies(
    studies: Sequence[Study],
    out: Path,
    workers: int | None = None,
    watcher: Watcher | None = None,
    *,
    threads: int | None = None,
    plugins: Sequence[str] = (),
    ray: str | None = None,
    command: str | None = None,
) -> tuple[StudyResults, ...]:
    """Train every run of the studies that has no result yet, each once, and read the results.

    Args:
        studies: what to run.
        out: the folder of run folders, and of each study's own folder.
        workers: runs beside each other; None is decided by `share_machine`, or by the cluster.
        threads: of each run that begins now; a run that has begun keeps its own. None is as
            many as the study's earlier runs, or decided with `workers`.
        watcher: is told what happens.
        plugins: files that register blocks, for the workers to run.
        ray: the address of a Ray cluster, or ``auto``; None is this machine alone.
        command: how this was called, for the page.

    Raises:
        InputError: if a row does not fit its data, the machine has fewer cores, or a study's folder
            is another one's.
        RunError: if a study's own folder cannot be written. A run that fails does not raise: its
            row says so.
    """
    if ray is not None and workers is not None:
        raise InputError(
            "a cluster runs as many at a time as it has room for; leave --workers out (--threads "
            "says how many cores each takes)"
        )
    watcher = watcher or Silent()
    tried = [one for study in studies if (one := candidates(study)) is not None]
    if tried:  # first what chooses the learning rates, then what they are chosen for
        check_folders(studies, out)
        rest = {"threads": threads, "watcher": watcher, "plugins": plugins, "ray": ray}
        found = iter(train_studies(tried, out, workers, command=command, **rest))
        studies = [choose(study, next(found)) if study.tune else study for study in studies]
    check_folders(studies, out)
    studies = [resumed(study, study_folder(study, out)) for study in studies]
    plan = make_plan(studies, out, workers, threads, ray is not None, plugins)
    if ray is None:
        check_memory_of(plan)
    failures: dict[str, str] = {}
    before = {job.hash for job in plan.jobs if RunReader(out / job.hash).failure is not None}
    while True:
        for study in plan.studies:
            folder = study_folder(study, out)
            state_design(study, folder, study_there(folder))
        folders = [
            write_study_folder(study, out, costs, command, begin)
            for study, costs, begin in zip(plan.studies, plan.costs, plan.threads, strict=True)
        ]
        _train(plan, watcher, plugins, ray, failures)
        looked = [
            (study, look(study, folder, read_study_folder(folder, failures), {*failures} - before))
            for study, folder in zip(plan.studies, folders, strict=True)
        ]
        if not any(more for _, more in looked):
            break
        plan = grown_plan(plan, [more or study for study, more in looked])
    for study, folder in zip(plan.studies, folders, strict=True):
        if text := look_text(study, folder):
            watcher.looked(study.name, text)
    diagnose_studies(plan.studies, out)
    return tuple(read_study_folder(folder, failures) for folder in folders)


def _train(
    plan: Plan,
    watcher: Watcher,
    plugins: Sequence[str],
    ray: str | None,
    failures: dict[str, str],
) -> None:
    """Train a plan's runs; add why those failed that did, by hash."""
    watcher.planned(plan.jobs, plan.finished, plan.sharing)
    for study in plan.studies:
        if plan.jobs and (text := look_text(study, study_folder(study, plan.out))):
            watcher.looked(study.name, text)
    for job in plan.jobs:
        if why := why_anew(job.definition.to_dict(), plan.out):
            watcher.note(job, f"{why} (and so for all of the kind)")
            break
    jobs = [job for job in plan.jobs if job.hash not in failures]  # tried once a command
    if jobs and ray is not None:
        from blocklab.execution.ray_cluster import RayCrew  # an extra, and slow to import

        failures.update(RayCrew(plan.out, watcher, plugins, ray).train(jobs))
    elif jobs:
        failures.update(Crew(plan.out, watcher, plan.sharing, plugins).train(jobs))
