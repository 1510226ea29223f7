"""What a claim is held to: its rows' seeds, a look's level, and rows that learned."""

from pathlib import Path

import numpy as np
import pytest

from blocklab.report.index import _claims
from blocklab.results.design_file import DesignJson, DesignRowJson, LookJson, LooksJson, StatedJson
from blocklab.results.ended_run import EndedRun
from blocklab.results.over_datasets import OverDatasets
from blocklab.results.row_result import RowResult
from blocklab.results.study_results import StudyResults, judged_together
from blocklab.statistics.sequential import Looks, levels
from blocklab.training.predictions import PerImage


def row(name: str, figures: list[float], bits: str = "", at_chance: bool = False) -> RowResult:
    """Return a row of a seed a figure; rows of the same `bits` compute one function."""
    runs = []
    for seed, figure in enumerate(figures):
        digests = ((f"{bits or name}{seed}", 0, 0),)
        result = {"status": "finished", "test_top1_percent": figure, "at_chance": at_chance}
        of_images = PerImage(np.array([True, False] * 5), digests, 1, {})
        runs.append(EndedRun(f"{seed:016d}", seed, Path("x"), {}, [], result, of_images))
    return RowResult(name, {}, 1000, 1000, 32, tuple(runs), tuple(range(len(runs))))


def study(
    rows: list[RowResult], claims: tuple[str, ...], design: DesignJson | None = None
) -> StudyResults:
    return StudyResults(
        *("of", "", {}, {}, "quick", (0,), ("attention",)),
        baseline="plain",
        rows=tuple(rows),
        claims=claims,
        design=design,
    )


def design(*looks: LookJson) -> DesignJson:
    return DesignJson(
        at="",
        baseline="plain",
        alpha=0.05,
        until_decided=LooksJson(seeds=[3, 5, 8], gain=0.5, baseline_times=2),
        rows={name: DesignRowJson(at="", runs={}) for name in ("plain", "se", "eca")},
        looks=list(looks),
    )


PLAIN = [50.6, 50.5, 50.4, 49.9, 50.0, 49.8, 49.9, 50.0, 49.7]


@pytest.mark.parametrize("twin_first", [True, False])
def test_a_claim_takes_all_seeds_of_rows_that_compute_one_function(twin_first: bool) -> None:
    twins = [row("twin", PLAIN[:3], "plain"), row("plain", PLAIN)]
    rows = [*(twins if twin_first else twins[::-1]), row("se", [50.15, 50.2, 50.25])]
    results = study(rows, ("se < plain",))
    assert results.identical_lines  # they are seen as one
    (judged,) = results.judgements
    assert judged.word == "undecided"
    assert "3 and 9 seeds" in judged.numbers and "+0.11" in judged.numbers
    expected = results.expected["se"].gain
    assert expected is not None and expected > 0


def test_before_the_first_look_no_claim_is_decided() -> None:
    rows = [row("plain", [50.0, 50.1, 50.2]), row("se", [60.0, 60.1])]
    assert study(rows, ("se > plain",)).judgements[0].word == "supported"
    results = study(rows, ("se > plain",), design())
    assert results.comparisons["se"].word == "too few seeds"
    assert [one.word for one in results.judgements] == ["undecided"]
    assert results.judgements[0].numbers.endswith("seeds; no look has been taken")


def test_a_claim_that_a_look_leaves_undecided_says_so() -> None:
    seen = LookJson(
        at="",
        planned=3,
        level=0.0171,
        rows=1,
        seeds={"plain": [0, 1, 2], "se": [0, 1, 2]},
        verdicts={"se": "no difference shown"},
        going=["se"],
    )
    rows = [row("plain", [50.0, 50.1, 50.2]), row("se", [50.3, 50.25, 50.45])]
    assert study(rows, ("se > plain",)).judgements[0].word == "supported"
    (judged,) = study(rows, ("se > plain",), design(seen)).judgements
    assert judged.p_holm is not None and 0.0171 < judged.p_holm < 0.05
    assert judged.word == "undecided"
    assert "; p is not below 1." in judged.numbers
    assert judged.numbers.endswith(" %, the smallest level of the looks")
    unclear = [row("plain", [50.0, 50.1, 50.2]), row("se", [50.0, 50.1, 50.3])]
    assert (
        "smallest level" not in study(unclear, ("se > plain",), design(seen)).judgements[0].numbers
    )


def test_among_several_studies_a_claim_is_held_to_its_look() -> None:
    seeds = {"plain": list(range(6)), "se": [0, 1, 2], "eca": [0, 1, 2]}
    look = LookJson(
        at="2026-01-01",
        planned=3,
        level=0.018,
        rows=2,
        seeds=seeds,
        verdicts=dict.fromkeys(["se", "eca"], "no difference shown"),
        going=["se", "eca"],
    )
    others = row("eca", [50.0, 50.3, 49.8])
    plain = row("plain", [50.0, 50.2, 49.8, 50.1, 49.9, 50.0])
    one = study([plain, row("se", [50.18, 50.28, 50.38]), others], ("se > plain",), design(look))
    nothing = study([plain, row("se", [50.0, 50.1, 49.9]), others], ("se > plain",), design(look))
    level, (judged,) = look.level, one.judgements
    assert judged.level and judged.p_holm is not None
    assert judged.level / 2 < judged.p_holm < judged.level  # twice it is beyond
    assert judged.word == "supported"
    # Of all looks, those to come too: it must not change with how many were taken.
    assert judged.level == min(level, *levels(Looks((3, 5, 8), 0.5, 2), 2)[1:]) < level
    assert 2 * judged.p_holm < 0.05
    together = _claims([("one", one), ("nothing", nothing)])
    assert together[0][2] == "supported" and together[0][4] == "undecided"


def _looked_at(se: list[float], level: float) -> StudyResults:
    """Return a study that was looked at once, at this level."""
    seeds = {"plain": list(range(6)), "se": [0, 1, 2], "eca": [0, 1, 2]}
    words = dict.fromkeys(["se", "eca"], "no difference shown")
    look = LookJson(at="", planned=3, level=level, rows=2, seeds=seeds, verdicts=words)
    plain = row("plain", [50.0, 50.2, 49.8, 50.1, 49.9, 50.0])
    rows = [plain, row("se", se), row("eca", [50.0, 50.3, 49.8])]
    return study(rows, (), design(look.model_copy(update={"going": ["se", "eca"]})))


def test_over_data_sets_looks_leave_less_to_each() -> None:
    """Seeds that were added for what was seen make chance large at 5 %."""
    se = [50.24, 50.34, 50.44]
    claims = ("se > plain on average",)
    fixed = study([row("plain", [50.0, 50.2, 49.8, 50.1, 49.9, 50.0]), row("se", se)], ())
    at_five = OverDatasets("of", ("d1", "d2"), (fixed, fixed), claims=claims)
    assert (at_five.rows[1].word, at_five.judgements[0].word) == ("better", "supported")
    looked = OverDatasets("of", ("d1", "d2"), (fixed, _looked_at(se, 0.00002)), claims=claims)
    found = {one.name: one for one in looked.rows}["se"]
    assert found.p is not None and found.interval is not None
    assert 0.00002 < found.p < 0.05
    assert (found.word, found.reason) == (
        "no difference shown",
        "p is not below the looks' level of 0.002 %",
    )
    assert found.interval[0] < 0 < found.interval[1]
    assert looked.judgements[0].word == "undecided" and looked.judgements[0].level == 0.00002
    assert any("0.002 %" in sentence for sentence in looked.sentences)
    assert not any("looks" in sentence for sentence in at_five.sentences)


def test_over_data_sets_nothing_is_said_before_a_first_look() -> None:
    rows = [row("plain", [50.0, 50.2, 49.8]), row("se", [60.0, 60.2, 59.8])]
    waiting = study(rows, (), design())
    over = OverDatasets("of", ("d1", "d2"), (study(rows, ()), waiting), ("se > plain on all",))
    assert over.rows[1].word == "too few seeds"
    assert over.rows[1].reason == "on d2: the first look is at 3 seeds"
    assert over.judgements[0].word == "undecided"
    assert not waiting.dominated and not waiting.expected.keys() - {"plain", "se"}


def test_a_pair_of_rows_is_held_to_the_smallest_level_of_looks() -> None:
    looked = _looked_at([50.6, 50.7, 50.8], 0.0001)
    fixed = study([row("plain", PLAIN), *looked.rows[1:]], ())
    assert "eca" in fixed.dominated  # by se, which costs the same
    assert "eca" not in looked.dominated


def test_over_data_sets_what_was_dropped_counts_and_what_came_late_is_marked() -> None:
    figures = {"plain": [50.0, 50.2, 49.8], "se": [50.7, 50.9, 50.6]}
    rows = [row(name, of) for name, of in figures.items()]
    stated = {
        "se > plain on all": StatedJson(at="", after_runs=6),
        "se > plain on average": StatedJson(at=""),
        "eca > plain on all": StatedJson(at=""),
    }
    gone = DesignRowJson(at="", runs={"0": "0" * 16}, dropped="2026-01-01")
    named = {name: DesignRowJson(at="", runs={}) for name in figures}
    whole = DesignJson(at="", baseline="plain", alpha=0.05, rows=named, claims_over=stated)
    fewer = whole.model_copy(update={"rows": {**named, "eca": gone, "simam": gone}})
    claims = tuple(stated)[:2]
    of = [study(rows, (), one) for one in (whole, fewer)]
    before, after = (OverDatasets("of", ("d1", "d2"), (of[0], one), claims=claims) for one in of)
    alone, with_dropped = (one.rows[1] for one in (before, after))
    assert alone.p and with_dropped.p == pytest.approx(3 * alone.p)
    assert alone.interval and with_dropped.interval
    assert with_dropped.interval[0] < alone.interval[0]
    assert any("counted among these: eca, simam" in line for line in after.sentences)
    assert not any("Dropped" in line for line in before.sentences)
    late, early = before.judgements
    assert late.numbers.endswith("; stated after the runs")
    assert not early.numbers.endswith("the runs")
    assert late.p and early.p and late.p_holm and early.p_holm
    assert min(late.p_holm, early.p_holm) == pytest.approx(3 * min(late.p, early.p))
    assert any("dropped, counted in p (Holm): eca > plain on all" in s for s in before.sentences)


def test_no_claim_over_data_sets_is_won_over_a_row_at_chance() -> None:
    rows = [
        row("plain", [50.0, 50.2, 49.8]),
        row("se", [50.1, 50.3, 49.9]),
        row("dead", [1.0, 1.01, 0.99], at_chance=True),
    ]
    claims = ("se > dead on all", "se > dead on average")
    over = OverDatasets("of", ("d1", "d2"), (study(rows, ()), study(rows, ())), claims=claims)
    assert [one.word for one in over.judgements] == ["undecided", "undecided"]
    assert "dead is at chance on d1" in over.judgements[0].numbers


def test_over_data_sets_rows_of_one_function_are_the_same_without_a_test() -> None:
    """As on the page of each data set."""
    rows = [
        row("plain", [50.0, 50.2, 49.8]),
        row("celu", [50.6, 50.1, 50.9]),
        row("elu", [50.6, 50.1, 50.9], "celu"),
    ]
    claims = ("celu == elu within 0.1", "celu > elu", "celu >= elu")
    words = ["supported", "contradicted", "supported"]
    of_each = study(rows, claims)
    assert [one.word for one in of_each.judgements] == words
    for how in ("on average", "on all", "on at least 1"):
        stated = tuple(f"{claim} {how}" for claim in claims)
        over = OverDatasets("of", ("d1", "d2"), (of_each, of_each), claims=stated)
        assert [one.word for one in over.judgements] == words, how
    assert "identical function" in over.judgements[0].numbers


def test_a_claim_that_was_dropped_counts_among_several_studies_too() -> None:
    stated = {text: StatedJson(at="2026-01-01") for text in ("eca > plain", "eca < se", "se < eca")}
    plain, se = row("plain", [50.0, 50.2, 49.8]), row("se", [50.8, 51.0, 50.9])
    had = design().model_copy(update={"claims": stated, "until_decided": None})
    one = study([plain, se, row("eca", [50.0, 50.1, 49.9])], ("se > plain",), had)
    assert len(one.dropped_claims) == 3
    (alone,) = one.judgements
    ((together,),) = judged_together([one])
    assert together.p_holm_collection == alone.p_holm == pytest.approx(4 * alone.p)
    ((twice,), _) = judged_together([one, study([plain, se], ("se > plain",))])
    assert twice.p_holm_collection == pytest.approx(5 * alone.p)
