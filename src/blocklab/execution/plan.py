"""What a study will do before it does it: its distinct runs, what they cost, which are done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from blocklab.blocks.plugins import plugin_errors
from blocklab.contract.networks import check_network
from blocklab.data.image_data import ImageData, open_data
from blocklab.data.spec import DataSpec
from blocklab.errors import InputError
from blocklab.execution.diagnosis import check_batches
from blocklab.execution.gpu_memory import measured_needs
from blocklab.execution.sharing import Sharing, asks_needs, share_machine
from blocklab.execution.study_folder import check_folders, study_folder, threads_begun_with
from blocklab.files import canonical_json
from blocklab.measure.cost import Cost
from blocklab.measure.footprint import Footprint, check_memory
from blocklab.study.study import Study
from blocklab.training.run_checks import (
    check_batches_fill,
    check_no_lone_image,
    check_start,
    count,
    training_memory,
)
from blocklab.training.run_definition import RunDefinition
from blocklab.training.run_reader import is_finished

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
    threads: tuple[int, ...]  # of each study's runs that begin now
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
            if study.by_validation and not len(data.validation):
                raise InputError(
                    f"study '{study.name}': tune chooses by validation images, and the data of "
                    f"row '{row.name}' has none; set data.validation_fraction=0.1"
                )
            try:
                check_batches_fill(row.recipe, data)
                key = canonical_json(row.model.to_dict()), len(data.class_names), data.image_size
                if key not in counts:  # once for all rows that train it otherwise
                    with plugin_errors():
                        counts[key] = count(row.model, *key[1:])
                        check_network(row.model, *key[1:])
                definition = row.definition(study.seeds_of(row.name)[0])
                check_start(definition, len(data.class_names), data.image_size)
                check_no_lone_image(definition, data)
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
    begin = tuple(threads or one or sharing.threads for one in kept)
    return Plan(tuple(studies), out, tuple(costs), sharing, begin, pending, done, memory, runs)


def grown_plan(plan: Plan, studies: Sequence[Study]) -> Plan:
    """Return the plan of the same studies with more seeds, which nothing need be opened for."""
    runs = dict(plan.runs)
    for study, of_it in zip(studies, plan.threads, strict=True):
        for run in study.plan():
            row, run_hash = run.row, run.definition.hash
            if run_hash not in runs:
                like = runs[row.definition(study.seeds_of(row.name)[0]).hash]
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
