"""Per-image results: intervals over test images, against loops and by simulation, and bits."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from blocklab.results.ended_run import EndedRun
from blocklab.results.image_intervals import over_images
from blocklab.results.row_result import RowResult
from blocklab.results.study_results import StudyResults
from blocklab.training.predictions import PerImage, pack, read_per_image


def images_of(correct: np.ndarray, order: int = 7) -> PerImage:
    return PerImage(correct.astype(bool), (), order)


def packed(correct: np.ndarray, **changes: np.ndarray) -> bytes:
    labels = np.arange(len(correct)) % 10
    top = np.stack([np.where(correct, labels, 99), *[labels + k for k in (20, 30, 40, 50)]], 1)
    arrays = {"labels": labels, "top5": top, "loss": np.linspace(0, 1, len(correct), dtype="f4")}
    return pack(arrays | changes)


def test_predictions_are_read() -> None:
    correct = np.array([True, False, True, True])
    read = read_per_image(packed(correct), 100)
    assert read.correct.tolist() == correct.tolist()
    assert [name for name, _, _ in read.bits] == ["labels.npy", "loss.npy", "top5.npy"]
    assert read.figures == {
        "test_top1_percent": 75.0,
        "test_top5_percent": 75.0,
        "test_loss": pytest.approx(0.5),
    }


def test_bits_differ_where_one_bit_differs() -> None:
    correct = np.array([True, False, True, True])
    loss = np.linspace(0, 1, 4, dtype="f4")
    first, again = read_per_image(packed(correct), 100), read_per_image(packed(correct), 100)
    loss[2] = np.nextafter(loss[2], np.float32(2))
    other = read_per_image(packed(correct, loss=loss), 100)
    assert first.bits == again.bits
    assert first.bits != other.bits
    assert first.order == other.order


def test_damaged_predictions_are_refused() -> None:
    whole = packed(np.ones(50, dtype=bool))
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0x10
    for content in (whole[:-30], whole[:60], b"", bytes(flipped)):
        with pytest.raises(ValueError):
            read_per_image(content, 100)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"labels": np.arange(3)}, "do not belong together"),
        ({"loss": np.ones(3)}, "do not belong together"),
        ({"top5": np.full((4, 5), "a")}, "its types are"),
        ({"labels": np.arange(4) * 1.0}, "its types are"),
    ],
)
def test_predictions_that_are_none_are_refused(changes: dict[str, np.ndarray], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_per_image(packed(np.ones(4, dtype=bool), **changes), 100)


def test_one_seed_is_the_paired_t_interval_over_images() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.random(400) < 0.7, rng.random(400) < 0.6
    found = over_images([images_of(ours)], [images_of(theirs)])
    assert found is not None
    expected = stats.ttest_rel(ours.astype(float), theirs.astype(float)).confidence_interval()
    assert (found.low, found.high) == pytest.approx((100 * expected.low, 100 * expected.high))
    assert found.mean == pytest.approx(100 * (ours.mean() - theirs.mean()))
    assert (found.both_low, found.both_high, found.images) == (None, None, 400)


def test_interval_over_images_agrees_with_a_bootstrap() -> None:
    rng = np.random.default_rng(1)
    ease = rng.normal(0.5, 1, 1000)
    ours = [images_of(ease + rng.normal(0.1, 0.5, 1000) > 0) for _ in range(3)]
    theirs = [images_of(ease + rng.normal(0.0, 0.5, 1000) > 0) for _ in range(3)]
    found = over_images(ours, theirs)
    assert found is not None
    gaps = np.mean([1.0 * a.correct - b.correct for a, b in zip(ours, theirs, strict=True)], 0)
    drawn = stats.bootstrap((gaps,), np.mean, method="percentile", rng=2).confidence_interval
    width = 100 * (drawn.high - drawn.low)
    assert found.low is not None and found.high is not None
    assert found.high - found.low == pytest.approx(width, rel=0.06)
    assert (found.low + found.high) / 2 == pytest.approx(found.mean)


def test_both_sources_by_a_two_way_table_worked_out_in_a_loop() -> None:
    rng = np.random.default_rng(5)
    table = (rng.random((3, 40)) < 0.6).astype(float)
    seeds, images = table.shape
    grand = table.sum() / (seeds * images)
    square_seeds = sum(images * (table[s].mean() - grand) ** 2 for s in range(seeds)) / 2
    square_images = sum(seeds * (table[:, i].mean() - grand) ** 2 for i in range(images)) / 39
    rest = 0.0
    for s in range(seeds):
        for i in range(images):
            rest += (table[s, i] - table[s].mean() - table[:, i].mean() + grand) ** 2
    rest /= 2 * 39
    assert square_images > rest
    of_seeds = stats.t.ppf(0.975, 2) ** 2 * square_seeds / (seeds * images)
    of_images = stats.t.ppf(0.975, 39) ** 2 * (square_images - rest) / (seeds * images)
    half = (of_seeds + of_images) ** 0.5
    found = over_images([images_of(row) for row in table])
    assert found is not None
    assert found.both_high == pytest.approx(100 * (grand + half), rel=1e-5)
    assert found.both_low == pytest.approx(100 * (grand - half), rel=1e-5)


def test_both_is_never_narrower_than_either_part() -> None:
    rng = np.random.default_rng(0)
    for seeds in (2, 3, 5):
        for _ in range(100):  # networks that share nothing: the images' estimate is often zero
            ours, theirs = (rng.random((2, seeds, 300)) < 0.5).astype(float)
            found = over_images([images_of(row) for row in ours], [images_of(r) for r in theirs])
            assert found is not None and found.both_low is not None and found.both_high is not None
            gaps = 100 * (ours.mean(1) - theirs.mean(1))
            of_seeds = stats.t.ppf(0.975, seeds - 1) * gaps.std(ddof=1) / np.sqrt(seeds)
            assert found.low is not None and found.high is not None
            assert found.both_low <= min(found.low, max(gaps.mean() - of_seeds, -100) + 1e-4)
            assert found.both_high >= max(found.high, min(gaps.mean() + of_seeds, 100) - 1e-4)


def test_both_holds_the_interval_of_the_verdict_in_any_study() -> None:
    rng = np.random.default_rng(8)
    judged = set[str]()
    for made in range(60):
        rows, most = int(rng.integers(1, 6)), int(rng.integers(2, 7))
        paired = made % 3 == 0
        told = []
        for row in range(rows + 1):
            spread = rng.uniform(0, 0.03) * (1 + 4 * (made % 2) * (row == 1))
            runs = []
            for seed in range(most - int(row == rows > 1 and most > 2 and not paired)):
                correct = rng.random(200) < 0.8 + rng.normal(0, spread)
                result = {"status": "finished", "test_top1_percent": 100 * correct.mean()}
                seen = PerImage(correct, ((str((row, seed)), 0, 0),), 7)
                runs.append(EndedRun("h", seed, Path("h"), {}, [], result, seen))
            told.append(RowResult(f"r{row}", {}, 1, 1, 32, tuple(runs), tuple(range(most))))
        named = ("t", "", {}, {}, "r", tuple(range(most)), (), "r0", tuple(told))
        results = StudyResults(*named, paired=paired)
        judged.add(results.family.method)
        for row in results.rows[1:]:
            of_seeds, found = row.difference, row.difference_over_images
            assert of_seeds is not None and found is not None
            assert (of_seeds.low is None) == (found.both_low is None)
            if of_seeds.low is None or of_seeds.high is None or found.both_high is None:
                continue
            assert found.both_low is not None and found.low is not None and found.high is not None
            assert found.both_low <= of_seeds.low + 1e-9
            assert found.both_high >= of_seeds.high - 1e-9
            assert found.both_high - found.both_low >= found.high - found.low - 1e-9
            alone = over_images(
                [run.per_image for run in row.finished if run.per_image],
                [r.per_image for r in results.rows[0].finished[: len(row.finished)] if r.per_image],
            )
            assert alone is not None and alone.high is not None
            assert (found.high - found.mean > alone.high - alone.mean + 1e-9) == (rows > 1)
    assert judged >= {"pooled", "uneven", "own"}


def test_equal_differences_over_seeds_are_no_certainty_about_images() -> None:
    first, second = np.arange(40) % 2, (np.arange(40) + 1) % 2  # each right where the other is not
    found = over_images([images_of(first), images_of(first)], [images_of(second)] * 2)
    assert found is not None
    assert (found.both_low, found.both_high) == (found.low, found.high) != (0, 0)


def test_other_images_or_none_have_no_interval() -> None:
    ones = np.ones(10)
    assert over_images([]) is None
    assert over_images([images_of(ones)], [images_of(ones, order=8)]) is None
    assert over_images([images_of(ones)], [images_of(np.ones(11))]) is None
    assert over_images([images_of(np.ones(1))]) is None


def test_intervals_end_at_what_an_accuracy_can_be() -> None:
    near = [images_of(np.arange(20) != wrong) for wrong in (3, 4)]  # Student's t: up to 100.5 %
    found = over_images(near)
    assert found is not None and found.low is not None
    assert (found.high, found.both_high) == (100.0, 100.0)
    assert 0 < found.low < 95


def test_networks_that_never_differ_show_no_spread() -> None:
    same = [images_of(np.arange(10) % 2), images_of(np.arange(10) % 3 == 0)]
    found = over_images(same, same)
    assert found is not None
    assert (found.mean, found.low, found.high) == (0, None, None)
    assert (found.both_low, found.both_high) == (None, None)


@pytest.mark.parametrize(
    ("seeds", "images", "between_seeds", "between_images", "own"),
    [
        (2, 4000, 0.02, 1.0, 0.0),
        (3, 1000, 0.0, 1.0, 0.3),  # images decide
        (3, 500, 0.06, 0.5, 0.0),
        (5, 2000, 0.2, 1.0, 0.3),  # seeds decide
        (10, 500, 0.05, 2.0, 0.3),
    ],
)
def test_intervals_over_images_cover_what_they_say(
    seeds: int, images: int, between_seeds: float, between_images: float, own: float
) -> None:
    # An image is classified if its ease (for every network, and for networks of one design), its
    # network's skill and chance add up to more than 0, so the accuracy over all images and all
    # seeds is known.
    rng = np.random.default_rng(seeds)
    shift, chance, times = 0.3, 0.7, 600
    held = {"images": 0, "both": 0}
    for _ in range(times):
        ease = rng.normal(0, between_images, images) + rng.normal(0, own, (2, 1, images))
        skill = rng.normal(0, between_seeds, (2, seeds, 1))
        skill[0] += shift
        right = ease + skill + rng.normal(0, chance, (2, seeds, images)) > 0
        found = over_images(*([images_of(row) for row in one] for one in right))
        assert found is not None and found.both_low is not None and found.both_high is not None
        over_chance = np.sqrt(between_images**2 + own**2 + chance**2)
        of_these = stats.norm.cdf(skill / over_chance).mean((1, 2))
        of_all = stats.norm.cdf(np.array([shift, 0]) / np.hypot(over_chance, between_seeds))
        assert found.low is not None and found.high is not None
        held["images"] += found.low <= 100 * (of_these[0] - of_these[1]) <= found.high
        held["both"] += found.both_low <= 100 * (of_all[0] - of_all[1]) <= found.both_high
    for covered in held.values():
        assert 0.93 <= covered / times <= 0.97 + 2 * (0.97 * 0.03 / times) ** 0.5
