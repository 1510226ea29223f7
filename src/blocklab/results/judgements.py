"""Whether a study's runs bear out the claims that it stated beforehand."""

import re
from collections.abc import Sequence
from dataclasses import replace

from blocklab.errors import InputError
from blocklab.results.counted_claims import judge_count
from blocklab.results.judgement import UNDECIDED, Judgement
from blocklab.results.tested_claims import TestedRows
from blocklab.statistics.summary import ALPHA, holm
from blocklab.study.claims import COUNTED, parse_claim


def judge_together(
    studies: Sequence[Sequence[Judgement]], dropped: Sequence[str] = ()
) -> list[tuple[Judgement, ...]]:
    """Correct the p values of several studies' claims by Holm for their number in all.

    A claim that two studies make counts twice, which makes the correction no weaker, and so does
    one that was stated and `dropped`.
    """
    tested = [one.p for judged in studies for one in judged if one.p is not None]
    adjusted = iter(holm([*tested, *_untold(dropped)]))
    return [
        tuple(
            one if one.p is None else replace(one, p_holm_collection=next(adjusted))
            for one in judged
        )
        for judged in studies
    ]


def judge_claims(
    claims: Sequence[str],
    tested: TestedRows,
    baseline: str | None = None,
    dropped: Sequence[str] = (),
) -> tuple[Judgement, ...]:
    """Judge a study's claims by its finished runs, p values corrected by Holm for their number.

    A claim that cannot be read, or whose row was left out, is undecided and says so.

    Args:
        claims: as the study states them.
        tested: all rows of the study, whose spreads are pooled where they may be.
        baseline: the row that gains are counted from.
        dropped: claims that were stated before, and of which none is judged here: they count in
            the number, those of costs aside.
    """
    judged: list[Judgement] = []
    for text in claims:
        try:
            claim = parse_claim(text, tested.rows, baseline, tested.metric)
        except InputError as error:
            judged.append(Judgement(text, UNDECIDED, str(error)))
            continue
        counted = claim.metric in COUNTED
        judged.append(judge_count(claim, tested.rows) if counted else tested.judge(claim))
    found = [one.p for one in judged if one.p is not None]
    adjusted = iter(holm([*found, *_untold(dropped)]))
    return tuple(one if one.p is None else _corrected(one, next(adjusted)) for one in judged)


def _untold(dropped: Sequence[str]) -> list[float]:
    """Return p of claims that were dropped: what each would say is not asked, so it is 1."""
    return [1.0 for text in dropped if not _is_of_costs(text)]


def _is_of_costs(text: str) -> bool:
    return any(re.search(rf"\bin {metric}$", text.strip()) for metric in COUNTED)


def _corrected(one: Judgement, p_holm: float) -> Judgement:
    return replace(one, p_holm=p_holm, word=one.word if p_holm < ALPHA else UNDECIDED)
