"""How a study shares a machine: so many workers, so many threads each, on which GPUs, and why.

Runs are independent, so cores are best used across them: two runs of one thread each beat one
after the other on two (the parts of a step that do not parallelise then overlap). The split is a
function of the machine and the study alone, never of what else the machine does, so that the same
study on the same machine has the same threads, and so the same bits.

On GPUs threads decide no bits, and a small network leaves most of one idle: a GPU gets as many runs
as its free memory holds by measurement, and as cores are there to drive them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from blocklab.errors import InputError
from blocklab.measure.device import gpu_count
from blocklab.measure.footprint import machine_memory
from blocklab.training.device import available_cores

SHARE_OF_MEMORY = 0.8
SHARE_OF_GPU = 0.9
MOST_A_GPU = 4  # runs, where nobody says how many: they take turns on it, unless MPS serves them
HOST_BYTES = 2 << 30  # of main memory that a run on a GPU takes: CUDA's libraries and the images


@dataclass(frozen=True)
class GpuNeeds:
    """What a run takes of a GPU, and what each GPU has, in bytes.

    `measuring` is what a run takes while it measures what to train with, one at a time.
    """

    run: int
    measuring: int
    free: tuple[int, ...]

    @property
    def fitting(self) -> tuple[int, ...]:
        """How many runs each GPU has the memory for."""
        more = max(0, self.measuring - self.run)
        return tuple(max(0, int(SHARE_OF_GPU * free - more)) // self.run for free in self.free)


@dataclass(frozen=True)
class Sharing:
    """Workers beside each other, threads of each, the GPU that each has, and the reason."""

    workers: int
    threads: int
    gpus: tuple[int, ...]  # a number a worker, from 0; () without GPUs
    reason: str

    def __str__(self) -> str:
        runs = f"{self.workers} run{'s' * (self.workers > 1)} at a time"
        return f"{runs}, {self.threads} thread{'s' * (self.threads > 1)} each: {self.reason}"


def share_machine(
    runs: int,
    workers: int | None = None,
    threads: int | None = None,
    kept_threads: int | None = None,
    run_bytes: int = 0,
    needs: GpuNeeds | None = None,
) -> Sharing:
    """Decide how many workers and threads; what is given is kept to, or refused.

    Args:
        runs: all of the study's, finished ones too, so that a rerun is shared as the first was.
        workers: None is decided here.
        threads: of each run; None is decided here.
        kept_threads: that the study's runs began with.
        run_bytes: memory of the largest run, as `blocklab.measure.footprint` estimates it.
        needs: what the largest run takes of a GPU; None where `asks_needs` is not.

    Raises:
        InputError: if the machine has fewer cores, or its GPUs less memory.
    """
    cores, gpus, memory = available_cores(), gpu_count(), machine_memory()
    if threads is not None and not 1 <= threads <= cores:
        raise _few_cores("threads", cores)
    if workers is not None and workers < 1:
        raise InputError("set --workers to 1 or more") if gpus else _few_cores("workers", cores)
    if gpus:
        fitting = (1,) * gpus if needs is None else needs.fitting
        if workers is None:
            workers, reason = gpu_workers(runs, cores, memory, fitting)
        else:
            reason = "as asked"
            most = sum(max(1, fit) for fit in fitting)
            if needs is not None and workers > most:
                raise InputError(
                    f"{workers} runs at a time of about {needs.run >> 20:,} MB each do not fit the "
                    f"memory of {_gpus(gpus)}, of which {sum(needs.free) >> 20:,} MB are free; set "
                    f"--workers from 1 to {most}, or a smaller batch_size"
                )
        threads = threads or kept_threads or max(1, cores // workers)
        return Sharing(workers, threads, places(workers, fitting), reason)
    if workers is not None and workers > cores:
        raise _few_cores("workers", cores)
    return _share_cores(runs, workers, threads, kept_threads, run_bytes, (cores, memory))


def asks_needs(runs: int, workers: int | None) -> bool:
    """Whether it must be known what a run takes of a GPU: where one may get several."""
    gpus = gpu_count()
    return 0 < gpus < min(runs, runs if workers is None else workers)


def gpu_workers(runs: int, cores: int, memory: int, fitting: Sequence[int]) -> tuple[int, str]:
    """Return how many runs train at a time on GPUs, and why not more.

    Args:
        runs: of the study.
        cores: of the machine, at least one for each run beyond a run a GPU.
        memory: bytes of main memory.
        fitting: how many runs each GPU has the memory for; one is tried in any case.
    """
    gpus = len(fitting)
    bounds = {
        f"a GPU is given {MOST_A_GPU} at most; --workers says otherwise": MOST_A_GPU * gpus,
        f"{cores} core{'s' * (cores > 1)} drive no more": max(gpus, cores),
        "more would not fit the main memory": max(gpus, int(SHARE_OF_MEMORY * memory / HOST_BYTES)),
        "more would not fit the memory": sum(min(MOST_A_GPU, max(1, fit)) for fit in fitting),
        f"the study has {runs} run{'s' * (runs > 1)}": max(1, runs),
    }
    why = min(bounds, key=bounds.__getitem__)
    return bounds[why], f"on {_gpus(gpus)}, {why}"


def places(workers: int, fitting: Sequence[int]) -> tuple[int, ...]:
    """Return the GPU of each worker: one each in turn, then a second where it fits, and so on."""
    found: list[int] = []
    turn = 1
    while len(found) < workers:
        open_ = [gpu for gpu, fit in enumerate(fitting) if max(1, fit) >= turn]
        found += open_ or range(len(fitting))
        turn += 1
    return tuple(found[:workers])


def _share_cores(
    runs: int,
    workers: int | None,
    threads: int | None,
    kept_threads: int | None,
    run_bytes: int,
    machine: tuple[int, int],
) -> Sharing:
    cores, memory = machine
    reason = "as asked"
    if threads is None and kept_threads is not None:
        threads, reason = kept_threads, "as the study's runs began"
    if workers is None:
        most = min(cores, cores // (threads or 1)) or 1
        workers = min(most, max(1, runs))
        if workers < most:
            reason = f"the study has {runs} run{'s' * (runs > 1)}"
        elif threads is None:
            reason = "cores are used best across runs"
        fitting = max(1, int(SHARE_OF_MEMORY * memory / run_bytes)) if run_bytes else workers
        if fitting < workers:
            workers = fitting
            reason = f"more runs of about {run_bytes >> 20:,} MB would not fit the memory"
    threads = threads or max(1, cores // workers)
    if workers == 1 and threads == kept_threads:  # of a larger machine: they are kept, for the bits
        return Sharing(workers, threads, (), reason)
    if workers * threads > cores:
        raise InputError(
            f"{workers} workers of {threads} threads are more than the {cores} cores of this "
            f"machine; set --workers {max(1, cores // threads)} or --threads {cores // workers}"
        )
    return Sharing(workers, threads, (), reason)


def _few_cores(what: str, cores: int) -> InputError:
    return InputError(f"this machine has {cores} cores to share: set --{what} from 1 to {cores}")


def _gpus(count: int) -> str:
    return f"{count} GPU{'s' * (count > 1)}"
