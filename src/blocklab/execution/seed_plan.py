"""What shows a gain: seeds a row, their time and power, as a table, in words and for JSON."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from blocklab.measure.amounts import rough_time
from blocklab.statistics.planning import MOST_SEEDS
from blocklab.statistics.sequential_planning import SequentialCost


@dataclass(frozen=True)
class SeedPlan:
    """What shows a gain. A number of seeds is None beyond 10,000.

    `seeds_low` and `seeds_high` are those of the ends of the SD's 95 % interval; None, as the ends
    are, where the SD was given. `stretch` is by how much a difference must be beyond what Dunnett's
    test asks, as the finished runs are judged: 1 where their spreads are even, or the SD was given.
    From five seeds on Welch's test may ask for less (`blocklab.statistics.planning.power`).
    `powers` maps numbers of seeds a row to the power of each.
    `sequential` is the same study with looks. Hours are of training one run after another.
    """

    gain: float
    power: float
    unit: str
    rows: int
    sd: float
    sd_low: float | None
    sd_high: float | None
    stretch: float
    seeds: int | None
    seeds_low: int | None
    seeds_high: int | None
    hours_a_seed: float | None
    powers: Mapping[int, float]
    sequential: SequentialCost
    lines: tuple[str, ...]

    headings = ("seeds a row", "runs", "time", "power (%)")

    @property
    def title(self) -> str:
        """What the table is of."""
        few = "" if self.rows == 1 else "s"
        gain = f"{self.gain:g} {self.unit}".strip()
        return f"a gain of {gain} among {self.rows} row{few} and a baseline"

    def hours(self, seeds: int) -> float | None:
        """Return how long so many seeds of every row train."""
        return None if self.hours_a_seed is None else seeds * self.hours_a_seed

    def cells(self) -> list[tuple[str, ...]]:
        """Return a line a number of seeds."""
        return [
            (
                f"{seeds:,}",
                f"{seeds * (self.rows + 1):,}",
                "-" if (hours := self.hours(seeds)) is None else rough_time(3600 * hours),
                f"{100 * shown:.0f}",
            )
            for seeds, shown in self.powers.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON, with the hours of `seeds`."""
        hours = None if self.seeds is None else self.hours(self.seeds)
        powers = [
            {"seeds": seeds, "power": shown, "hours": self.hours(seeds)}
            for seeds, shown in self.powers.items()
        ]
        return {**asdict(self), "hours": hours, "powers": powers}


def verdict(plan: SeedPlan, df: int | None) -> Iterator[str]:
    """Say in words how many seeds show the gain; `df` are those of an SD that runs gave."""
    gain = f"{plan.gain:g} {plan.unit}".strip()
    share = f"{100 * plan.power:g} %"
    if plan.seeds is None:
        yield f"more than {MOST_SEEDS:,} seeds a row would be needed to show {gain}"
    else:
        hours = plan.hours(plan.seeds)
        time = "" if hours is None else f", {rough_time(3600 * hours)}"
        test = "by Dunnett's test"
        if plan.stretch > 1:
            test = (
                "and judged as the finished runs are, where a difference must be "
                f"{plan.stretch:.2f} times as large as by Dunnett's test, or from five seeds on as "
                "large as by Welch's where that is less, of rows of average spread"
            )
        yield (
            f"{plan.seeds:,} seeds a row ({plan.seeds * (plan.rows + 1):,} runs{time}) show a true "
            f"gain of {gain} in {share} of studies, with SD {plan.sd:.3g} a run {test}"
        )
    if df is not None and plan.sd_low is not None and plan.sd_high is not None:
        needed = (plan.seeds_low, plan.seeds_high)
        ends = [f"{n:,}" if n else f"more than {MOST_SEEDS:,}" for n in needed]
        yield (
            f"{df} degrees of freedom know that SD as {plan.sd_low:.3g} to {plan.sd_high:.3g} "
            f"(95 %): {ends[0]} to {ends[1]} seeds"
        )
    looks = plan.sequential
    at = ", ".join(map(str, looks.looks))
    hours = ""
    if plan.hours_a_seed is not None:
        a_run = 3600 * plan.hours_a_seed / (plan.rows + 1)
        hours = f", {rough_time(looks.runs * a_run)} and {rough_time(looks.runs_of_none * a_run)}"
    even = ", of even spreads" if plan.stretch > 1 else ""
    yield (
        f"seeds until decided, looks at {at}{even}: {100 * looks.power:.0f} % of such gains are "
        f"shown; about {looks.runs:,.0f} runs where every row gains it, "
        f"{looks.runs_of_none:,.0f} where none gains anything{hours}"
    )
