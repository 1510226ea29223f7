"""What torchrun and SLURM tell the processes that they start."""

import os

from blocklab.errors import InputError, shortened


def started_elsewhere() -> bool:
    """Whether torchrun or a SLURM job step of several tasks has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ or (
        "SLURM_JOB_ID" in os.environ and launcher_number("SLURM_NTASKS", 1) > 1
    )


def local_rank() -> int:
    """Return this process's number among those started on this machine; 0 where it is alone."""
    if not started_elsewhere():
        return 0
    return launcher_number("LOCAL_RANK", launcher_number("SLURM_LOCALID", 0))


def launcher_number(name: str, otherwise: int) -> int:
    """Read a number that torchrun or SLURM tells its processes; `otherwise` where it is not set.

    Raises:
        InputError: if it is none.
    """
    given = os.environ.get(name) or str(otherwise)
    if not given.isdecimal() or len(given) > 9:
        raise InputError(
            f"{name} is {shortened(given)} and should be a number, as torchrun and SLURM set it; "
            "unset it"
        )
    return int(given)
