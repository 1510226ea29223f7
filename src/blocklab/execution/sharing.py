"""How a study shares a machine: so many workers, so many threads each, and why.

Runs are independent, so cores are best used across them: two runs of one thread each beat one
after the other on two (the parts of a step that do not parallelise then overlap). The split is a
function of the machine and the study alone, never of what else the machine does, so that the same
study on the same machine has the same threads, and so the same bits.
"""

from dataclasses import dataclass

import torch

from blocklab.errors import InputError
from blocklab.measure.footprint import machine_memory
from blocklab.training.device import available_cores

SHARE_OF_MEMORY = 0.8


@dataclass(frozen=True)
class Sharing:
    """Workers beside each other, threads of each, GPUs to give them, and the reason."""

    workers: int
    threads: int
    devices: int
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
) -> Sharing:
    """Decide how many workers and threads; what is given is kept to, or refused.

    Args:
        runs: all of the study's, finished ones too, so that a rerun is shared as the first was.
        workers: None is decided here.
        threads: of each run; None is decided here.
        kept_threads: that the study's runs began with.
        run_bytes: memory of the largest run, as `blocklab.measure.footprint` estimates it.

    Raises:
        InputError: if the machine has fewer cores.
    """
    cores, devices = available_cores(), torch.cuda.device_count()
    for what, number in (("workers", workers), ("threads", threads)):
        if number is not None and not 1 <= number <= cores:
            raise InputError(
                f"this machine has {cores} cores to share: set --{what} from 1 to {cores}"
            )
    reason = "as asked"
    if threads is None and kept_threads is not None:
        threads, reason = kept_threads, "as the study's runs began"
    if workers is None:
        most = min(devices or cores, cores // (threads or 1)) or 1
        workers = min(most, max(1, runs))
        if devices:
            reason = f"a run a GPU ({devices})"
        elif workers < most:
            reason = f"the study has {runs} run{'s' * (runs > 1)}"
        elif threads is None:
            reason = "cores are used best across runs"
        memory = machine_memory()
        fitting = max(1, int(SHARE_OF_MEMORY * memory / run_bytes)) if run_bytes else workers
        if not devices and fitting < workers:
            workers = fitting
            reason = f"more runs of about {run_bytes >> 20:,} MB would not fit the memory"
    threads = threads or max(1, cores // workers)
    if workers == 1 and threads == kept_threads:  # of a larger machine: they are kept, for the bits
        return Sharing(workers, threads, devices, reason)
    if workers * threads > cores:
        raise InputError(
            f"{workers} workers of {threads} threads are more than the {cores} cores of this "
            f"machine; set --workers {max(1, cores // threads)} or --threads {cores // workers}"
        )
    return Sharing(workers, threads, devices, reason)
