"""How often verdicts are wrong, and how often they show a gain, over simulated studies.

    python benchmarks/verdicts.py [errors] [power] [speed] [--studies 20000] [--rows 3 10 40]
                                    [--seeds 2 3 5 10] [--kinds normal t3 ...]
                                    [--paired '' yes] [--pictures DIR]

The verdicts are those of `compare_rows`, put together for all studies at once from the functions
that it calls, and checked against it on a sample of each setting. Beside it stand three tests that
others use: Student's t with one pooled spread and Bonferroni's correction, Welch's with Holm's, and
Dunnett's without a look at the spreads.

Prints Markdown; with --pictures also draws it there, as SVG and PNG. See also sequential.py.
"""

import argparse
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from blocklab.measure.device import processor
from blocklab.statistics.dunnett import critical_value
from blocklab.statistics.family import BETTER, WORSE, compare_rows
from blocklab.statistics.judging import (
    FEWEST_EVEN_ROWS,
    FEWEST_FOR_WELCH,
    FEWEST_WHERE_UNEVEN,
    MOST_LOST,
    RESAMPLED_SHARE,
    VERY_UNEVEN_BELOW,
    spreads_are_even,
)
from blocklab.statistics.outlying import chance_of_failed_row, outlying_rows
from blocklab.statistics.spread import (
    RESAMPLED,
    Layout,
    null_maxima,
    pooled_variance,
    unevenness_of_each,
)

Array = NDArray[np.float64]

ALPHA = 0.05
STUDENT, WELCH, DUNNETT, OURS = "pooled t, Bonferroni", "Welch, Holm", "Dunnett", "blocklab"
CHECKED = 40  # studies of each setting that compare_rows is asked about
PART = 1000  # studies in memory


def failing(by: float, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    return rng.normal(size=shape) - by * (rng.random(shape) < 0.1)


def one_failing(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    seeds = rng.normal(size=shape)
    seeds[:, -1, 0] -= 20
    return seeds


def skewed(log_sd: float, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Seeds that scatter more below than above, as accuracies do."""
    return (math.exp(log_sd**2 / 2) - np.exp(log_sd * rng.normal(size=shape))) / math.sqrt(
        math.exp(log_sd**2) * (math.exp(log_sd**2) - 1)
    )


def uneven(log_sd: float, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    return rng.normal(size=shape) * np.exp(log_sd * rng.normal(size=(*shape[:2], 1)))


def heavy(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    return rng.standard_t(3, shape) / math.sqrt(3)


Draw = Callable[[tuple[int, ...], np.random.Generator], Array]
KINDS: dict[str, Draw] = {
    "normal": lambda shape, rng: rng.normal(size=shape),
    "t3": heavy,
    "lognormal 0.5": partial(skewed, 0.5),
    "lognormal 1": partial(skewed, 1.0),
    "a tenth fail by 4 SD": partial(failing, 4.0),
    "a tenth fail by 20 SD": partial(failing, 20.0),
    "row log-SD 0.4": partial(uneven, 0.4),
    "row log-SD 0.8": partial(uneven, 0.8),
}
ONE_FAILING = {"one seed fails by 20 SD": one_failing}


@dataclass(frozen=True)
class Setting:
    """Studies of `rows` rows and a baseline, `seeds` each; `gain` is of half of the rows."""

    kind: str
    rows: int
    seeds: int
    paired: bool = False
    gain: float = 0.0

    @property
    def layout(self) -> Layout:
        return Layout((self.seeds,) * (self.rows + 1), self.paired)

    @property
    def gaining(self) -> int:
        """How many rows, from the first, differ from the baseline."""
        return math.ceil(self.rows / 2) if self.gain else 0

    def draw(self, studies: int, rng: np.random.Generator) -> Array:
        values = (KINDS | ONE_FAILING)[self.kind]((studies, self.rows + 1, self.seeds), rng)
        if self.paired:  # what a seed does to every row: as large as what it does to each
            values = values + rng.normal(size=(studies, 1, self.seeds))
        values[:, 1 : 1 + self.gaining] += self.gain
        return values


def gaps_of(values: Array) -> Array:
    """Return |mean - the baseline's|, shape (studies, rows)."""
    means = values.mean(-1)
    return np.abs(means[:, 1:] - means[:, :1])


def own_t(setting: Setting, values: Array) -> tuple[Array, Array]:
    """Return each row's |t| by the two rows' own spreads, and its degrees of freedom."""
    n = setting.seeds
    if setting.paired:
        errors = np.var(values[:, 1:] - values[:, :1], axis=-1, ddof=1) / n
        return gaps_of(values) / np.sqrt(errors), np.full(errors.shape, n - 1.0)
    parts = np.var(values, axis=-1, ddof=1) / n
    ours, theirs = parts[:, 1:], parts[:, :1]
    df = (ours + theirs) ** 2 * (n - 1) / (ours**2 + theirs**2)
    return gaps_of(values) / np.sqrt(ours + theirs), df


def holm_shows(p: Array) -> NDArray[np.bool_]:
    order = np.argsort(p, axis=1)
    below = np.take_along_axis(p, order, 1) * np.arange(p.shape[1], 0, -1) < ALPHA
    shown = np.zeros_like(below)
    np.put_along_axis(shown, order, np.logical_and.accumulate(below, axis=1), 1)
    return shown


def ours(setting: Setting, values: Array) -> NDArray[np.bool_]:
    """Return which rows are called better or worse: `compare_rows` over all studies at once.

    The spreads, what is outlying, critical values and studies made of residuals are its own; that
    they are put together as there is checked by `agree`.
    """
    layout, n, k = setting.layout, setting.seeds, setting.rows
    gaps = gaps_of(values) / math.sqrt(2 / n)
    pooled = gaps / np.sqrt(pooled_variance(layout, values))[:, None]
    critical = critical_value(ALPHA, (n,) * k, n, layout.df)
    even = spreads_even(layout, values)
    shown = (pooled > critical) & even[:, None]
    if n < FEWEST_WHERE_UNEVEN:
        return shown
    own, df = own_t(setting, values)
    welch = k * 2 * stats.t.sf(own, df) < ALPHA
    out = outlying_rows(layout, values)
    left = ~even
    for count in np.unique(out.sum(-1)):
        lost, rest = chance_of_failed_row(layout, int(count)), k + 1 - int(count)
        if not count or rest < FEWEST_EVEN_ROWS or lost > MOST_LOST * ALPHA:
            continue
        some = np.flatnonzero(left & ~out[:, 0] & (out.sum(-1) == count))
        kept = np.argsort(out[some], axis=1, kind="stable")[:, :rest]
        of_rest = np.take_along_axis(values[some], kept[..., None], axis=1)
        even_rest = Layout((n,) * rest, setting.paired)
        may = spreads_even(even_rest, of_rest)
        some, of_rest = some[may], of_rest[may]
        t = gaps[some] / np.sqrt(pooled_variance(even_rest, of_rest))[:, None]
        passes = t > critical_value(ALPHA - lost, (n,) * k, n, even_rest.df)
        alone = welch[some] & (n >= FEWEST_FOR_WELCH)
        shown[some] = np.where(out[some, 1:], alone, passes)
        left[some] = False
    if n >= FEWEST_FOR_WELCH:
        very = left & (setting.paired | (unevenness_of_each(layout, values) < VERY_UNEVEN_BELOW))
        shown[very] = welch[very]
        left &= ~very
    place = math.ceil(RESAMPLED_SHARE * ALPHA * (RESAMPLED + 1)) - 1
    for i in np.flatnonzero(left & (pooled > critical).any(-1)):
        shown[i] = pooled[i] > max(critical, null_maxima(layout, values[i])[-place])
    return shown


def spreads_even(layout: Layout, values: Array) -> NDArray[np.bool_]:
    """Return in which studies the library lets rows share a spread."""
    seeds = layout.counts[0]
    p_of_each = unevenness_of_each(layout, values)
    return np.array([spreads_are_even(p, seeds, layout.blocks) for p in p_of_each], dtype=bool)


def agree(setting: Setting, values: Array, shown: NDArray[np.bool_]) -> None:
    """Check some studies, such as show something among them, against `compare_rows`."""
    few = max(1, CHECKED // 2)
    asked = [*np.flatnonzero(shown.any(-1))[:few], *range(min(few, len(values)))]
    for i in asked:
        rows = {str(row): dict(enumerate(seeds.tolist())) for row, seeds in enumerate(values[i])}
        found = compare_rows(rows, "0", paired=setting.paired).comparisons.values()
        words = [one.word in (BETTER, WORSE) for one in found]
        assert words == shown[i].tolist(), f"{setting}: compare_rows says otherwise"


def shown_by(setting: Setting, values: Array) -> dict[str, NDArray[np.bool_]]:
    """Return, for each way of judging, which rows it shows: (studies, rows)."""
    layout, n, k = setting.layout, setting.seeds, setting.rows
    t = gaps_of(values) / np.sqrt(pooled_variance(layout, values) * 2 / n)[:, None]
    own, df = own_t(setting, values)
    return {
        STUDENT: t > stats.t.isf(ALPHA / 2 / k, layout.df),
        WELCH: holm_shows(2 * stats.t.sf(own, df)),
        DUNNETT: t > critical_value(ALPHA, (n,) * k, n, layout.df),
        OURS: ours(setting, values),
    }


def rates(setting: Setting, studies: int) -> dict[str, tuple[float, float]]:
    """Return, for each way of judging, % of studies with a false verdict, and % of gains shown."""
    rng = np.random.default_rng([setting.rows, setting.seeds, setting.paired, 18])
    wrong: dict[str, float] = {}
    right: dict[str, float] = {}
    for done in range(0, studies, PART):
        part = min(PART, studies - done)
        values = setting.draw(part, rng)
        shows = shown_by(setting, values)
        if not done:
            agree(setting, values, shows[OURS])
        for way, shown in shows.items():
            true, false = shown[:, : setting.gaining], shown[:, setting.gaining :]
            wrong[way] = wrong.get(way, 0) + float(false.any(-1).sum())
            right[way] = right.get(way, 0) + float(true.mean(-1).sum() if setting.gain else 0)
    return {way: (100 * wrong[way] / studies, 100 * right[way] / studies) for way in wrong}


def over(settings: list[Setting], studies: int, workers: int) -> Iterator[tuple[Setting, Any]]:
    """Yield each setting with its rates, in order."""
    with ProcessPoolExecutor(workers) as pool:
        for setting, found in zip(
            settings, pool.map(rates, settings, [studies] * len(settings)), strict=True
        ):
            print(f"{setting}: {found}", file=sys.stderr, flush=True)
            yield setting, found


WAYS = (STUDENT, WELCH, DUNNETT, OURS)
Records = list[dict[str, Any]]


def records(settings: list[Setting], studies: int, workers: int) -> Records:
    """Return a line a setting and way of judging."""
    return [
        {**vars(setting), "way": way, "false": found[way][0], "power": found[way][1]}
        for setting, found in over(settings, studies, workers)
        for way in WAYS
    ]


def errors(given: argparse.Namespace) -> Records:
    """Print false verdicts: a line a setting, a column a number of seeds."""
    settings = [
        Setting(kind, rows, seeds, paired)
        for paired in given.paired
        for kind in given.kinds
        for rows in given.rows
        for seeds in given.seeds
    ]
    found = records(settings, given.studies, given.workers)
    for paired in given.paired:
        print(f"\n### False verdicts, %{', paired by seed' if paired else ''}\n")
        columns = [f"{n} seeds" for n in given.seeds]
        print("| seeds | rows | " + " | ".join(columns) + " |")
        print("|---|---:|" + "---:|" * len(columns))
        for kind in given.kinds:
            for rows in given.rows:
                cells = [
                    f"{one['false']:.1f}"
                    for one in found
                    if (one["kind"], one["rows"], one["paired"], one["way"])
                    == (kind, rows, paired, OURS)
                ]
                print(f"| {kind} | {rows} | " + " | ".join(cells) + " |")
    print("\n### The highest over rows and seeds of each setting, %\n")
    print("| seeds | " + " | ".join(WAYS) + " |\n|---|" + "---:|" * len(WAYS))
    for kind in given.kinds:
        worst = [
            max(one["false"] for one in found if (one["kind"], one["way"]) == (kind, way))
            for way in WAYS
        ]
        print(f"| {kind} | " + " | ".join(f"{value:.1f}" for value in worst) + " |")
    return found


def powers(given: argparse.Namespace) -> Records:
    """Print how often a gain of 4 SDs (a point, of SD 0.25) in half of the rows is shown."""
    kinds = ["normal", *ONE_FAILING, "a tenth fail by 20 SD", "row log-SD 0.8"]
    settings = [Setting(k, r, n, gain=4.0) for k in kinds for r in (5, 40) for n in given.seeds]
    found = records(settings, given.power_studies, given.workers)
    columns = [f"{n} seeds" for n in given.seeds]
    print("\n### Gains of 4 SDs in half of the rows that are shown, %\n")
    print("| seeds | rows | judged by | " + " | ".join(columns) + " |")
    print("|---|---:|---|" + "---:|" * len(columns))
    for kind in kinds:
        for rows in (5, 40):
            for way in (WELCH, DUNNETT, OURS):
                cells = [
                    f"{one['power']:.0f}"
                    for one in found
                    if (one["kind"], one["rows"], one["way"]) == (kind, rows, way)
                ]
                print(f"| {kind} | {rows} | {way} | " + " | ".join(cells) + " |")
    return found


def speed() -> None:
    """Print how long 10,000 runs take to judge, even and uneven."""
    print("\n### Judging 10,000 runs, seconds of one core\n")
    print("| rows | seeds | even | uneven |\n|---:|---:|---:|---:|")
    rng = np.random.default_rng(0)
    for rows, seeds in ((3333, 3), (2000, 5), (999, 10)):
        taken = []
        for kind in ("normal", "row log-SD 0.8"):
            study = Setting(kind, rows, seeds).draw(1, rng)[0]
            values = {str(i): dict(enumerate(row.tolist())) for i, row in enumerate(study)}
            began = time.process_time()
            compare_rows(values, "0")
            taken.append(time.process_time() - began)
        print(f"| {rows:,} | {seeds} | {taken[0]:.1f} | {taken[1]:.1f} |")


def draw_pictures(false: Records, power: Records, folder: Path) -> None:
    """Draw both tables into `folder`."""
    import altair
    import pandas

    def save(chart: Any, name: str) -> None:
        for ending in ("svg", "png"):
            chart.save(
                str(folder / f"{name}.{ending}"), **({"scale_factor": 2} if ending == "png" else {})
            )

    folder.mkdir(parents=True, exist_ok=True)
    colours = altair.Scale(domain=list(WAYS), range=["#d95f02", "#7570b3", "#e6ab02", "#1b9e77"])
    if false:
        frame = pandas.DataFrame([one for one in false if not one["paired"]])
        dots = (
            altair.Chart(frame)
            .mark_circle(size=45, opacity=0.7)
            .encode(
                x=altair.X(
                    "false:Q",
                    title="false verdicts, % of studies (log scale)",
                    scale=altair.Scale(type="symlog", constant=2),
                ),
                y=altair.Y("kind:N", title=None, sort=list(KINDS)),
                yOffset=altair.YOffset("way:N", sort=list(WAYS)),
                color=altair.Color("way:N", title=None, sort=list(WAYS), scale=colours),
            )
        )
        line = (
            altair.Chart(pandas.DataFrame({"x": [5.0]}))
            .mark_rule(strokeDash=[4, 3])
            .encode(x="x:Q")
        )
        save((dots + line).properties(width=460, height=360), "false_verdicts")
    if power:
        frame = pandas.DataFrame(
            [one for one in power if one["way"] != STUDENT and one["rows"] == 40]
        )
        lines = (
            altair.Chart(frame)
            .mark_line(point=True)
            .encode(
                x=altair.X("seeds:Q", title="seeds a row", axis=altair.Axis(values=[2, 3, 5, 10])),
                y=altair.Y(
                    "power:Q", title="gains of 4 SDs shown, %", scale=altair.Scale(domain=[0, 100])
                ),
                color=altair.Color("way:N", title=None, sort=list(WAYS), scale=colours),
            )
            .properties(width=190, height=150)
        )
        kinds = list(dict.fromkeys(frame["kind"]))
        save(
            lines.facet(altair.Facet("kind:N", title=None, sort=kinds), columns=2), "power_by_seeds"
        )


def main() -> None:
    """Run what was asked, all if nothing was."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("what", nargs="*", choices=["errors", "power", "speed", []], default=[])
    parser.add_argument("--studies", type=int, default=20_000)
    parser.add_argument("--power-studies", type=int, default=2_000)
    parser.add_argument("--rows", type=int, nargs="+", default=[3, 10, 40])
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 5, 10])
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--paired", nargs="+", type=bool, default=[False, True], help="'' is no")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pictures", type=Path, metavar="DIR")
    given = parser.parse_args()
    what = given.what or ["errors", "power", "speed"]
    print(
        f"{date.today()}, {processor()}, NumPy {np.__version__}, Python {platform.python_version()}"
    )
    print(f"{given.studies:,} studies a setting of errors, {given.power_studies:,} of power")
    false = errors(given) if "errors" in what else []
    power = powers(given) if "power" in what else []
    if "speed" in what:
        speed()
    if given.pictures:
        draw_pictures(false, power, given.pictures)


if __name__ == "__main__":
    main()
