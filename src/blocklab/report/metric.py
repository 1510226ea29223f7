"""What a study's rows are measured by, in the words of the page."""

from dataclasses import dataclass

from blocklab.results.study_results import StudyResults
from blocklab.statistics.summary import PERCENT
from blocklab.study.metric import TOP1


@dataclass(frozen=True)
class MetricWords:
    """A metric's name, its noun, the units of a figure and of a difference, and its limits.

    `test` stands before the name of a figure that is measured on test images; nobody says where
    one from elsewhere was measured. `least` is how much of it an axis shows at least.
    """

    name: str = "top-1"
    noun: str = "accuracy"
    percent: str = "%"
    points: str = "points"
    higher_is_better: bool = True
    bounds: tuple[float, float] = PERCENT
    test: str = "Test "
    least: float = 1.0

    @property
    def axis(self) -> str:
        """The title of an axis of it."""
        noun = f" {self.noun}" if self.noun not in self.name else ""
        unit = f" ({self.percent})" if self.percent else ""
        return f"{self.test}{self.name}{noun}{unit}"

    def minus(self, baseline: str) -> str:
        """Return the title of an axis of differences to the baseline."""
        return f"{self.test}{self.name} minus {baseline}" + (
            f" ({self.points})" if self.points else ""
        )


def metric_of(results: StudyResults) -> MetricWords:
    """Return the words for what these results measure."""
    metric = results.metric
    if metric == TOP1:
        return MetricWords()
    return MetricWords(
        name=metric.title,
        noun=metric.title,
        percent=metric.unit,
        points=metric.difference_unit,
        higher_is_better=metric.higher_is_better,
        bounds=metric.bounds,
        test="",
        least=metric.least_shown,
    )
