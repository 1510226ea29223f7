"""Where a comparison's page goes: a folder of its own, which nothing else is lost in."""

from pathlib import Path

from blocklab.errors import InputError
from blocklab.files import read_checked_json, write_checked_json

COMPARISON = "comparison.json"  # beside a comparison's page: the command that made it
OURS = ("report.html", "table.csv", "runs.csv", "table.md", "study.json", "figures")


def claim_folder(folder: Path, command: str | None) -> None:
    """Take a folder for a comparison's page: one that is new, or another comparison's.

    Raises:
        InputError: if files that are no comparison's would be lost.
        RunError: if it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder} is a file; name a folder")
    if read_checked_json(folder / COMPARISON) is None:
        there = [name for name in OURS if (folder / name).exists()]
        if there:
            raise InputError(
                f"{folder} has a {there[0]} that is not of a comparison; give another --out"
            )
    write_checked_json(folder / COMPARISON, {"command": command})
