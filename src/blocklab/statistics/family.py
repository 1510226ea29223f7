"""All rows of a study against its baseline: one spread, one family of tests, one word a row.

How a study is judged is decided by its residuals alone, before any difference is looked at:

- Spreads as even as rows of one spread show them: Dunnett's test (JASA 50, 1955) with the spread
  pooled over all rows, and his simultaneous intervals.
- Some rows scatter far beyond the others, which are even (see `blocklab.statistics.outlying`):
  Dunnett's test with the spread of the others. A row set apart still counts as one of the tests; it
  is judged by Welch's from five seeds on, and not at all with fewer.
- Uneven spreads otherwise: a difference counts as shown where, of studies in which nothing differs
  and that are made of this one's residuals, at most 4.5 % have one as large (see
  `blocklab.statistics.spread`), and Dunnett's test would show it, and of a row with fewer seeds
  than others that scatter more, Welch's too. With two seeds nothing is shown.
  From five on, very uneven rows are judged by Welch's t test with Bonferroni's correction instead;
  where seeds are blocks, all uneven ones are by the paired t test.

The interval of a difference excludes 0 just where its verdict is better or worse.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from blocklab.statistics.judging import (
    FEWEST_SEEDS,
    RESAMPLED_SHARE,
    Judged,
    Method,
    Test,
    judge_rows,
)
from blocklab.statistics.spread import RESAMPLED
from blocklab.statistics.summary import ALPHA, UNBOUNDED, finite

BETTER, WORSE = "better", "worse"
AS_GOOD, NOT_WORSE = "as good", "not worse"  # of a study with a margin, by `with_margin`
NOT_SHOWN, TOO_FEW = "no difference shown", "too few seeds"
AT_CHANCE = "at chance"  # it never learned: nothing to test
BASELINE_AT_CHANCE = "baseline at chance"  # which never learned: nothing to compare with
SAME = "identical function"  # not of a test


@dataclass(frozen=True)
class Difference:
    """A row's mean minus the baseline's.

    `low` and `high` hold for all rows of the study at once; they and the p values are None where
    the row was not tested, or no spread was seen. `p` is that of the verdict, adjusted for all
    rows; `p_alone` what it is before that. `values` are the differences a
    seed, of a study that is paired by seed.
    """

    mean: float
    n: int  # seeds of the row
    n_baseline: int
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_alone: float | None = None
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """What a study says of one row against its baseline.

    `word` is one of `better`, `worse`, `no difference shown`, `too few seeds`, `at chance`,
    `baseline at chance` and `identical function`, and of a study with a margin `as good` and
    `not worse`; `reason` says what a reader cannot see from the
    numbers.
    """

    word: str
    reason: str = ""
    difference: Difference | None = None

    @property
    def p(self) -> float | None:
        """Adjusted for all rows that were tested; None where it was not."""
        return self.difference.p if self.difference else None


@dataclass(frozen=True)
class Family:
    """A study's rows against its baseline.

    Attributes:
        method: `pooled`; `uneven`, against studies made of residuals; `own`, each row by its own
            spread; or `none` where nothing could be tested.
        comparisons: a verdict a row.
        paired: whether seeds were taken as blocks.
        sd: of one run, pooled over rows but those apart; of what seeds leave, where they are
            blocks.
        df: its degrees of freedom.
        rows: how many were tested together, those apart among them.
        critical: the t that a difference must pass, by Welch's test that of two rows with the
            fewest seeds and even spreads; None of `none`.
        stretch: `critical` over that of Dunnett's test of the same rows: 1 where spreads are even.
        unevenness_p: how often rows of one spread look as uneven as these, those apart left out;
            None of `none`.
        seeds: the fewest that a tested row or the baseline has.
        margin: the difference that begins to matter; None of a study that names none.
        apart: rows that scatter far beyond the others, if those are even.
        absent: how many of `rows` left no runs to test.
    """

    method: Method
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    paired: bool = False
    sd: float | None = None
    df: int = 0
    rows: int = 0
    critical: float | None = None
    stretch: float = 1.0
    unevenness_p: float | None = None
    seeds: int = 0
    alpha: float = ALPHA
    apart: tuple[str, ...] = ()
    margin: float | None = None
    absent: int = 0

    def of_rows(self, rows: Collection[str]) -> "Family":
        """Return it with the verdicts of these rows alone; the tests stay those of all."""
        kept = {row: one for row, one in self.comparisons.items() if row in rows}
        return replace(self, comparisons=kept)

    @property
    def open_rows(self) -> int:
        """How many rows are compared, tested yet or not: all but those that need no test."""
        return sum(one.word not in (SAME, AT_CHANCE) for one in self.comparisons.values())

    @property
    def sentences(self) -> tuple[str, ...]:
        """How the verdicts were reached, in words."""
        if self.sd is None or self.unevenness_p is None:
            return ()
        if self.margin is None:
            return self._of_differences
        return (
            *self._of_differences,
            f"As good is a row whose interval lies within {self.margin:g} of the baseline, not "
            "worse one whose interval ends above that; of any row, one of these words or better "
            "or worse is wrong in about 5 % of studies, or fewer.",
        )

    @property
    def _of_differences(self) -> tuple[str, ...]:
        assert self.sd is not None and self.unevenness_p is not None
        rows = f"{self.rows} row{'s' if self.rows > 1 else ''}"
        spread = f"SD {self.sd:.3g} of one run, {self.df} degrees of freedom"
        if self.paired:
            spread += ", what a seed does to every row taken out"
        guard = f"spreads as uneven as these come up in {100 * self.unevenness_p:.0f} % of studies"
        if self.method == "pooled":
            over = "the others" if self.apart else "all rows"
            return (
                *self._of_rows_apart,
                f"Dunnett's test of {rows} with the spread pooled over {over} ({spread}).",
                f"It may be used here: {guard} whose rows have one spread.",
            )
        differ = (
            f"The rows' spreads differ ({spread}): {guard} whose rows have one spread, so "
            "Dunnett's test with a pooled spread is not used."
        )
        if not self.rows:
            return (differ, "Two seeds say too little of each row's own spread: three or more.")
        # Of rows that are not here nothing could be drawn: each takes its share of alpha.
        held = 100 * (1 - RESAMPLED_SHARE * self.alpha * (1 - self.absent / self.rows))
        if self.method == "own":
            how = "Welch's test by its own spread and the baseline's"
            if self.paired:
                how = "Student's test of its own differences from the baseline, seed by seed"
            return (differ, f"Each row is judged by {how}, corrected by Bonferroni for {rows}.")
        return (
            differ,
            f"Instead, {RESAMPLED:,} studies in which nothing differs are made up: each of their "
            "rows draws its seeds from how far those of one row here lay from that row's mean.",
            f"A row's difference counts as shown where at least {held:.3g} % of those studies have "
            f"none as large (of {rows}, in units of the spread) and Dunnett's test shows it too"
            f"{self._of_fewer_seeds}.",
        )

    @property
    def _of_fewer_seeds(self) -> str:
        gaps = [one.difference for one in self.comparisons.values()]
        tested = [gap for gap in gaps if gap and gap.p is not None]
        if len({n for gap in tested for n in (gap.n, gap.n_baseline)}) < 2:
            return ""
        which = "of a row with fewer seeds than another or the baseline"
        return f"; {which}, whose seeds scatter more, Welch's test as well"

    @property
    def _of_rows_apart(self) -> tuple[str, ...]:
        if not self.apart:
            return ()
        one = len(self.apart) == 1
        shown = self.comparisons  # not of rows that were dropped
        judged = [name for name in self.apart if name in shown and shown[name].p is not None]
        own = "judged by Welch's test and" if judged else "not judged, but"
        if 0 < len(judged) < len(self.apart):
            own = f"{', '.join(judged)} judged by Welch's test, the others not; all"
        return (
            f"{', '.join(self.apart)}: set apart, for {'its' if one else 'their'} seeds scatter "
            f"far beyond those of the others; {own} still counted among the rows tested.",
        )


def compare_rows(
    values: Mapping[str, Mapping[int, float]],
    baseline: str,
    *,
    identical: Collection[str] = (),
    twins: Mapping[str, str] | None = None,
    at_chance: Collection[str] = (),
    paired: bool = False,
    bounds: tuple[float, float] = UNBOUNDED,
    higher_is_better: bool = True,
    alpha: float = ALPHA,
    more_rows: int = 0,
) -> Family:
    """Return a verdict for each row but the baseline.

    Args:
        values: a figure of each row, by seed; the baseline among them.
        baseline: the row that the others are compared with.
        identical: rows that compute the baseline's function: named so, and not tested.
        twins: rows that compute another row's function, each with that row, which has its seeds
            too. They are one row to the test, and have one verdict.
        at_chance: rows that never learned, of which none is tested; if the baseline is one, no row
            is.
        paired: take out what a seed does to every row, over the seeds that all rows have.
        bounds: what a difference can be; intervals are cut there.
        higher_is_better: which sign is `better`.
        alpha: how often a study without a difference may call any row better or worse.
        more_rows: how many rows that are not among `values` were compared too, and count as tests.

    Raises:
        ValueError: if a value is not a finite number.
    """
    twins = {row: first for row, first in (twins or {}).items() if row not in identical}
    untested = {*identical, *at_chance, *twins}
    usable = {row: dict(by_seed) for row, by_seed in values.items() if by_seed}
    for row, first in twins.items():  # one function's seeds, whichever row trained them
        usable[first] = {**usable.get(row, {}), **usable.get(first, {})}
    for by_seed in usable.values():
        finite(list(by_seed.values()))
    plain = {
        row: _difference(usable[row], usable[baseline], paired)
        for row in values
        if row != baseline and row in usable and baseline in usable
    }
    tested = [
        row
        for row, gap in plain.items()
        if gap and gap.n >= FEWEST_SEEDS <= gap.n_baseline and row not in untested
    ]
    if baseline in at_chance:
        tested = []
    rows = _rows(usable, [baseline, *tested], paired) if tested else []
    judged = Judged("none")
    if rows:
        judged = judge_rows(rows, tested, paired=paired, alpha=alpha, more=more_rows)
    found: dict[str, Comparison] = {}
    for row in values:
        if row == baseline or row in twins:
            continue
        gap = plain.get(row)
        if row in at_chance:
            reason = "no better on its own training images than the commonest class"
            found[row] = Comparison(AT_CHANCE, reason, gap)
        elif row in identical:
            found[row] = Comparison(
                SAME, "same bits on every seed", _over_shared(usable, row, baseline)
            )
        elif gap is None:
            found[row] = Comparison(TOO_FEW, _nothing_shared(paired, baseline in usable))
        elif baseline in at_chance:
            found[row] = Comparison(BASELINE_AT_CHANCE, "the baseline never learned", gap)
        elif row not in judged.tests:
            found[row] = Comparison(TOO_FEW, judged.refusals.get(row) or _few(gap, paired), gap)
        else:
            test, pooled = judged.tests[row], judged.method == "pooled"
            found[row] = _compared(test, gap, bounds, higher_is_better, alpha if pooled else 0.0)
    return Family(
        judged.method,
        {row: found[twins.get(row, row)] for row in values if row != baseline},
        paired,
        judged.sd,
        judged.df,
        judged.rows,
        judged.critical,
        judged.stretch,
        judged.unevenness_p,
        judged.seeds,
        alpha,
        judged.apart,
        absent=more_rows if judged.rows else 0,
    )


def _compared(
    test: Test,
    plain: Difference,
    bounds: tuple[float, float],
    higher_is_better: bool,
    alone_below: float,
) -> Comparison:
    if test.half is None:
        reason = "no seed of any row differs from another: no spread to test against"
        return Comparison(NOT_SHOWN, reason, plain)
    low, high = test.mean - test.half, test.mean + test.half
    gap = Difference(
        test.mean,
        *test.seeds,
        max(low, bounds[0]),
        min(high, bounds[1]),
        test.p,
        test.p_alone,
        plain.values,
    )
    if low <= 0 <= high:
        alone = test.p_alone is not None and test.p_alone < alone_below
        reason = "shown before the correction for so many rows, not after" if alone else ""
        return Comparison(NOT_SHOWN, reason, gap)
    return Comparison(BETTER if (low > 0) == higher_is_better else WORSE, "", gap)


def _difference(
    ours: Mapping[int, float], theirs: Mapping[int, float], paired: bool
) -> Difference | None:
    if not paired:
        mean = math.fsum(ours.values()) / len(ours) - math.fsum(theirs.values()) / len(theirs)
        return Difference(mean, len(ours), len(theirs))
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        return None
    gaps = tuple(float(ours[seed] - theirs[seed]) for seed in shared)
    return Difference(math.fsum(gaps) / len(gaps), len(gaps), len(gaps), values=gaps)


def _over_shared(
    usable: Mapping[str, Mapping[int, float]], row: str, baseline: str
) -> Difference | None:
    """Return the difference over the seeds that both have: that of others is not the row's."""
    ours, theirs = usable.get(row, {}), usable.get(baseline, {})
    shared = sorted(ours.keys() & theirs.keys())
    of_both = [{seed: values[seed] for seed in shared} for values in (ours, theirs)]
    return _difference(of_both[0], of_both[1], paired=False) if shared else None


def _rows(
    usable: Mapping[str, Mapping[int, float]], names: list[str], paired: bool
) -> list[list[float]]:
    if not paired:
        return [[usable[name][seed] for seed in sorted(usable[name])] for name in names]
    shared = sorted(set.intersection(*(set(usable[name]) for name in names)))
    if len(shared) < FEWEST_SEEDS:
        return []
    return [[usable[name][seed] for seed in shared] for name in names]


def _nothing_shared(paired: bool, has_baseline: bool) -> str:
    if not has_baseline:
        return "no run of the baseline has finished"
    return "shares no finished seed with the baseline" if paired else "no run has finished"


def _few(gap: Difference, paired: bool) -> str:
    if paired and min(gap.n, gap.n_baseline) >= FEWEST_SEEDS:
        return "paired by seed, and no two seeds have finished in every row"
    which = "of the row" if gap.n < FEWEST_SEEDS else "of the baseline"
    return f"one seed {which} has no spread to test against"
