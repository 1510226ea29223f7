"""What rows and studies say of runs that have ended."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from blocklab.results.ended_run import EndedRun
from blocklab.results.row_result import RowResult, identical_seeds, shared_runs
from blocklab.results.same_function import twins
from blocklab.results.study_results import StudyResults
from blocklab.study.reported import Reported
from blocklab.study.study import Study
from blocklab.training.predictions import PerImage


def record(seed: int, top1: float | None, epochs: int = 5, **run: object) -> EndedRun:
    status = "diverged" if top1 is None else "finished"
    result = {"status": status, "epochs": epochs, "test_top1_percent": top1}
    result |= {"test_top5_percent": top1}
    return EndedRun(f"{seed:016x}", seed, Path("runs") / f"{seed:016x}", run, [], result)


def row(
    name: str, *runs: EndedRun, planned: int = 3, reported: Reported | None = None
) -> RowResult:
    return RowResult(
        name, {}, 2_586_000_000, 16_360_000, 224, runs, tuple(range(planned)), (), reported
    )


def study(*rows: RowResult, baseline: str | None = "base") -> StudyResults:
    return StudyResults("t", "", {}, {}, "short", (0, 1, 2), (), baseline, rows)


def test_diverged_runs_are_kept_but_never_averaged() -> None:
    # a diverged run may have figures; they must not count
    bad = record(1, None)
    bad.result["test_top1_percent"] = 1.0
    results = study(row("base", record(0, 60.0), bad, record(2, 62.0)))
    only = results.rows[0]
    assert only.top1 is not None
    assert (only.top1.mean, only.top1.n) == (61.0, 2)
    assert results.to_frame()["status"].tolist() == ["finished", "diverged", "finished"]
    assert only.notes == ("2 of 3 seeds finished", "diverged, so not averaged: seed 1")


def test_difference_is_to_the_named_baseline() -> None:
    base = row("base", record(0, 60.0), record(1, 61.0), record(2, 62.0))
    better = row("better", record(2, 64.0), record(0, 61.0), record(1, 62.0))
    paired = replace(study(base, better), paired=True)
    first, second = paired.rows
    assert first.difference is None
    assert second.difference is not None
    assert second.difference.values == (1.0, 1.0, 2.0)
    # the same rows under another baseline
    swapped = replace(paired, baseline="better").rows
    assert swapped[1].difference is None
    assert swapped[0].difference is not None
    assert swapped[0].difference.values == (-1.0, -1.0, -2.0)
    # by default seeds are not paired, and the difference of means is the same
    alone = study(base, better).rows[1].difference
    assert alone is not None
    assert (alone.mean, alone.values) == (pytest.approx(4 / 3), ())


def test_a_baseline_that_is_missing_is_said() -> None:
    results = study(row("other", record(0, 60.0), planned=1))
    assert results.rows[0].difference is None
    assert results.remarks == ("no differences: the baseline base has no finished run",)
    assert study(row("other", record(0, 60.0), planned=1), baseline=None).remarks == ()


def test_rows_that_differ_in_epochs_or_seeds_are_noted() -> None:
    base = row("base", record(0, 60.0), record(1, 60.0), planned=2)
    mixed = row("mixed", record(0, 60.0), record(1, 60.0, epochs=3), planned=2)
    short = row("short", record(0, 60.0, epochs=3), record(5, 61.0, epochs=3), planned=2)
    results = study(base, mixed, short)
    differ = "its runs differ in epochs: 3 and 5"
    assert [one.notes for one in results.rows] == [(), (differ,), ("3 epochs, the baseline 5",)]
    paired = "compared over 1 of its 2 seeds, those that all rows have"
    assert replace(results, paired=True).rows[2].notes == ("3 epochs, the baseline 5", paired)


def test_unlike_setups_and_reported_notes_are_remarks() -> None:
    reported = Reported(top1=46.05, note="a misprint")
    base = row(
        "base",
        record(0, 60.0, precision="32", threads=1, devices=1, data_fingerprint="a"),
        record(1, 61.0, precision="bf16", threads=1, devices=8, data_fingerprint="b"),
        planned=2,
        reported=reported,
    )
    assert study(base).remarks == (
        "the runs differ in precision",
        "the runs differ in devices",
        "the runs differ in data fingerprint",
        "base, as reported: a misprint",
    )


def test_frames_have_units_and_numbers() -> None:
    base = row("base", record(0, 60.0), record(1, 61.0), record(2, 62.0))
    none = row("none", reported=Reported(macs_g=2.5, params_m=6.36, top1=46.05, top5=75.0))
    frame = study(base, none).summary_frame().set_index("row")
    assert frame.loc["base", "test_top1_percent_mean"] == 61.0
    assert frame.loc["base", "test_top1_percent_sd"] == 1.0
    assert frame.loc["base", "test_top1_percent_low"] == pytest.approx(61 - 2.484138, abs=1e-5)
    assert frame.loc["base", "seeds_finished"] == 3
    assert frame["test_top1_percent_mean"].isna().tolist() == [False, True]
    assert frame.loc["none", "reported_params_m"] == 6.36
    assert frame["macs"].tolist() == [2_586_000_000] * 2
    assert frame["best_test_top1_percent_mean"].dtype == float  # though no row has one
    runs = study(base, none).to_frame()
    assert runs["seed"].tolist() == [0, 1, 2]
    assert runs["cost_input_size"].tolist() == [224] * 3


def test_frames_of_nothing_keep_their_columns() -> None:
    empty = study()
    assert len(empty.to_frame()) == len(empty.summary_frame()) == 0
    assert "test_top1_percent" in empty.to_frame().columns
    assert "test_top1_percent_mean" in empty.summary_frame().columns


def with_bits(run: EndedRun, bits: int) -> EndedRun:
    images = PerImage(np.ones(4, dtype=bool), (("loss.npy", 16, bits),), 1)
    return replace(run, per_image=images)


def test_a_row_of_one_function_with_fewer_seeds_ended_at_no_look() -> None:
    base = row("base", *(with_bits(record(s, 60.0 + s), s) for s in range(3)))
    twin = row("twin", *(with_bits(record(s, 60.0 + s), s) for s in (2, 0)))
    (_, of_twin) = study(base, twin).rows
    assert of_twin.difference and of_twin.difference.n_baseline == 2
    assert of_twin.notes == ("2 of 3 seeds finished",) and not of_twin.compared_early


def test_rows_are_identical_only_where_every_shared_seed_is() -> None:
    base = row("base", *(with_bits(record(s, 60.0 + s), s) for s in range(3)))
    twin = row("twin", *(with_bits(record(s, 60.0 + s), s) for s in (2, 0)))
    half = row("half", with_bits(record(0, 60.0), 0), with_bits(record(1, 61.0), 99))
    bare = row("bare", *(record(s, 60.0 + s) for s in range(3)))
    results = study(base, twin, half, bare)
    rows = {one.name: one for one in results.rows}
    assert identical_seeds(rows["base"], rows["twin"]) == (0, 2)
    assert identical_seeds(rows["base"], rows["half"]) == ()
    assert identical_seeds(rows["base"], rows["bare"]) == ()  # nothing to compare
    assert results.identical == ((("base", "twin"), (0, 2)),)
    words = {name: one.word for name, one in results.comparisons.items()}
    assert words == {
        "twin": "identical function",
        "half": "no difference shown",
        "bare": "no difference shown",
    }
    assert "base and twin: identical function, same bits on every seed (seeds 0, 2)" in " ".join(
        results.remarks
    )


@pytest.mark.parametrize(
    "seeds", [((0, 1), (0, 1, 2), (0, 1, 2)), ((0,), (0, 1), (1,)), ((1, 2), (0,), (0, 1))], ids=str
)
def test_rows_of_one_function_are_found_by_way_of_a_third(
    seeds: tuple[tuple[int, ...], ...],
) -> None:
    base = row("base", *(with_bits(record(s, 60.0 + s), s) for s in range(3)))
    rows = [
        row(name, *(with_bits(record(s, 63.0 + s / 10), 10 + s) for s in mine))
        for name, mine in zip("abc", seeds, strict=True)
    ]
    results = study(base, *rows)
    assert twins(results.rows, "base") == {"b": "a", "c": "a"}
    verdicts = {one.word for one in results.comparisons.values()}
    assert len(verdicts) == 1


def test_a_row_of_the_baselines_function_differs_by_nothing_whatever_seeds_it_lacks() -> None:
    base = row("base", *(with_bits(record(s, 60.0 + s), s) for s in range(6)))
    twin = row("twin", *(with_bits(record(s, 60.0 + s), s) for s in (0, 1)))
    gap = study(base, twin).comparisons["twin"].difference
    assert gap is not None and (gap.mean, gap.n, gap.n_baseline) == (0.0, 2, 2)


def test_runs_are_paired_by_seed_whatever_their_order() -> None:
    one = row("one", record(2, 1.0), record(0, 1.0), record(1, None))
    other = row("other", record(0, 1.0), record(1, 1.0), record(2, 1.0))
    assert [seed for seed, _, _ in shared_runs(one, other)] == [0, 2]


def test_runs_of_a_row_that_differ_in_memory_format_are_noted() -> None:
    def of(*formats: str | None) -> tuple[str, ...]:
        runs = [record(s, 60.0, memory_format=one) for s, one in enumerate(formats)]
        return row("one", *runs, planned=len(runs)).notes

    assert of("contiguous", "channels_last", "contiguous") == (
        "its runs differ in memory format: channels_last and contiguous",
    )
    assert of("contiguous", "contiguous") == of(None, None) == ()


def test_what_a_prompt_shows_fits_a_line() -> None:
    results = study(row("base", record(0, 60.0), record(1, None)), row("up", record(0, 61.0)))
    assert repr(results) == "<results of 3 runs in 2 rows: t>"
    assert repr(results.rows[0]) == "<row base: 2 of 3 runs>"
    assert repr(results.rows[1].runs[0]) == f"<run {Path('runs') / ('0' * 16)}, seed 0>"
    assert repr(Study.load("width_c100")) == "<study width_c100: 5 rows of cifar100, 5 seeds>"
