"""Claims of accuracies, losses and zeros: tests of contrasts of the rows' means.

A claim of two rows, or of gains, is a sum of rows' means by its weights. The rows of the study
share one spread, by each metric, where its guard allows that; else each row's own is taken (see
`blocklab.statistics.contrasts`). That a row is the best of several is said where each of the
differences says so, so its p is the largest of theirs (an intersection-union test, which needs no
correction); that it is not, where any other row is shown to be better, so there p is the smallest
times their number (Bonferroni).
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from blocklab.results.judgement import CONTRADICTED, SUPPORTED, UNDECIDED, Judgement
from blocklab.results.row_result import RowResult
from blocklab.statistics.contrasts import Contrast, Pool, pool_rows
from blocklab.study.claims import MEASURED, ZEROS, AnyClaim, BestClaim, Claim, GainClaim
from blocklab.study.metric import TOP1, Metric

_Over = frozenset[tuple[int, int, int]]  # test batches and images over which zeros were counted


@dataclass(frozen=True)
class TestedRows:
    """A study's rows, and what one run of them varies by in each metric.

    `identical` are sets of rows that compute one function: their runs are counted once. `dropped`
    are rows that it has no more, whose runs say what one run varies by as before; their
    common order is `order` (default: the rows' own).
    """

    rows: Mapping[str, RowResult]
    paired: bool = False
    identical: Sequence[Sequence[str]] = ()
    metric: Metric = TOP1
    dropped: Mapping[str, RowResult] = field(default_factory=dict)
    order: Sequence[str] = ()
    _pools: dict[tuple[str, _Over, bool], Pool] = field(default_factory=dict, repr=False)

    def judge(self, claim: AnyClaim) -> Judgement:
        """Judge a claim; of one that was tested, the word is for a p that is small enough."""
        over = frozenset(one for name in claim.rows for one in _over(self.rows[name]))
        if claim.metric == ZEROS and len(over) > 1:
            why = "zeros were counted over different test images"
            return Judgement(claim.text, UNDECIDED, why)
        if claim.metric != ZEROS:  # dead networks are what zeros are counted for
            lost = [name for name in sorted(claim.rows) if self.rows[name].at_chance]
            if lost:
                return Judgement(claim.text, UNDECIDED, f"{lost[0]} is at chance: it never learned")
        if isinstance(claim, BestClaim):
            return self._judge_best(claim, over)
        weights = self.merged(claim.weights)
        if not weights:
            strict = claim.operator in (">", "<")
            holds = claim.margin < 0 if strict else claim.margin <= 0
            word = SUPPORTED if claim.operator == "==" or holds else CONTRADICTED
            return Judgement(claim.text, word, self._same_bits(claim.rows))
        contrast = self.pool(claim.metric, over).contrast(weights)
        if contrast is None:
            return Judgement(claim.text, UNDECIDED, self._lacking(weights, claim.metric))
        numbers = _numbers(contrast, claim.metric, self.metric)
        if contrast.refusal:
            return Judgement(claim.text, UNDECIDED, f"{numbers}; {contrast.refusal}")
        if claim.operator == "==":
            return _judge_equal(claim, contrast, numbers)
        value = claim.sign * claim.margin
        word = SUPPORTED if claim.sign * (contrast.mean - value) > 0 else CONTRADICTED
        return Judgement(claim.text, word, numbers, contrast.p_against(value))

    def _judge_best(self, claim: BestClaim, over: _Over) -> Judgement:
        found: list[tuple[float, float, str]] = []  # p, how far ahead, and the numbers for it
        refusal = ""  # the first, which leaves the claim undecided whatever the others say
        for other in claim.others:
            weights = self.merged({claim.row: 1.0, other: -1.0})
            contrast = self.pool(claim.metric, over).contrast(weights) if weights else None
            if refusal and contrast is None:
                continue
            if not weights:
                same = self._same_bits({claim.row, other})
                return Judgement(claim.text, CONTRADICTED, f"as {other}: {same}")
            if contrast is None:
                return Judgement(claim.text, UNDECIDED, self._lacking(weights, claim.metric))
            numbers = f"{_numbers(contrast, claim.metric, self.metric)}, to {other}"
            refusal = refusal or contrast.refusal
            found.append((contrast.p_against(0.0), claim.sign * contrast.mean, numbers))
        if refusal:
            _, _, numbers = min(found, key=lambda one: one[1])  # on the best of its rivals it hangs
            of = f", the nearest of {len(found)}" if len(found) > 1 else ""
            return Judgement(claim.text, UNDECIDED, f"{numbers}{of}; {refusal}")
        if better := [one for one in found if one[1] <= 0]:
            p, _, numbers = min(better)
            of = f", the clearest of {len(better)} against it" if len(better) > 1 else ""
            return Judgement(claim.text, CONTRADICTED, f"{numbers}{of}", min(1.0, p * len(found)))
        p, _, numbers = max(found, key=lambda one: (one[0], -one[1]))  # of equal p the nearest
        return Judgement(claim.text, SUPPORTED, f"{numbers}, the least clear of {len(found)}", p)

    def pool(self, metric: str, over: _Over = frozenset(), dropped: bool = True) -> Pool:
        """Return the rows that learned, one for each function, and what one run of them varies by.

        Zeros are of the rows for which they were counted `over` the same images. `dropped`: with
        the rows that the study has no more.
        """
        key = metric, over if metric == ZEROS else frozenset(), dropped
        if key not in self._pools:
            values: dict[str, dict[int, float]] = {}
            rows = {**self.rows, **(self.dropped if dropped else {})}
            for name in dict.fromkeys([*self.order, *rows]):
                if (row := rows.get(name)) is None:
                    continue
                other_images = metric == ZEROS and frozenset(_over(row)) != over
                lost = metric != ZEROS and row.at_chance
                if not other_images and not lost:
                    seeds = values.setdefault(self.first(name), {})
                    seeds |= row.by_seed(self._figure(metric))  # rows of one function share bits
            self._pools[key] = pool_rows(values, paired=self.paired)
        return self._pools[key]

    def _figure(self, metric: str) -> str:
        return self.metric.figure if metric == self.metric.name else MEASURED[metric]

    def first(self, name: str) -> str:
        """Return the first of the rows that compute this one's function."""
        return self._firsts.get(name, name)

    @cached_property
    def _firsts(self) -> dict[str, str]:
        return {name: names[0] for names in reversed(self.identical) for name in names}

    def merged(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Return weights with one row for each function; none where they cancel."""
        merged: dict[str, float] = defaultdict(float)
        for name, weight in weights.items():
            merged[self.first(name)] += weight
        return {name: weight for name, weight in merged.items() if weight}

    def _same_bits(self, names: Iterable[str]) -> str:
        runs = [{run.seed for run in self.rows[name].finished} for name in names]
        seeds = len(set.intersection(*runs))
        of = f"{seeds} shared seed{'s' if seeds > 1 else ''}"
        return f"identical function: same bits on every one of {of}"

    def _lacking(self, names: Iterable[str], metric: str) -> str:
        without = [n for n in names if not self.rows[n].by_seed(self._figure(metric))]
        if without:
            return f"{without[0]} has no finished run with it"
        return "paired by seed, and no seed has finished in every row"


def _judge_equal(claim: Claim | GainClaim, contrast: Contrast, numbers: str) -> Judgement:
    """Two one-sided tests for a gap inside the margins; outside, a test against the nearer one."""
    numbers = f"{numbers}, margin {claim.margin:g}"
    if abs(contrast.mean) > claim.margin:
        p = contrast.p_against(math.copysign(claim.margin, contrast.mean))
        return Judgement(claim.text, CONTRADICTED, numbers, p)
    return Judgement(claim.text, SUPPORTED, numbers, contrast.p_within(claim.margin))


def _over(row: RowResult) -> set[tuple[int, int, int]]:
    return {run.zeros_over for run in row.finished if run.zeros_over is not None}


def _numbers(contrast: Contrast, metric: str, own: Metric) -> str:
    fewest, most = min(contrast.seeds), max(contrast.seeds)
    seeds = f"{most} seed{'' if most == 1 else 's'} each"
    if fewest != most:
        pair = len(contrast.seeds) == 2
        seeds = (
            f"{' and '.join(map(str, contrast.seeds))} seeds" if pair else (f"{fewest} to {seeds}")
        )
    form, unit = f"+.{own.decimals}f", f" {own.difference_unit}".rstrip()
    if metric != own.name:
        form = {"loss": "+.4f", ZEROS: "+,.0f"}.get(metric, form)
        unit = {"loss": "", ZEROS: " zeros"}.get(metric, unit)
    between = "" if contrast.error is None else " (no spread seen)"
    if interval := contrast.interval():
        between = f" [{interval[0]:{form}}, {interval[1]:{form}}]"
    spreads = ", by their own spreads" if contrast.own and interval else ""
    return f"{contrast.mean:{form}}{between}{unit}, {seeds}{spreads}".replace("-", "\u2212")
