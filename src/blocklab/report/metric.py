"""What a study's rows are measured by, in the words of the page."""

from dataclasses import dataclass

from blocklab.results.study_results import StudyResults
from blocklab.study.metric import TOP1


@dataclass(frozen=True)
class MetricWords:
    """A metric's name, its noun, the units of a figure and of a difference, and its limits.

    `known_split` is false of a figure from elsewhere, which nobody says the images of. `least` is
    how much of it an axis shows at least.
    """

    name: str
    noun: str
    percent: str
    points: str
    higher_is_better: bool
    bounds: tuple[float, float]
    known_split: bool
    least: float

    def axis(self, split: str) -> str:
        """Return the title of an axis of it on a split's images."""
        noun = f" {self.noun}" if self.noun not in self.name else ""
        unit = f" ({self.percent})" if self.percent else ""
        return f"{self.of(split)}{self.name}{noun}{unit}"

    def minus(self, baseline: str) -> str:
        """Return the title of an axis of differences to the baseline."""
        unit = f" ({self.points})" if self.points else ""
        return f"{self.of('test')}{self.name} minus {baseline}{unit}"

    def of(self, split: str) -> str:
        """Return what stands before its name of a split's images."""
        return f"{split.capitalize()} " if self.known_split else ""


def metric_of(results: StudyResults) -> MetricWords:
    """Return the words for what these results measure."""
    metric, own = results.metric, results.metric == TOP1
    return MetricWords(
        name=metric.title,
        noun="accuracy" if own else metric.title,
        percent=metric.unit,
        points=metric.difference_unit,
        higher_is_better=metric.higher_is_better,
        bounds=metric.bounds,
        known_split=own,
        least=metric.least_shown,
    )
