"""Tables of what a network said of images: its worst classes, its commonest mistakes."""

from collections.abc import Iterator
from dataclasses import dataclass

from blocklab.measure.answers import Answers
from blocklab.report.cell_text import accuracy_percent, whole

MOST_LINES = 10


@dataclass(frozen=True)
class AnswerTable:
    """A table whose cells are text."""

    title: str
    headings: tuple[str, ...]
    cells: list[tuple[str, ...]]


def answer_tables(answers: Answers, most: int = MOST_LINES) -> Iterator[AnswerTable]:
    """Yield the classes that are known worst, and the classes that are taken for another."""
    seen = [one for one in answers.per_class if one.percent is not None]
    worst = sorted(seen, key=lambda one: one.percent or 0.0)[:most]
    which = "Top-1 of each class" if len(worst) == len(seen) else f"The {most} classes known worst"
    yield AnswerTable(
        which,
        ("class", "images", "right", "top-1 (%)"),
        [
            (one.name, whole(one.images), whole(one.correct), accuracy_percent(one.percent))
            for one in worst
        ],
    )
    if mistakes := answers.confusions(most):
        yield AnswerTable(
            "The commonest mistakes",
            ("class", "taken for", "images", "of the class (%)"),
            [
                (one.label, one.predicted, whole(one.images), accuracy_percent(one.percent))
                for one in mistakes
            ],
        )


def calibration_line(answers: Answers) -> str:
    """Say in one line how sure the network is, or why that cannot be told."""
    return str(answers.calibration or f"no calibration: {answers.missing}")
