"""What rows are measured by: top-1 of blocklab's own runs, any figure of runs from elsewhere."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A figure that each run ends with, and by which rows are compared.

    `name` is what claims call it, `figure` its key in a run's result and in each line of its log,
    `title` what headings say, under a `group` where tables have one for it, and `of` what it is
    of, said where there is room. `bounds` are what it
    can be, in its `unit`. `decimals` are how many are shown, and `gain` is the least difference
    that is worth seeds.
    """

    name: str
    figure: str
    title: str
    unit: str = ""
    higher_is_better: bool = True
    bounds: tuple[float, float] = (-math.inf, math.inf)
    decimals: int = 2
    gain: float = 0.5
    group: str = ""
    of: str = ""

    @property
    def heading(self) -> str:
        """Its title and unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def axis(self) -> str:
        """Its heading beside an axis."""
        return f"{self.of} {self.heading}".strip()

    @property
    def column(self) -> str:
        """Its heading in a table, where a group may say the unit."""
        return self.title if self.group else self.heading

    @property
    def best(self) -> str:
        """Which end of it is the good one, in a word."""
        return "highest" if self.higher_is_better else "lowest"

    @property
    def difference_unit(self) -> str:
        """The unit of a difference: of percentages, points."""
        return "points" if self.unit == "%" else self.unit

    @property
    def difference_bounds(self) -> tuple[float, float]:
        """What a difference of two can be."""
        span = self.bounds[1] - self.bounds[0]
        return -span, span

    @property
    def gain_text(self) -> str:
        """The gain with its unit: ``0.5 points``."""
        return self.amount(self.gain)

    @property
    def least_shown(self) -> float:
        """How much of it an axis shows at least."""
        return 100 * 10.0**-self.decimals

    def amount(self, value: float) -> str:
        """Show a difference with its unit, without more decimals than it has."""
        return f"{value:g} {self.difference_unit}".strip()

    def minus(self, baseline: str) -> str:
        """Return the heading of a difference to the baseline."""
        unit = f" ({self.difference_unit})" if self.difference_unit else ""
        return f"{self.title} minus {baseline}{unit}"

    def rank(self, value: float) -> float:
        """Return a number that is higher for a better value."""
        return value if self.higher_is_better else -value


TOP1 = Metric(
    name="top1",
    figure="test_top1_percent",
    title="top-1",
    unit="%",
    bounds=(0.0, 100.0),
    group="test accuracy (%)",
    of="Test",
)
