"""In what a study's runs are unlike beyond what the study is about."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from blocklab.results.ended_run import EndedRun

# Parts of run.json that are expected to be alike. How a row is compiled, and by which algorithms,
# is not among them: rows may differ, seeds take their row's.
_ALIKE = ("precision", "threads", "devices", "data_fingerprint", "versions", "machine")


def unlike_runs(runs: Sequence[EndedRun]) -> Iterator[str]:
    """Say in what some run, or some epochs of one, differ from the others; a line a part."""
    told = [part for run in runs for part in (run.run, *run.run.get("earlier", ()))]
    for part in _ALIKE:
        known = [one.get(part) for one in told if part in one or "to_epoch" not in one]
        if _differ(known):
            yield f"the runs differ in {part.replace('_', ' ')}{_which(known)}"


def _differ(values: Sequence[Any]) -> bool:
    return len({json.dumps(one, sort_keys=True) for one in values}) > 1


def _which(values: Sequence[Any]) -> str:
    """Name what differs in values that are of several parts, in brackets."""
    if not all(isinstance(one, dict) for one in values):
        return ""
    parts = dict.fromkeys(part for one in values for part in one)
    return f" ({', '.join(one for one in parts if _differ([v.get(one) for v in values]))})"
