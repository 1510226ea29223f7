"""One study on several data sets: what holds over all of them.

A row's gain is the mean of its gains on the data sets, each a block of the same weight, whatever
number of images or seeds it has. Rows and data sets keep spreads of their own. p values are
Bonferroni's over the rows that are tested, and intervals are as wide as that asks, so that a
verdict is said just where the interval excludes 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from blocklab.results.judgement import CONTRADICTED, SUPPORTED, UNDECIDED, Judgement
from blocklab.results.row_result import RowResult
from blocklab.results.study_results import StudyResults
from blocklab.statistics.datasets import (
    FEWEST_TO_SAMPLE,
    Cell,
    Gap,
    Ranks,
    at_least,
    mean_gap,
    rank_rows,
    sampled_gap,
    weighted_gap,
)
from blocklab.statistics.family import (
    AT_CHANCE,
    BASELINE_AT_CHANCE,
    BETTER,
    NOT_SHOWN,
    SAME,
    TOO_FEW,
    WORSE,
)
from blocklab.statistics.summary import ALPHA, holm
from blocklab.study.claims import MEASURED, ZEROS
from blocklab.study.dataset_claims import DatasetClaim, parse_dataset_claim
from blocklab.study.schema import in_list

TOP1 = MEASURED["top1"]
LATE = "stated after the runs"
Interval = tuple[float, float]


@dataclass(frozen=True)
class RowOverDatasets:
    """A row over all data sets.

    `means` are its test top-1 (%) on each, None where no run has finished; `gain` is the mean of
    its differences to the baseline, `interval` of training again on these data sets, simultaneous
    for all rows, `p` adjusted for them; `elsewhere` is the 95 % interval of other data sets of
    their kind, for this row alone. `rank` is its mean rank.
    """

    name: str
    means: tuple[float | None, ...]
    word: str = ""
    reason: str = ""
    gain: float | None = None
    interval: Interval | None = None
    elsewhere: Interval | None = None
    p: float | None = None
    rank: float | None = None


@dataclass(frozen=True)
class OverDatasets:
    """A study's results on each of several data sets, by the data sets' names."""

    title: str
    datasets: tuple[str, ...]
    results: tuple[StudyResults, ...]
    claims: tuple[str, ...] = ()

    @property
    def baseline(self) -> str | None:
        """The row that the others are compared with."""
        return self.results[0].baseline

    @property
    def level(self) -> float:
        """The smallest of the data sets' levels: their seeds depend on what looks have shown."""
        return min(one.level for one in self.results)

    @cached_property
    def dropped(self) -> tuple[str, ...]:
        """Rows that had run on a data set before they were taken out: tests that were made."""
        designs = [one.design for one in self.results if one.design]
        names = (name for one in designs for name, row in one.rows.items() if row.dropped)
        return tuple(dict.fromkeys(names))

    def _stated(self) -> dict[str, int]:
        """Every claim over the data sets that was stated, and after how many finished runs."""
        found: dict[str, int] = {}
        for one in (one.design for one in self.results if one.design):
            for text, stated in one.claims_over.items():
                found[text] = max(found.get(text, 0), stated.after_runs)
        return found

    @property
    def dropped_claims(self) -> tuple[str, ...]:
        """Claims over the data sets that are not made any more: they were tested all the same."""
        return tuple(text for text in self._stated() if text not in self.claims)

    @cached_property
    def _by_name(self) -> list[dict[str, RowResult]]:
        return [{row.name: row for row in one.rows} for one in self.results]

    def _cells(self, metric: str) -> list[dict[str, Cell]]:
        """Each row's figure on each data set."""
        found = []
        for rows in self._by_name:
            summaries = {name: row.over_seeds(metric) for name, row in rows.items()}
            found.append({name: Cell(s.mean, s.sd, s.n) for name, s in summaries.items() if s})
        return found

    @cached_property
    def ranks(self) -> Ranks | None:
        """The rows' mean ranks by test top-1; None of fewer than three rows."""
        return rank_rows([{n: c.mean for n, c in cells.items()} for cells in self._cells(TOP1)])

    @cached_property
    def rows(self) -> tuple[RowOverDatasets, ...]:
        """Every row with what is said of it; of the baseline, only its means and rank."""
        cells = self._cells(TOP1)
        ranks = self.ranks.rows if self.ranks else {}
        gaps = {
            name: [weighted_gap({name: 1.0, self.baseline: -1.0}, of) for of in cells]
            for name in self._by_name[0]
            if self.baseline and name != self.baseline
        }
        means = {name: mean_gap(known) for name, of in gaps.items() if (known := _all(of))}
        refused = {name: why for name in gaps if (why := self._refusal(name, gaps[name]))}
        tested = [n for n, gap in means.items() if n not in refused and gap.error is not None]
        at_once = len(tested) + len(self.dropped)
        found = []
        for name in self._by_name[0]:
            figures = tuple(of[name].mean if name in of else None for of in cells)
            rank = ranks.get(name)
            if name not in gaps:
                found.append(RowOverDatasets(name, figures, rank=rank))
                continue
            gap, sampled = means.get(name), sampled_gap(_all(gaps[name]))
            word, reason = refused.get(name) or _word(gap, at_once, name in tested, self.level)
            p = gap.p_against(0.0) if gap and name in tested else None
            found.append(
                RowOverDatasets(
                    name,
                    figures,
                    word,
                    reason,
                    gap.mean if gap else None,
                    gap.interval(self.level / at_once) if gap and name in tested else None,
                    sampled.interval() if sampled else None,
                    None if p is None else min(1.0, p * at_once),
                    rank,
                )
            )
        return tuple(found)

    def _refusal(self, name: str, gaps: Sequence[Gap | None]) -> tuple[str, str] | None:
        """Return why a row is not tested over the data sets, as a word and its reason."""
        words = [one.comparisons[name].word for one in self.results if name in one.comparisons]
        if words and all(word == SAME for word in words):
            return SAME, "same bits on every seed of every data set"
        for dataset, gap in zip(self.datasets, gaps, strict=True):
            if gap is None:
                return TOO_FEW, f"no run of it or of the baseline has finished on {dataset}"
        for dataset, one in zip(self.datasets, self.results, strict=True):
            there = one.comparisons.get(name)
            if one.level != ALPHA and there and there.word == TOO_FEW:
                return TOO_FEW, f"on {dataset}: {there.reason}"
        for dataset, word in zip(self.datasets, words, strict=True):
            if word in (AT_CHANCE, BASELINE_AT_CHANCE):
                return word, f"on {dataset}"
        return None

    @cached_property
    def judgements(self) -> tuple[Judgement, ...]:
        """What the runs say of the claims over data sets, corrected by Holm for their number."""
        stated = self._stated()
        judged = [self._judge(text) for text in self.claims]
        adjusted = iter(
            holm([one.p for one in judged if one.p is not None] + [1.0] * len(self.dropped_claims))
        )
        return tuple(
            replace(one, numbers=f"{one.numbers}; {LATE}") if stated.get(one.claim) else one
            for one in (
                one if one.p is None else _corrected(one, next(adjusted), self.level)
                for one in judged
            )
        )

    def _judge(self, text: str) -> Judgement:
        names, count = list(self._by_name[0]), len(self.datasets)
        claim = parse_dataset_claim(text, names, self.baseline, count)
        for dataset, rows in zip(self.datasets, self._by_name, strict=True):
            lost = [name for name in claim.claim.weights if rows[name].at_chance]
            if lost and claim.claim.metric != ZEROS:
                numbers = f"{lost[0]} is at chance on {dataset}: it never learned"
                return Judgement(text, UNDECIDED, numbers)
        cells = self._cells(MEASURED[claim.claim.metric])
        gaps = [
            _gap(one.tested.merged(claim.claim.weights), of)
            for one, of in zip(self.results, cells, strict=True)
        ]
        return _judge(claim, dict(zip(self.datasets, gaps, strict=True)))

    @property
    def sentences(self) -> tuple[str, ...]:
        """How the figures over data sets were reached, and what they assume."""
        count = len(self.datasets)
        tested = sum(row.p is not None for row in self.rows)
        tested += len(self.dropped) if tested else 0
        lines = [f"Gains are means over {count} data sets, each of the same weight."]
        if tested or any(one.p is not None for one in self.judgements):
            held = f", and intervals and p hold for {_rows(tested)} at once (Bonferroni)"
            lines[0] += (
                " Rows and data sets keep spreads of their own (Satterthwaite's degrees of "
                f"freedom), seeds and rows count as independent{held if tested else ''}. They say "
                "what training again on these data sets would show."
            )
        if self.dropped:
            lines.append(
                "Dropped after they had run, and counted among these: "
                f"{', '.join(map(in_list, self.dropped))}."
            )
        if self.dropped_claims:
            claims = "; ".join(self.dropped_claims)
            lines.append(f"Stated over the data sets and dropped, counted in p (Holm): {claims}.")
        if 0 < self.level < ALPHA:
            lines.append(
                "How many seeds a row has depends on what looks have shown, so intervals, p and "
                f"claims are held to the smallest level of all looks, {100 * self.level:.2g} %."
            )
        if any(row.elsewhere for row in self.rows):
            lines.append(
                f"The interval for other data sets takes these {count} for a sample of their kind "
                "(Student's t, each row alone). Data sets that were chosen are rarely one."
            )
        elif count < FEWEST_TO_SAMPLE:
            lines.append("Fewer than three data sets say nothing of others.")
        if self.ranks:
            lines.append(
                f"Ranks: on each data set by its mean over seeds. Friedman's p that none ranks "
                f"above another is {self.ranks.p:.3f}; mean ranks less than "
                f"{self.ranks.critical:.2f} apart are not shown to differ (Nemenyi, 0.05; "
                "approximate for so few data sets)."
            )
        return tuple(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "datasets": list(self.datasets),
            "rows": [
                {
                    "row": row.name,
                    "top1_percent": dict(zip(self.datasets, row.means, strict=True)),
                    "gain_points": row.gain,
                    "gain_interval": list(row.interval) if row.interval else None,
                    "gain_interval_elsewhere": list(row.elsewhere) if row.elsewhere else None,
                    "p": row.p,
                    "verdict": row.word or None,
                    "reason": row.reason or None,
                    "mean_rank": row.rank,
                }
                for row in self.rows
            ],
            "friedman_p": self.ranks.p if self.ranks else None,
            "critical_difference": self.ranks.critical if self.ranks else None,
            "claims": [
                {"claim": one.claim, "word": one.word, "numbers": one.numbers}
                | {"p": one.p, "p_holm": one.p_holm}
                for one in self.judgements
            ],
        }


def _gap(weights: Mapping[str, float], cells: Mapping[str, Cell]) -> Gap | None:
    return weighted_gap(weights, cells) if weights else Gap(0.0, 0.0, same=True)


def _all(gaps: Sequence[Gap | None]) -> list[Gap]:
    """Return the gaps of all data sets; none if one is missing."""
    known = [gap for gap in gaps if gap is not None]
    return known if len(known) == len(gaps) else []


def _word(gap: Gap | None, rows: int, tested: bool, level: float) -> tuple[str, str]:
    if gap is None or not tested:
        return TOO_FEW, "one seed on a data set has no spread to test against"
    p = gap.p_against(0.0)
    if p is None:
        return NOT_SHOWN, "no seed differs from another: no spread to test against"
    if p * rows >= level:
        if p * rows < ALPHA:
            return NOT_SHOWN, f"p is not below the looks' level of {100 * level:.2g} %"
        return (
            NOT_SHOWN,
            "shown before the correction for so many rows, not after" if p < ALPHA else "",
        )
    return (BETTER if gap.mean > 0 else WORSE), ""


def _corrected(one: Judgement, p_holm: float, level: float) -> Judgement:
    word = one.word if p_holm < level else UNDECIDED
    return replace(one, word=word, p_holm=p_holm, level=level)


def _judge(claim: DatasetClaim, gaps: Mapping[str, Gap | None]) -> Judgement:
    """Say what the differences on the data sets speak for; `p` is of that, not yet corrected."""
    known = {name: gap for name, gap in gaps.items() if gap is not None}
    shown = "; ".join(f"{name} {_numbers(gap, claim.claim.metric)}" for name, gap in known.items())
    if missing := [name for name in gaps if name not in known]:
        return Judgement(claim.text, UNDECIDED, f"no finished run of a row on {missing[0]}")
    if claim.least is None:
        mean = mean_gap(list(known.values()))
        numbers = f"{_numbers(mean, claim.claim.metric)} on average: {shown}"
        holds, p = _test(claim, mean)
        if p is None:
            return Judgement(claim.text, UNDECIDED, f"{numbers}; no spread to test against")
        return Judgement(claim.text, SUPPORTED if holds else CONTRADICTED, numbers, p)
    tests = [_test(claim, gap) for gap in known.values()]
    of = len(tests)
    # What has no spread shows nothing, which is a p of 1.
    speak_for = [1.0 if p is None or not holds else p for holds, p in tests]
    against = [1.0 if p is None or holds else p for holds, p in tests]
    holding = sum(holds for holds, _ in tests)
    numbers = f"so on {holding} of {of}: {shown}"
    if holding >= claim.least:
        return Judgement(claim.text, SUPPORTED, numbers, at_least(speak_for, claim.least))
    fails_on = of - claim.least + 1  # so many that too few are left
    return Judgement(claim.text, CONTRADICTED, numbers, at_least(against, fails_on))


def _test(claim: DatasetClaim, gap: Gap) -> tuple[bool, float | None]:
    """Return whether a difference is as claimed, and p of the test that speaks for or against."""
    stated = claim.claim
    if gap.same:  # certain, whichever it is
        strict = stated.operator in (">", "<")
        holds = stated.margin < 0 if strict else stated.margin <= 0
        return stated.operator == "==" or holds, 0.0
    if stated.operator == "==":
        inside = abs(gap.mean) <= stated.margin
        nearest = stated.margin if gap.mean > 0 else -stated.margin
        return inside, gap.p_within(stated.margin) if inside else gap.p_against(nearest)
    sign = -1 if stated.operator[0] == "<" else 1
    return sign * gap.mean > stated.margin, gap.p_against(sign * stated.margin)


def _numbers(gap: Gap, metric: str) -> str:
    form = "+.4f" if metric == "loss" else "+.2f"
    if gap.same:
        return "identical function"
    text = f"{gap.mean:{form}}"
    if (ends := gap.interval()) is not None:
        text += f" [{ends[0]:{form}}, {ends[1]:{form}}]"
    return text.replace("-", "\u2212")


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"
