"""The best of many rows: what is expected of it, and how probable it is, against integrals."""

import numpy as np
import pytest
from scipy import special, stats

from blocklab.statistics.contrasts import pool_rows
from blocklab.statistics.shrinkage import Expected, _prior_variance, expected_rows


def expect(table: np.ndarray, **how: object) -> dict[str, Expected]:
    values = {f"r{i}": dict(enumerate(row.tolist())) for i, row in enumerate(table)}
    return expected_rows(pool_rows(values), "r0", **how)  # type: ignore[arg-type]


def even(means: list[float], sd: float = 0.3, seeds: int = 3) -> np.ndarray:
    """Rows of these means and the same sample SD."""
    pattern = np.linspace(-1, 1, seeds)
    return np.array(means)[:, None] + sd * pattern / pattern.std(ddof=1)


def test_rows_are_drawn_towards_their_mean_as_an_integral_over_tau_says() -> None:
    means = np.array([60.0, 60.4, 60.9, 60.1, 60.5])
    found = expect(even(means.tolist()))
    v = 0.3**2 / 3
    others = means[1:]
    tau2 = np.linspace(1e-6, 40, 400_001)
    prior = v / (v + tau2) ** 2  # uniform B
    scatter = ((others - others.mean()) ** 2).sum()
    likelihood = (v + tau2) ** -1.5 * np.exp(-scatter / 2 / (v + tau2))
    pull = np.sum(prior * likelihood * v / (v + tau2)) / np.sum(prior * likelihood)
    for i, mean in enumerate(others, 1):
        expected = pull * others.mean() + (1 - pull) * mean
        assert found[f"r{i}"].mean == pytest.approx(expected, abs=2e-3)
        assert found[f"r{i}"].gain == pytest.approx(expected - 60, abs=2e-3)
    assert (found["r0"].mean, found["r0"].gain) == (pytest.approx(60.0), None)


def test_of_two_rows_the_probability_is_students() -> None:
    found = expect(even([60.0, 60.2], seeds=4))
    t = 0.2 / (0.3 * (2 / 4) ** 0.5)
    # one row beside the baseline is drawn nowhere
    assert found["r1"].gain == pytest.approx(0.2)
    assert found["r1"].probability_best == pytest.approx(stats.t.cdf(t, 6), abs=0.02)
    assert found["r0"].probability_best + found["r1"].probability_best == pytest.approx(1)
    turned = expect(even([60.0, 60.2], seeds=4), higher_is_better=False)
    assert turned["r0"].probability_best == pytest.approx(found["r1"].probability_best, abs=0.02)


def test_rows_of_the_same_mean_are_as_likely_the_best() -> None:
    found = expect(even([60.0, 62.0, 62.0, 62.0, 55.0]))
    shares = [found[f"r{i}"].probability_best for i in range(5)]
    assert shares[1:4] == pytest.approx([1 / 3] * 3, abs=0.03)
    assert shares[0] < 0.01 and shares[4] == 0
    assert found == expect(even([60.0, 62.0, 62.0, 62.0, 55.0]))  # from a fixed seed


def test_the_baseline_may_be_the_best() -> None:
    assert expect(even([63.0, 60.0, 60.5, 60.2]))["r0"].probability_best > 0.99


def test_rows_that_differ_by_a_hundred_spreads_stay_where_they_are() -> None:
    """As in a study of activations: one row at 13 %, one at 49, and seeds that scatter by 0.2."""
    uneven = np.array(
        [
            [20.9, 15.8, 18.0],
            [37.6, 28.8, 27.6],
            [13.0, 13.5, 13.6],
            [31.6, 34.2, 33.0],
            [48.4, 48.7, 48.7],
            [36.3, 36.9, 37.1],
        ]
    )
    found = expect(uneven)
    gains = uneven.mean(1) - uneven[0].mean()
    for i in range(1, 6):
        assert found[f"r{i}"].gain == pytest.approx(gains[i], abs=0.3)
    assert found["r4"].probability_best > 0.99
    far = expect(even([10.0, 30.0, 50.0, 90.0], sd=0.05))
    for i, gain in enumerate([20, 40, 80], 1):
        assert far[f"r{i}"].gain == pytest.approx(gain, abs=0.005)


def test_without_spread_or_baseline() -> None:
    assert expect(np.full((3, 2), 60.0)) == {}
    values = {"a": {0: 60.0, 1: 60.2}, "b": {0: 61.0, 1: 61.2}, "c": {0: 60.4}}
    found = expected_rows(pool_rows(values), None)
    assert {one.gain for one in found.values()} == {None}
    assert sum(one.probability_best for one in found.values()) == pytest.approx(1)
    assert found["b"].mean < 61.1


def test_the_prior_of_spreads_is_found_again() -> None:
    rng = np.random.default_rng(0)
    true = 0.09 * 8 / rng.chisquare(8, 20_000)
    df = np.full(true.size, 4.0)
    own = true * rng.chisquare(df) / df
    variance, worth = _prior_variance(own, df)
    assert (variance, worth) == (pytest.approx(0.09, rel=0.05), pytest.approx(8, rel=0.1))
    same = 0.09 * rng.chisquare(df) / df
    assert _prior_variance(same, df)[1] > 100
    assert _prior_variance(np.array([2.0]), np.array([4.0]))[0] == pytest.approx(
        2 * 2 / np.exp(special.digamma(2)), rel=1e-3
    )


def test_a_row_that_scatters_is_drawn_further_and_is_less_surely_the_best() -> None:
    calm, wild = even([60, 60.1, 60.2, 59.9, 60.0, 60.1, 61.0], sd=0.1), even([61.2], sd=1.5)
    table = np.concatenate([calm, wild])
    assert not pool_rows({str(i): dict(enumerate(r)) for i, r in enumerate(table.tolist())}).even
    found = expect(table)
    assert 60.97 > found["r6"].mean > found["r7"].mean + 0.1
    assert found["r6"].probability_best > found["r7"].probability_best
    paired = {f"r{i}": dict(enumerate(row.tolist())) for i, row in enumerate(table)}
    moved = {
        row: {seed: value + (0, 7, -4)[seed] for seed, value in by_seed.items()}
        for row, by_seed in paired.items()
    }
    one, other = (expected_rows(pool_rows(values, paired=True), "r0") for values in (paired, moved))
    assert other["r7"].gain == pytest.approx(one["r7"].gain)


def test_a_row_that_truly_gains_does_not_pass_for_one_that_scatters() -> None:
    """Of a row that is shown to be better +0.04 was expected, and 0.33 that it is the best."""
    lines = (
        "69.99 70.06 70.04 70.00 70.03", "70.04 70.01 69.97 70.00 69.99",
        "70.35 70.28 70.62 70.43 70.67", "69.85 70.15 70.17 70.07 69.78",
        "69.65 70.36 69.99 70.35 69.96", "69.9 70 69.9 70 70.14", "70.09 70.3 70.04 70.03 69.91",
    )  # fmt: skip
    gainer = expect(np.array([[float(one) for one in line.split()] for line in lines]))["r2"]
    assert gainer.gain and 0.25 < gainer.gain < 0.45
    assert gainer.probability_best > 0.8
    worse = expect(np.array([[90, 90.1, 90.05], [89, 89.6, 89.2], [91.2, 91.25, 91.22]]))["r1"]
    assert worse.gain and worse.gain < -0.4 and worse.probability_best < 0.05


@pytest.mark.parametrize("unevenness", [0.0, pytest.param(0.6, marks=pytest.mark.slow)])
def test_the_shrunken_gain_of_the_best_of_forty_is_about_the_true_one(unevenness: float) -> None:
    rng, studies = np.random.default_rng(40), 25
    raw, shrunken, true, probable, hits = [], [], [], [], []
    for _ in range(studies):
        truth = np.append(0.0, rng.normal(0, 0.2, 40))
        sds = 0.25 * np.exp(unevenness * rng.normal(size=(41, 1)))
        table = rng.normal(truth[:, None], sds, (41, 3))
        found = expect(table)
        best = int(table[1:].mean(1).argmax()) + 1
        raw.append(table[best].mean() - table[0].mean())
        shrunken.append(found[f"r{best}"].gain)
        true.append(truth[best])
        first = max(found, key=lambda row: found[row].probability_best)
        probable.append(found[first].probability_best)
        hits.append(first == f"r{truth.argmax()}")
    error = np.std(np.subtract(shrunken, true)) / studies**0.5
    assert np.mean(raw) - np.mean(true) > 3 * error
    assert abs(np.mean(shrunken) - np.mean(true)) < 2.5 * error
    spread = np.sqrt(np.mean(np.multiply(probable, np.subtract(1, probable))) / studies)
    assert abs(np.mean(probable) - np.mean(hits)) < 2.5 * spread
