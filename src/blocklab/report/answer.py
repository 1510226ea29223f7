"""What a study found, in words: the sentence that stands above everything else."""

from collections import defaultdict
from collections.abc import Sequence

from blocklab.report.cell_text import ABSENT, difference, mean_and_sd, plain, square
from blocklab.report.metric import metric_of
from blocklab.results.row_result import RowResult
from blocklab.results.study_results import StudyResults
from blocklab.statistics.family import (
    AS_GOOD,
    AT_CHANCE,
    BASELINE_AT_CHANCE,
    BETTER,
    NOT_SHOWN,
    NOT_WORSE,
    SAME,
    TOO_FEW,
    WORSE,
)
from blocklab.statistics.sequential import FUTILE
from blocklab.study.schema import in_list

NUMBERS = "no one two three four five six seven eight nine ten eleven twelve".split()
NO_RESULT = "no result"  # of rows that have too few seeds: none at all
MOST_NAMED = 4  # rows in brackets: of more, the table has the names
MOST_TIED = 3  # rows of the highest mean that are named
# What is said of the rows of each verdict: of one, of several, and whether that names the baseline.
SAYINGS = {
    BETTER: ("is better than {baseline}", "are better than {baseline}"),
    WORSE: ("is worse", "are worse"),
    AS_GOOD: ("is as good", "are as good"),
    NOT_WORSE: (
        "is not worse than {baseline} by as much as matters",
        "are not worse than {baseline} by as much as matters",
    ),
    NOT_SHOWN: (
        "cannot be told apart from {baseline} with {seeds}",
        "cannot be told apart from {baseline} with {seeds}",
    ),
    FUTILE: (
        "would hardly be told apart from {baseline} with the seeds that are left",
        "would hardly be told apart from {baseline} with the seeds that are left",
    ),
    SAME: ("computes the same function", "compute the same function"),
    AT_CHANCE: ("never learned", "never learned"),
    TOO_FEW: ("has too few seeds to tell", "have too few seeds to tell"),
    NO_RESULT: ("has no finished run", "have no finished run"),
}
# Whose rows are worth naming.
NAMED = (BETTER, WORSE, AS_GOOD, NOT_WORSE, SAME, AT_CHANCE, NO_RESULT)


def answer(results: StudyResults) -> str:
    """Say in a sentence or three what the study found.

    First how the rows compare with the baseline, then the highest mean, then which rows are
    undertrained.
    """
    if results.best is None:
        return "No run has finished yet."
    highest = _highest(results, results.best.tied)
    sentences = [_against_baseline(results), highest, _undertrained(results)]
    return " ".join(sentence for sentence in sentences if sentence)


def verdict_counts(results: StudyResults) -> str:
    """Count the verdicts in words."""
    by_word = _by_word(results)
    if not by_word:
        return ABSENT
    if TOO_FEW in by_word and set(by_word) <= {TOO_FEW, NO_RESULT}:
        return "too few seeds for a verdict"
    said = (BETTER, WORSE, AS_GOOD, NOT_WORSE)
    shown = [f"{len(by_word[word])} {word}" for word in said if word in by_word]
    rest = sum(len(by_word[word]) for word in (NOT_SHOWN, FUTILE, SAME) if word in by_word)
    shown += [f"{rest} not shown to differ"] if rest else []
    others = {
        AT_CHANCE: "at chance",
        BASELINE_AT_CHANCE: "with a baseline at chance",
        TOO_FEW: "with too few seeds",
        NO_RESULT: "without a result",
    }
    shown += [f"{len(by_word[word])} {text}" for word, text in others.items() if word in by_word]
    return ", ".join(shown)


def in_words(count: int) -> str:
    """Write a count up to twelve in words."""
    return NUMBERS[count] if count < len(NUMBERS) else f"{count:,}"


def listed(parts: Sequence[str]) -> str:
    """Join parts as a sentence does."""
    *first, last = parts
    comma = "," if len(first) > 1 else ""
    return f"{', '.join(first)}{comma} and {last}" if first else last


def _by_word(results: StudyResults) -> dict[str, list[str]]:
    by_word: dict[str, list[str]] = defaultdict(list)
    finished = {row.name for row in results.rows if row.finished}
    for name, comparison in results.comparisons.items():
        none = comparison.word == TOO_FEW and name not in finished
        by_word[NO_RESULT if none else comparison.word].append(name)
    return by_word


def _against_baseline(results: StudyResults) -> str:
    by_word = _by_word(results)
    compared = sum(map(len, by_word.values()))
    if not compared or not (baseline := results.baseline):
        return ""
    if BASELINE_AT_CHANCE in by_word:
        return f"{baseline}, the baseline, never learned, so there is nothing to compare with."
    noun = rows_noun(results)
    if set(by_word) <= {TOO_FEW, NO_RESULT}:
        (name, *_), *_ = by_word.values()
        whom = f"None of {in_words(compared)} {noun}" if compared > 1 else name
        cannot = "can" if compared > 1 else "cannot"
        why = _why_too_few(results, len(by_word[NO_RESULT]), compared)
        return f"{whom} {cannot} be called better or worse than {baseline}: {why}."
    if compared == 1:
        ((word, (name,)),) = by_word.items()
        return f"{name} {_saying(word, [name], results, alone=True)}{_by_how_much(results, name)}."
    if set(by_word) == {NOT_SHOWN}:
        seeds = _seeds(results, by_word[NOT_SHOWN])
        return (
            f"None of {in_words(compared)} {noun} can be told apart from {baseline} with {seeds}."
        )
    if len(by_word) == 1:
        ((word, names),) = by_word.items()
        who = f"Both {noun}" if compared == 2 else f"All {in_words(compared)} {noun}"
        return f"{who} {_saying(word, names, results, alone=True)}{_named(word, names)}."
    parts: list[str] = []
    for word in SAYINGS:
        if names := by_word.get(word):
            saying = _saying(word, names, results, alone=not parts)
            parts.append(f"{in_words(len(names))} {saying}{_named(word, names)}")
    return f"Of {in_words(compared)} {noun}, {listed(parts)}."


def _named(word: str, names: Sequence[str]) -> str:
    return (
        f" ({listed([*map(in_list, names)])})" if word in NAMED and len(names) <= MOST_NAMED else ""
    )


def _saying(word: str, names: Sequence[str], results: StudyResults, alone: bool) -> str:
    text = SAYINGS[word][len(names) > 1]
    if alone and word in (WORSE, AS_GOOD, SAME):
        text += {WORSE: " than", AS_GOOD: " as", SAME: " as"}[word] + " {baseline}"
    if not alone:
        text = text.replace(" than {baseline}", "").replace("from {baseline}", "from it")
    return text.format(baseline=results.baseline, seeds=_seeds(results, names))


def _by_how_much(results: StudyResults, name: str) -> str:
    row = next(row for row in results.rows if row.name == name)
    if row.difference is None or row.difference.low is None:
        return ""
    return f": {difference(row, results.baseline)} {metric_of(results).points}".rstrip()


def _seeds(results: StudyResults, names: Sequence[str]) -> str:
    """Count the seeds by which rows were compared: of these rows, not of all."""
    found = (results.comparisons[name].difference for name in names)
    counts = sorted({one.n for one in found if one})
    return _count_of_seeds(counts) if counts else "no seeds"


def _planned(results: StudyResults) -> str:
    """Count the seeds that a row is to have, or from how few to how many."""
    counts = sorted({len(row.planned_seeds) for row in results.rows})
    return _count_of_seeds(counts or [len(results.seeds)])


def _count_of_seeds(counts: Sequence[int]) -> str:
    many = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    return f"{many} seed{_s(counts[-1])}"


def _why_too_few(results: StudyResults, without: int, compared: int) -> str:
    """Say why no row has a verdict; `without` of those `compared` have no finished run."""
    if without == compared:
        return "it has no finished run" if compared == 1 else "they have no finished run"
    if without:
        have = "has" if without == 1 else "have"
        return f"{in_words(without)} {have} no finished run, the others too few"
    if max((len(row.finished) for row in results.rows), default=0) <= 1:
        return "there is one seed a row, and one shows no spread"
    reasons = {one.reason for one in results.comparisons.values() if one.word == TOO_FEW}
    if len(reasons) == 1:
        return reasons.pop()
    return "they share too few finished seeds with it" if results.paired else "seeds are too few"


def _highest(results: StudyResults, best: Sequence[RowResult]) -> str:
    metric = metric_of(results)
    which = "highest" if metric.higher_is_better else "lowest"
    unit = f" {metric.percent}" if metric.percent else ""
    one, *others = {mean_and_sd(row.score, results.metric) for row in best}
    mean = plain(best[0].score.mean, results.metric) if others and best[0].score else one
    names = [in_list(row.name) for row in best]
    if more := len(names[MOST_TIED:]):
        names[MOST_TIED:] = [f"{more} more"]
    return (
        f"The {which} mean {metric.name} is {mean}{unit}, of {listed(names)}{_none(results, best)}."
    )


def _none(results: StudyResults, best: Sequence[RowResult]) -> str:
    """Say of rows that are highest, but not shown to be better, that they are no winners."""
    words = {results.comparisons[row.name].word for row in best if row.name in results.comparisons}
    against = len(best) == sum(row.name in results.comparisons for row in best)
    if not against or words & {BETTER, BASELINE_AT_CHANCE}:
        return ""
    return f", not shown to be better than {results.baseline}"


def _undertrained(results: StudyResults) -> str:
    names = [in_list(row.name) for row in results.rows if row.undertrained]
    if not names:
        return ""
    every = len(names) == sum(bool(row.finished) for row in results.rows)
    if every and len(names) > 1:
        who = "All of them"
    elif len(names) <= MOST_NAMED:
        who = listed(names)
    else:
        who = in_words(len(names)).capitalize()
    if len(names) == 1:
        return f"{who} is undertrained: its figure says how fast it learns, not how good it can be."
    return (
        f"{who} are undertrained: their figures say how fast they learn, not how good they can be."
    )


def rows_noun(results: StudyResults) -> str:
    """Return what the rows are: models, or rows where more than the model differs."""
    others = [one for one in results.varies if one.startswith(("recipe", "data"))]
    return "rows" if others or results.origin else "models"


def summary_sentence(results: StudyResults) -> str:
    """Say in one sentence what was compared: data, recipe, seeds, images, epochs."""
    if results.origin:
        return _origin_sentence(results)
    run = results.runs[0][1].run if results.runs else {}
    images, validation = "", "validation"
    if results.data.get("vary_split"):
        validation = "validation (others from each seed)"
    if "train_images" in run:
        counts = [
            f"{run[f'{split}_images']:,} {name}"
            for split, name in (("train", "training"), ("validation", validation))
            if run.get(f"{split}_images")
        ]
        counts = f"{', '.join(counts)} and {run.get('test_images', 0):,} test images"
        if left_out := run.get("test_images_left_out"):
            counts += f", without {left_out:,} that have a copy in the training split"
        shape = f"{square(run.get('image_size', 0))}, {len(run.get('class_names', ()))} classes"
        images = f" ({counts}, {shape})"
    source = results.data.get("source", "the data")
    epochs = results.recipe.get("epochs")
    length = f", {epochs} epoch{_s(epochs)}" if isinstance(epochs, int) else ""
    varies = f"; rows differ in {' and '.join(results.varies)} only" if results.varies else ""
    baseline = f"; the baseline is {results.baseline}" if results.baseline else ""
    return (
        f"{len(results.rows)} model{_s(len(results.rows))} on {source}{images}, each trained by "
        f"the recipe {results.recipe_name}{length}, from {_planned(results)}"
        f"{varies}{baseline}."
    )


def _origin_sentence(results: StudyResults) -> str:
    rows = len(results.rows)
    baseline = f"; the baseline is {results.baseline}" if results.baseline else ""
    better = "higher" if results.metric.higher_is_better else "lower"
    return (
        f"{rows} row{_s(rows)} by {results.metric.title} ({better} is better), from "
        f"{_planned(results)}, trained elsewhere: {results.origin}{baseline}."
    )


def _s(count: int) -> str:
    return "" if count == 1 else "s"
