"""Claims: read strictly, judged by tests called directly, and never ranked where bits are equal."""

import gc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_ind

from blocklab.errors import InputError
from blocklab.results.ended_run import EndedRun
from blocklab.results.judgements import judge_together
from blocklab.results.row_result import RowResult
from blocklab.results.study_results import StudyResults
from blocklab.study.claims import BestClaim, Claim, GainClaim, parse_claim
from blocklab.training.predictions import PerImage

ROWS = ("base", "avg,max", "w/o RepLK", "a > b", "in top1", "x by 3", "x - 1")


def row(
    name: str,
    values: list[float],
    bits: object = None,
    zeros: list[int] | None = None,
    last_batch: int = 40,
    **fields: object,
) -> RowResult:
    runs = []
    for seed, value in enumerate(values):
        result = {"status": "finished", "epochs": 1, "test_top1_percent": value}
        result |= {"test_top5_percent": value + 20, "test_loss": value / 10}
        run = EndedRun(f"{name}{seed}", seed, Path("runs") / f"{name}{seed}", {}, [], result)
        images = None
        if bits is not None:
            correct = np.random.default_rng(seed).random(20) < 0.5
            images = PerImage(correct, ((str(bits), seed, 0),), 1)
        run.__dict__["per_image"] = images
        if zeros is not None:
            last = {"zero_percent": 50.0, "zeros": zeros[seed]}
            over = {"first_batch": 30, "last_batch": last_batch, "images": 2576}
            object.__setattr__(run, "diagnosis", over | {"last_block": last})
        runs.append(run)
    given = {"macs": 2_000_000_000, "params": 16_000_000, "input_size": 224} | fields
    return RowResult(name, {}, runs=tuple(runs), planned_seeds=tuple(range(len(values))), **given)  # type: ignore[arg-type]


def study(*rows: RowResult, claims: tuple[str, ...]) -> StudyResults:
    return StudyResults("t", "", {}, {}, "r", (0, 1, 2), (), rows[0].name, rows, claims=claims)


def words(*rows: RowResult, claims: tuple[str, ...]) -> list[str]:
    return [one.word for one in study(*rows, claims=claims).judgements]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("base > avg,max", Claim("", "base", ">", "avg,max")),
        ("base > avg,max in top5", Claim("", "base", ">", "avg,max", "top5")),
        ("  base   <  avg,max   by 0.5  in  top1 ", Claim("", "base", "<", "avg,max", "top1", 0.5)),
        ("w/o RepLK < base in macs", Claim("", "w/o RepLK", "<", "base", "macs")),
        ("base == avg,max", Claim("", "base", "==", "avg,max", "top1", 0.5)),
        ("base == avg,max within 0.2", Claim("", "base", "==", "avg,max", "top1", 0.2)),
        ("base == avg,max in params", Claim("", "base", "==", "avg,max", "params")),
        ('"a > b" > base', Claim("", "a > b", ">", "base")),
        ("base > 'in top1' in top5", Claim("", "base", ">", "in top1", "top5")),
        ("\"x by 3\" > 'avg,max'", Claim("", "x by 3", ">", "avg,max")),
        ("base > avg,max by 1e-1", Claim("", "base", ">", "avg,max", "top1", 0.1)),
        ("base < avg,max in loss", Claim("", "base", "<", "avg,max", "loss")),
        ("base >= avg,max - 0.5", Claim("", "base", ">=", "avg,max", "top1", -0.5)),
        ("base >= avg,max + 1 in top5", Claim("", "base", ">=", "avg,max", "top5", 1.0)),
        ("base <= avg,max + .5", Claim("", "base", "<=", "avg,max", "top1", -0.5)),
        ("base <= avg,max by 1", Claim("", "base", "<=", "avg,max", "top1", 1.0)),
        ("base > avg,max - 1", Claim("", "base", ">", "avg,max", "top1", -1.0)),
        ("base >= x - 1", Claim("", "base", ">=", "x - 1")),  # a row's name
        ("base >= 'x - 1' - 1", Claim("", "base", ">=", "x - 1", "top1", -1.0)),
    ],
)
def test_claims_are_read(text: str, expected: Claim) -> None:
    assert parse_claim(text, ROWS) == replace(expected, text=text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bsae > avg,max", "no row 'bsae'; did you mean 'base'?"),
        ("base > nothing", "no row 'nothing'. Rows: base,"),
        ("base beats avg,max", "is no claim"),
        ("base>avg,max", "is no claim"),
        ("base >> avg,max", "is no claim"),
        ("base >= avg,max within 1", "'by' goes with >, <, >= and <="),
        ("base >= avg,max - 0.5 by 1", "an offset or 'by', not both"),
        ("base == avg,max - 0.5", "'within' with =="),
        ("base >= avg,max - 0.5x", "the offset '0.5x' is not a number"),
        ("base >= nothing - 0.5", "no row 'nothing'. Rows"),
        ("", "is no claim"),
        ("base >", "is no claim"),
        ("base > avg,max in top3", "no metric 'top3'; did you mean 'top5'?"),
        ("base > base", "with itself"),
        ("base > avg,max within 1", "'by' goes with"),
        ("base == avg,max by 1", "'by' goes with"),
        ("base > avg,max by much", "the margin 'much' is not a number"),
        ("base > avg,max by -1", "the margin '-1' is not"),
        ("base > avg,max by nan", "the margin 'nan' is not"),
        ("base > avg,max by inf", "the margin 'inf' is not"),
        ("base == avg,max within 0", "no runs can show two means to be equal within 0"),
        ("base == avg,max within 0.0 in loss", "equal within 0; give a margin"),
        ("base == avg,max in loss", "add 'within'"),
        ("a > b > base", "names no row 'a'"),
        ("base == avg,max in zeros", "add 'within'"),
        ("base best of base, 'x by 3'", "compares 'base' with itself"),
        ("base best of 'x by 3', 'x by 3'", "names 'x by 3' twice"),
        ("base best of 'avg,max' 'x by 3'", "with commas between"),
        ("base best of al", "no row 'al'"),
        ("base best of all in top3", "has no metric 'top3'"),
        ("gain('x by 3') > gain('avg,max')", "there is no baseline"),
        ("gain(base) > much * gain('avg,max')", "is no claim"),
        ("gain(base) > 1.2.3 * gain('avg,max')", "the factor '1.2.3' is not a number"),
    ],
)
def test_what_is_no_claim_is_refused_with_the_remedy(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_claim(text, ROWS)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


ALL = ROWS[1:]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("base best of all", BestClaim("", "base", "best", ALL)),
        ("base worst of all in macs", BestClaim("", "base", "worst", ALL, "macs")),
        (
            'base best of "avg,max", w/o RepLK in top5',
            BestClaim("", "base", "best", ALL[:2], "top5"),
        ),
        ("'x by 3' best of base", BestClaim("", "x by 3", "best", ("base",))),
        (
            'gain(w/o RepLK) > 0.5 * gain("a > b")',
            GainClaim("", "w/o RepLK", ">", ((0.5, "a > b"),), "base"),
        ),
        (
            'gain( w/o RepLK ) < gain("a > b") + 2 * gain("avg,max") by 1 in loss',
            GainClaim(
                "", "w/o RepLK", "<", ((1, "a > b"), (2, "avg,max")), "base", "loss", 1.0, True
            ),
        ),
        (
            "gain(w/o RepLK) >= gain('avg,max') - 0.5",
            GainClaim("", "w/o RepLK", ">=", ((1, "avg,max"),), "base", "top1", -0.5),
        ),
        (
            'gain(w/o RepLK) == gain("a > b")',
            GainClaim("", "w/o RepLK", "==", ((1, "a > b"),), "base", "top1", 0.5),
        ),
    ],
)
def test_claims_of_the_best_and_of_gains_are_read(
    text: str, expected: BestClaim | GainClaim
) -> None:
    assert parse_claim(text, ROWS, "base") == replace(expected, text=text)


def test_the_baseline_gains_nothing() -> None:
    with pytest.raises(InputError, match="'base' is the baseline, whose gain is 0"):
        parse_claim("gain(w/o RepLK) > gain(base)", ROWS, "base")


def test_a_long_hostile_claim_is_refused_at_once() -> None:
    for text in (
        "a " * 5000 + "> " * 5000,
        "a best of " * 3000,
        "gain(a) > " + "gain(a) + " * 3000,
    ):
        with pytest.raises(InputError):
            parse_claim(text, ROWS, "base")


UP = [62.0, 62.2, 61.9, 62.1]
BASE = [60.0, 60.1, 60.05, 59.95]
NEAR = [60.02, 60.08, 60.09, 59.93]
EVEN = [60.62, 60.7, 60.55, 60.57]  # as much spread as the baseline's
NOISE = [61.5, 58.7, 60.9, 59.0]


def test_greater_and_less_by_a_margin() -> None:
    rows = (row("base", BASE), row("up", UP), row("noise", NOISE))
    claims = {
        "up > base": "supported",
        "up >= base + 1.5": "supported",
        "base >= up - 3": "supported",
        "base >= up - 1": "contradicted",
        "base <= up - 1.5": "supported",
        "up <= base + 1.5": "contradicted",
        "base > up": "contradicted",
        "up < base in top5": "contradicted",
        "base < up": "supported",
        "up > base by 1.5": "supported",
        "up > base by 3": "contradicted",
        "base < up by 3": "contradicted",
        "up > base by 2": "undecided",
        "base < up by 2": "undecided",
        "noise > base": "undecided",
        "up > base in loss": "supported",
    }
    assert words(*rows, claims=tuple(claims)) == list(claims.values())


def contrast_of(weights: Mapping[str, float], **groups: list[float]) -> Any:
    """The same contrast by statsmodels' least squares, one column a row."""
    names = [name for name, group in groups.items() for _ in group]
    columns = np.array([[name == row for row in groups] for name in names], dtype=float)
    fitted = OLS(np.concatenate(list(groups.values())), columns).fit()
    return fitted.t_test([weights.get(row, 0.0) for row in groups])


def t_test(ours: list[float], theirs: list[float], equal_var: bool = True) -> Any:
    return stats.ttest_ind(ours, theirs, equal_var=equal_var)


def test_rows_of_one_spread_are_judged_by_all_of_it() -> None:
    third = [60.4, 60.5, 60.25]
    rows = (row("base", BASE), row("up", UP), row("third", third))
    claims = ("up > base by 1.5", "third >= base - 0.5", "gain(third) > 0.5 * gain(up)")
    judged = study(*rows, claims=claims).judgements
    groups = {"base": BASE, "up": UP, "third": third}
    found = [
        contrast_of(weights, **groups)
        for weights in ({"up": 1, "base": -1}, {"third": 1, "base": -1})
    ]
    half = contrast_of({"third": 1, "up": -0.5, "base": -0.5}, **groups)
    df, errors = 8, [float(one.sd[0, 0]) for one in (*found, half)]
    means = [float(one.effect[0]) for one in (*found, half)]
    t = [(mean - at) / error for mean, at, error in zip(means, (1.5, -0.5, 0), errors, strict=True)]
    expected = (2 * stats.t.sf(np.abs(t), df)).tolist()
    assert [one.p for one in judged] == pytest.approx(expected)
    adjusted = np.asarray(multipletests(expected, method="holm")[1])
    assert [one.p_holm for one in judged] == pytest.approx(adjusted.tolist())
    low, high = found[0].conf_int()[0]
    assert judged[0].numbers == f"{means[0]:+.2f} [{low:+.2f}, {high:+.2f}] points, 4 seeds each"
    assert "4 and 3 seeds" in study(*rows, claims=("up > third",)).judgements[0].numbers
    assert "3 to 4 seeds each" in judged[2].numbers


def test_uneven_rows_are_judged_by_their_own_spreads() -> None:
    rows = (row("base", BASE), row("up", UP), row("noise", NOISE))
    claims = ("up > base by 1.5", "noise > base", "noise == up within 0.5")
    judged = study(*rows, claims=claims).judgements
    welch = [
        t_test(np.subtract(UP, 1.5).tolist(), BASE, equal_var=False),
        t_test(NOISE, BASE, equal_var=False),
        t_test(np.add(NOISE, 0.5).tolist(), UP, equal_var=False),  # against the nearer margin
    ]
    expected = [float(one.pvalue) for one in welch]
    assert [one.p for one in judged] == pytest.approx(expected)
    low, high = welch[0].confidence_interval()
    assert judged[0].numbers == (
        f"+2.02 [{low + 1.5:+.2f}, {high + 1.5:+.2f}] points, 4 seeds each, by their own spreads"
    )
    two = (row("base", BASE[:2]), row("up", UP[:2]), row("noise", NOISE[:2]), row("e", [60, 60.01]))
    (one,) = study(*two, claims=("up > base",)).judgements
    assert (one.word, one.p) == ("undecided", None)
    assert one.numbers.endswith("the rows' spreads differ, and two seeds say too little of each")


def test_a_paired_study_takes_out_what_a_seed_does_to_every_row() -> None:
    noise = np.random.default_rng(0).normal(60, 0.1, (4, 4))
    own = dict(zip(("base", "up", "near", "more"), noise, strict=True))
    own["up"] = own["up"] + 0.5
    seeds = np.array([0.0, 3.0, -2.0, 1.0])
    groups = {name: values + seeds for name, values in own.items()}
    rows = [row(name, values.tolist()) for name, values in groups.items()]
    rows[-1] = row("more", [*groups["more"].tolist(), 99.0])  # a seed that the others lack
    made = study(*rows, claims=("up > near",))
    judged = replace(made, paired=True).judgements[0]
    # two-way: what rows' and seeds' means leave
    table = np.array(list(groups.values()))
    left = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    error = ((left**2).sum() / 9 * 2 / 4) ** 0.5
    t = (groups["up"].mean() - groups["near"].mean()) / error
    assert judged.p == pytest.approx(2 * stats.t.sf(t, 9))
    assert judged.word == "supported"
    assert made.judgements[0].word == "undecided"


def test_twins_count_once() -> None:
    rows = (row("base", BASE, bits=0), row("elu", EVEN, bits=1), row("celu", EVEN, bits=1))
    judged = study(*rows, claims=("elu > base", "gain(elu) < gain(celu) + 1")).judgements
    alone = study(*rows[:2], claims=("elu > base",)).judgements
    assert judged[0].p == pytest.approx(t_test(EVEN, BASE).pvalue)
    assert judged[0].numbers == alone[0].numbers
    assert (judged[1].word, judged[1].p) == ("supported", None)  # 0 is less than 1, by bits


def test_a_row_that_never_learned_is_not_judged() -> None:
    lost = row("lost", [1.0, 1.1, 0.9, 1.2])
    for run in lost.runs:
        run.result["at_chance"] = True
    rows = (row("base", BASE), row("up", EVEN), lost)
    judged = study(*rows, claims=("up > lost", "up best of all", "up > base")).judgements
    said = "lost is at chance: it never learned"
    assert [one.numbers for one in judged[:2]] == [said, said]
    assert judged[2].p == pytest.approx(t_test(EVEN, BASE).pvalue)  # nor is it in the pool


def test_equality_is_two_one_sided_tests() -> None:
    rows = (row("base", BASE), row("near", NEAR), row("up", UP), row("noise", NOISE))
    claims = {
        "near == base": "supported",
        "near == base within 0.01": "undecided",
        "up == base": "contradicted",
        "noise == base": "undecided",
    }
    judged = study(*rows, claims=tuple(claims)).judgements
    assert [one.word for one in judged] == list(claims.values())
    near, base = np.array(NEAR), np.array(BASE)
    assert judged[0].p == pytest.approx(ttost_ind(near, base, -0.5, 0.5, usevar="unequal")[0])
    even = study(*rows[:2], claims=("near == base",)).judgements[0]
    assert even.p == pytest.approx(ttost_ind(near, base, -0.5, 0.5)[0])
    assert "margin 0.5" in judged[0].numbers


def test_the_same_bits_are_equal_and_never_more() -> None:
    rows = (row("elu", BASE, bits=1), row("celu", BASE, bits=1), row("relu", UP, bits=2))
    claims = ("celu == elu", "celu > elu", "elu < celu in top5", "relu == elu")
    judged = study(*rows, claims=claims).judgements
    assert [one.word for one in judged] == [
        "supported",
        "contradicted",
        "contradicted",
        "contradicted",
    ]
    assert judged[0].numbers == "identical function: same bits on every one of 4 shared seeds"
    assert judged[0].p is None


def test_costs_are_compared_as_counted() -> None:
    small = row("small", [], macs=2_000_000_000, params=16_000_000)
    large = row("large", [], macs=2_500_000_000, params=16_000_000)
    claims = {
        "small < large in macs": "supported",
        "large < small in macs": "contradicted",
        "large > small by 0.4 in macs": "supported",
        "large > small by 0.6 in macs": "contradicted",
        "small == large in params": "supported",
        "small > large in params": "contradicted",
        "small == large within 1 in macs": "supported",
        "small == large in macs": "contradicted",
        "small >= large in params": "supported",
        "small > large - 0.5 in macs": "contradicted",
        "small >= large - 0.5 in macs": "supported",
        "large <= small + 0.5 in macs": "supported",
        "large <= small + 0.4 in macs": "contradicted",
    }
    judged = study(small, large, claims=tuple(claims)).judgements
    assert [one.word for one in judged] == list(claims.values())
    assert judged[0].numbers == "2.000 against 2.500 G, counted"
    other = row("large", [], macs=3_000_000_000, input_size=32)
    assert words(small, other, claims=("small < large in macs",)) == ["undecided"]


def test_counts_are_shown_with_the_digits_that_decide() -> None:
    rows = [
        row(name, [], macs=macs)
        for name, macs in {
            "a": 10_120_000,
            "b": 10_130_000,
            "c": 11_230_000,
            "d": 4_089_100_000,
            "e": 4_089_400_000,
            "f": 4_588_900_000,
        }.items()
    ]
    claims = {
        "a < b in macs": ("supported", "0.01012 against 0.01013 G, counted"),
        "a == c within 0.001 in macs": ("contradicted", "0.01012 against 0.01123 G, counted"),
        "d < e in macs": ("supported", "4.0891 against 4.0894 G, counted"),
        "d > e in macs": ("contradicted", "4.0891 against 4.0894 G, counted"),
        "f > d by 0.5 in macs": ("contradicted", "4.5889 against 4.0891 G, counted"),
        "f > d by 0.4 in macs": ("supported", "4.589 against 4.089 G, counted"),
        "d == d2 in macs": ("supported", "4.089 against 4.089 G, counted"),
        "d best of e, f in macs": ("supported", "4.0891 against 4.0894 G, of e, counted"),
        # fewer is better, so a gain is how many fewer: as of losses
        "gain(d) > gain(e) in macs": ("supported", "0.4998 against 0.4995 G, counted"),
    }
    same = row("d2", [], macs=4_089_100_000)
    made = replace(study(*rows, same, claims=tuple(claims)), baseline="f")
    assert [(one.word, one.numbers) for one in made.judgements] == list(claims.values())


def test_who_may_be_best_is_compared_with_the_nearest() -> None:
    means = {"base": 60.0, "near": 64.9, "up": 65.0, "low": 59.0}
    one_seed = [row(name, [mean]) for name, mean in means.items()]
    (judged,) = study(*one_seed, claims=("up best of all",)).judgements
    assert judged.word == "undecided" and judged.numbers == (
        "+0.10 points, 1 seed each, to near, the nearest of 3; one seed of up shows no spread"
    )
    (judged,) = study(*one_seed, claims=("near best of all",)).judgements
    assert judged.numbers.startswith("\u22120.10 points, 1 seed each, to up, the nearest of 3;")
    (judged,) = study(*one_seed[:2], claims=("near best of base",)).judgements
    assert judged.numbers == "+4.90 points, 1 seed each, to base; one seed of near shows no spread"
    no_spread = [row(name, [mean, mean]) for name, mean in means.items()]
    (judged,) = study(*no_spread, claims=("up best of all",)).judgements
    assert judged.word == "undecided" and "to near, the least clear of 3" in judged.numbers


def test_too_little_to_judge_is_undecided_and_says_why() -> None:
    rows = (row("base", [60.0]), row("up", [65.0]), row("none", []), row("flat", [61.0, 61.0]))
    claims = ("up > base", "none > base", "gone > base", "nonsense")
    judged = study(*rows, claims=claims).judgements
    assert [one.word for one in judged] == ["undecided"] * 4
    for one, said in zip(
        judged, ("shows no spread", "no finished run", "names no row", "is no"), strict=True
    ):
        assert said in one.numbers
    equal = (row("base", [60.0, 60.0]), row("up", [61.0, 61.0]))
    claims = ("up > base", "up == base", "up == base within 2")
    assert words(*equal, claims=claims) == ["undecided"] * 3  # no spread to test against


def test_the_best_is_better_than_each_of_the_others() -> None:
    rows = (row("base", BASE), row("up", UP), row("near", NEAR), row("noise", NOISE))
    claims = {
        "up best of base, near": "supported",
        "up best of all in top5": "undecided",  # noise is not shown to be worse
        "base best of up, near": "contradicted",
        "base best of all": "contradicted",
        "base worst of up": "supported",
        "up worst of all": "contradicted",
        "base best of up in loss": "supported",  # the lower loss
        "near best of base": "undecided",
    }
    judged = study(*rows, claims=tuple(claims)).judgements
    assert [one.word for one in judged] == list(claims.values())
    over_base, over_near = (t_test(UP, other, equal_var=False).pvalue for other in (BASE, NEAR))
    assert judged[0].p == pytest.approx(max(over_base, over_near))
    assert judged[0].numbers.endswith("the least clear of 2")
    assert judged[2].p == pytest.approx(2 * over_base)  # one of two others is shown to be better
    assert judged[2].numbers.endswith(", to up, the clearest of 2 against it")


def test_the_best_by_bits_by_counts_and_by_too_little() -> None:
    rows = (
        row("elu", BASE, bits=1, macs=3_000_000_000),
        row("celu", BASE, bits=1, macs=2_000_000_000),
        row("one", [70.0], macs=2_500_000_000),
        row("none", [], macs=2_000_000_000),
    )
    claims = {
        "elu best of celu": ("contradicted", "as celu: identical function"),
        "elu best of none": ("undecided", "none has no finished run"),
        "one best of elu": ("undecided", "shows no spread"),
        "elu worst of all in macs": ("supported", "3.000 against 2.500 G, of one, counted"),
        "elu best of all in macs": ("contradicted", "2.000 G"),
        "celu best of all in macs": ("contradicted", "2.000 G, of none"),  # it costs the same
        "celu best of elu, one in macs": ("supported", "2.500 G, of one"),
    }
    judged = study(*rows, claims=tuple(claims)).judgements
    assert [one.word for one in judged] == [word for word, _ in claims.values()]
    for one, (_, said) in zip(judged, claims.values(), strict=True):
        assert said in one.numbers
    other = row("other", [], macs=1, input_size=32)
    assert words(rows[0], other, claims=("elu best of other in macs",)) == ["undecided"]


def test_gains_are_sums_of_rows_means() -> None:
    half = [61.0, 61.15, 60.95, 61.05]
    rows = (row("base", BASE), row("up", UP), row("half", half))
    claims = {
        "gain(half) > 0.3 * gain(up)": "supported",
        "gain(half) > 0.9 * gain(up)": "contradicted",
        "gain(half) > 0.5 * gain(up)": "undecided",
        "gain(up) > gain(half) in top5": "supported",
        "gain(half) < gain(up) by 0.5": "supported",
        "gain(half) >= gain(up) - 1.5": "supported",
        "gain(half) == 0.5 * gain(up) within 0.3": "supported",
    }
    judged = study(*rows, claims=tuple(claims)).judgements
    assert [one.word for one in judged] == list(claims.values())
    found = contrast_of({"half": 1, "up": -0.9, "base": -0.1}, base=BASE, up=UP, half=half)
    assert judged[1].p == pytest.approx(float(found.pvalue))
    more = study(*rows, row("both", NOISE), claims=("gain(both) < gain(up) + gain(half)",))
    assert more.judgements[0].word == "supported"
    parts = [np.var(group, ddof=1) / 4 for group in (NOISE, BASE, UP, half)]  # weights 1 and -1
    df = sum(parts) ** 2 / sum(part**2 / 3 for part in parts)
    gap = np.mean(NOISE) + np.mean(BASE) - np.mean(UP) - np.mean(half)
    assert more.judgements[0].p == pytest.approx(2 * stats.t.sf(-gap / sum(parts) ** 0.5, df))


def test_where_seeds_are_blocks_a_row_of_one_seed_takes_none_from_the_others() -> None:
    """It has no verdict either; those of the others are tested over the seeds that they share."""
    plain = [90.0, 90.3, 89.7, 90.1, 89.8]
    more = [value + 1 + e for value, e in zip(plain, (0.05, -0.05, 0.02, 0.0, -0.03), strict=True)]
    rows = [row("plain", plain), row("a", more), row("b", plain[::-1])]
    claims = ("a > plain", "a > b", "a best of b")
    whole = replace(study(*rows, claims=claims), paired=True)
    part = replace(study(*rows, row("d", [90.2]), claims=(*claims, "d > plain")), paired=True)
    assert [one.word for one in whole.judgements] == ["supported"] * 3
    assert [one.p for one in part.judgements[:3]] == [one.p for one in whole.judgements]
    assert part.judgements[3].word == "undecided"
    assert "one seed of d, of those that all rows have, shows no" in part.judgements[3].numbers
    assert part.expected["a"] == whole.expected["a"]


def test_gains_of_costs_are_counted() -> None:
    rows = [row(name, [], macs=macs) for name, macs in (("base", 10**9), ("a", 2 * 10**9))]
    rows.append(row("b", [], macs=4 * 10**9))
    claims = {
        "gain(a) > 0.5 * gain(b) in macs": "supported",  # a gain is how much less: both lose
        "gain(a) < 0.5 * gain(b) in macs": "contradicted",
        "gain(b) == 3 * gain(a) in macs": "supported",
    }
    judged = study(*rows, claims=tuple(claims)).judgements
    assert [one.word for one in judged] == list(claims.values())
    assert judged[0].numbers == "-1.000 against -1.500 G, counted"
    assert study(*rows, claims=("a best of b in macs",)).judgements[0].word == "supported"


def test_zeros_are_compared_where_they_were_counted_over_the_same_images() -> None:
    relu = row("relu", BASE, zeros=[4_000_000, 4_100_000, 4_200_000, 4_050_000])
    celu = row("celu", BASE, zeros=[2, 0, 3, 1])
    claims = {
        "relu > celu in zeros": "supported",
        "relu > celu by 5000000 in zeros": "contradicted",
        "celu best of relu in zeros": "supported",
    }
    judged = study(relu, celu, claims=tuple(claims)).judgements
    assert [one.word for one in judged] == list(claims.values())
    assert (
        judged[0].numbers.startswith("+4,087,498 [+") and "zeros, 4 seeds each" in judged[0].numbers
    )
    fewer = row("celu", BASE, zeros=[2, 0, 3, 1], last_batch=35)
    (one,) = study(relu, fewer, claims=("relu > celu in zeros",)).judgements
    assert (one.word, one.numbers) == (
        "undecided",
        "zeros were counted over different test images",
    )
    assert words(relu, row("celu", BASE), claims=("relu > celu in zeros",)) == ["undecided"]


def test_a_collection_is_corrected_for_all_of_its_claims() -> None:
    rows = (row("base", BASE), row("up", [60.5, 60.9, 60.4, 60.7]), row("noise", NOISE))
    one = study(*rows, claims=("up > base", "base < up in macs"))
    many = study(*rows, claims=("noise > base", "noise > up"))
    together = judge_together([one.judgements] + [many.judgements] * 6)
    p_values = [j.p for judged in together for j in judged if j.p is not None]
    assert len(p_values) == 13
    adjusted = np.asarray(multipletests(p_values, method="holm")[1])
    assert together[0][0].p_holm == one.judgements[0].p_holm == one.judgements[0].p
    assert together[0][0].p_holm_collection == pytest.approx(adjusted[0])
    assert (together[0][0].word, together[0][0].word_in_collection) == ("supported", "undecided")
    assert together[0][1].p_holm_collection is None  # counted, not tested
    assert together[0][1].word_in_collection == together[0][1].word


def test_under_no_difference_a_best_row_is_rarely_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "collect", int)
    rng = np.random.default_rng(5)
    wrong = {"supported": 0, "contradicted": 0}
    for _ in range(300):
        rows = [row(f"r{i}", rng.normal(60, 0.3, 3).tolist()) for i in range(4)]
        (word,) = words(*rows, claims=("r0 best of all",))
        if word in wrong:
            wrong[word] += 1
    for count in wrong.values():
        assert count / 300 <= 0.05 + 2 * (0.05 * 0.95 / 300) ** 0.5


def test_under_no_difference_claims_are_rarely_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    # statsmodels collects garbage in each call, which is slow among so many
    monkeypatch.setattr(gc, "collect", int)
    rng = np.random.default_rng(4)
    wrong = 0
    for _ in range(150):
        rows = [row(f"r{i}", rng.normal(60, 0.3, 3).tolist()) for i in range(6)]
        claims = tuple(f"r0 > r{i}" for i in range(1, 6))
        wrong += any(word != "undecided" for word in words(*rows, claims=claims))
    assert wrong / 150 <= 0.05 + 2 * (0.05 * 0.95 / 150) ** 0.5
