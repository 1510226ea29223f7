"""Claims over several data sets: a claim of two rows, or of gains, and on how many it holds.

::

    se > plain on all                       more on each data set
    se > plain by 0.5 in top1 on average    more by half a point, on average over data sets
    se > plain on at least 2                more on two of them or more, whichever
    se == triplet within 0.5 on all
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from blocklab.errors import InputError
from blocklab.study.claims import COUNTED, ZEROS, BestClaim, Claim, GainClaim, parse_claim

_WHERE = re.compile(r"(?P<claim>.*\S)\s+on\s+(?P<where>all|average|at\s+least\s+(?P<least>\S+))\s*")


@dataclass(frozen=True)
class DatasetClaim:
    """A claim and where it holds: on `least` data sets or more; None is on average over all."""

    text: str
    claim: Claim | GainClaim
    least: int | None


def is_dataset_claim(text: str) -> bool:
    """Whether a claim says on how many data sets it holds."""
    return _WHERE.fullmatch(text) is not None


def parse_dataset_claim(
    text: str, row_names: Collection[str], baseline: str | None, datasets: int
) -> DatasetClaim:
    """Read a claim over so many data sets.

    Raises:
        InputError: in one line, with the remedy.
    """
    found = _WHERE.fullmatch(text)
    if found is None:
        raise InputError(f"claim '{text}': end it with on all, on average or on at least 2")
    claim = parse_claim(found["claim"], row_names, baseline)
    if isinstance(claim, BestClaim):
        raise InputError(
            f"claim '{text}': over data sets a claim is of two rows, or of gains; leave its end "
            "out to have it judged on each data set"
        )
    if claim.metric in COUNTED or claim.metric == ZEROS:
        raise InputError(
            f"claim '{text}': {claim.metric} are counted on each data set; leave its end out"
        )
    if found["where"] == "average":
        return DatasetClaim(text, claim, None)
    if found["where"] == "all":
        return DatasetClaim(text, claim, datasets)
    given = found["least"]
    if not (given.isascii() and given.isdigit() and len(given) < 5 and 1 <= int(given) <= datasets):
        raise InputError(
            f"claim '{text}': there are {datasets} data sets; write on at least 1 to {datasets}, "
            f"not '{given}'"
        )
    return DatasetClaim(text, claim, int(given))
