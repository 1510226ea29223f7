"""What a study's rows are measured by, in the words of the page."""

from dataclasses import dataclass

from blocklab.results.study_results import StudyResults
from blocklab.statistics.summary import PERCENT


@dataclass(frozen=True)
class MetricWords:
    """A metric's name, its noun, the units of a figure and of a difference, and its limits."""

    name: str = "top-1"
    noun: str = "accuracy"
    percent: str = "%"
    points: str = "points"
    higher_is_better: bool = True
    bounds: tuple[float, float] = PERCENT

    def axis(self, split: str) -> str:
        """Return the title of an axis of it on a split's images."""
        noun = f" {self.noun}" if self.noun not in self.name else ""
        unit = f" ({self.percent})" if self.percent else ""
        return f"{split.capitalize()} {self.name}{noun}{unit}"


def metric_of(results: StudyResults) -> MetricWords:
    """Return the words for what these results measure."""
    return MetricWords()
