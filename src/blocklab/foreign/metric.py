"""What the figure of runs is that were trained elsewhere: which way is better, and its unit."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, stdev

from blocklab.errors import InputError
from blocklab.foreign.foreign_run import ForeignRuns
from blocklab.study.metric import Metric

# A figure of one of these names is a share of the images, in percent or as a fraction of one.
SHARE = re.compile(
    r"acc(?!el|um|ess)|top[-_@]?[15]\b|precision|recall|f1|iou|auc|dice|\bm?ap\d*\b", re.I
)
# Of these less is better, unless it is said otherwise.
_LOWER = re.compile(
    r"loss(?!less)|perplexity|latency|cross_?entropy|misclassified|seconds|duration|(?<![a-z])"
    r"(top\d?)?(err(ors?)?|ppl|nll|ece|brier|b?ce|xent|eer|f[pn]r|bpd|lpips|kid|hausdorff)(?![a-z])",
    re.IGNORECASE,
)
# Of these too, unless the name also says that it is a share: mae_top1 is of a method called MAE.
_LOWER_ALONE = re.compile(
    r"(?<![a-z])(r?mse|s?map?e|fid|wer|cer|(run)?time|ms|hours?|memory)(?![a-z])", re.IGNORECASE
)
# Names of these words alone are of the share of images that are told wrongly.
_ERROR_WORDS = {"err", "error", "errors", "misclassified", "top1err", "top5err"}
_OF_ERRORS = {*"val valid validation test eval train top top1 top5 1 5 rate percent".split()}
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_MOST_DECIMALS = 6


@dataclass(frozen=True)
class Asked:
    """How to compare: None of what is to be seen from the runs themselves."""

    baseline: str | None = None
    higher_is_better: bool | None = None
    unit: str | None = None
    gain: float | None = None
    best_epoch: bool = False
    claims: tuple[str, ...] = ()
    command: str | None = None


def is_better_higher(metric: str) -> bool:
    """Whether more of a figure of this name is better, unless it is said otherwise."""
    name = _CAMEL.sub("_", metric)
    if _LOWER.search(name):
        return False
    return bool(SHARE.search(name)) or not _LOWER_ALONE.search(name)


def factor_and_unit(found: ForeignRuns, unit: str | None, higher: bool) -> tuple[float, str]:
    """Return what figures are multiplied by, and their unit.

    Where less is better, figures below 1 may be fractions or percentages: they stay as they are.

    Raises:
        InputError: if some are percentages and others fractions, or none can be what is said.
    """
    if unit is None and found.signed == "none":
        _check_errors(found)
    is_share = found.signed != "none" or SHARE.search(found.metric)
    if unit not in (None, "%") or (unit is None and not is_share):
        return 1.0, unit or ""
    told = [(run, value) for run in found.runs for _, value in run.figures if math.isfinite(value)]
    if not told:
        return 1.0, "%"
    low, high = min(told, key=lambda one: one[1]), max(told, key=lambda one: one[1])
    if not 0 <= low[1] <= high[1] <= 100:
        run, value = low if low[1] < 0 else high
        if unit is None:  # its name only sounds like a share
            return 1.0, ""
        raise InputError(f"{run.source}: {found.metric} is {value:g}, which is no percentage")
    last = [(run, run.figures[-1][1]) for run in found.runs if run.figures]
    fractions = [one for one in last if math.isfinite(one[1]) and one[1] <= 1]
    if high[1] <= 1 and found.signed == "none":
        if not higher:
            return 1.0, unit or ""
        if unit:
            raise InputError(
                f"--unit %, and no {found.metric} is above 1: if they are fractions, leave --unit "
                "out, and they are shown as percentages"
            )
        return 100.0, "%"
    if fractions and unit is None and found.signed != "all":
        raise InputError(
            f"{found.metric}: percentages and fractions are mixed ({fractions[0][1]:g} in "
            f"{fractions[0][0].source}, {high[1]:g} in {high[0].source}); write all in one, or add "
            "--unit % if all are percentages"
        )
    return 1.0, "%"


def _check_errors(found: ForeignRuns) -> None:
    """Refuse errors of which some rows' look like fractions and others' like percentages.

    Both may lie below 1 (MNIST's errors in percent do), but no row errs 20 times as often.
    """
    words = {*re.findall(r"[a-z0-9]+", _CAMEL.sub("_", found.metric).lower())}
    if not (words & _ERROR_WORDS and words <= _ERROR_WORDS | _OF_ERRORS):
        return
    of_rows: dict[str, list[float]] = {}
    for run in found.runs:
        of_rows.setdefault(run.row, []).extend(
            value for _, value in run.figures[-1:] if math.isfinite(value)
        )
    small = {row: max(values) for row, values in of_rows.items() if values and max(values) <= 1}
    large = {row: min(values) for row, values in of_rows.items() if values and min(values) > 1}
    if small and large and min(large.values()) >= 20 * max(small.values()) > 0:
        one, other = max(small, key=lambda row: small[row]), min(large, key=lambda row: large[row])
        raise InputError(
            f"{found.metric}: percentages and fractions seem mixed ({small[one]:g} in {one}, "
            f"{large[other]:g} in {other}); write all in one, or say with --unit what they are"
        )


def metric_of(
    name: str,
    unit: str,
    higher: bool,
    asked: Asked,
    by_row: Mapping[str, Sequence[float]],
    baseline: Sequence[float],
    by: str,
) -> Metric:
    """Return how the figure is judged and shown.

    The gain worth having is what was asked, half a point, or a hundredth of the baseline's.
    """
    percent = unit == "%"
    gain = asked.gain
    if gain is None:
        size = abs(median(baseline)) / 100 if baseline else 0.0
        gain = 0.5 if percent else float(f"{size:.0e}") or 0.01
    title = f"{name} of the best {by} (optimistic)" if asked.best_epoch else name
    return Metric(
        name=name,
        figure=name,
        title=title,
        unit=unit,
        higher_is_better=higher,
        bounds=(0.0, 100.0) if percent else (-math.inf, math.inf),
        decimals=2 if percent else _decimals(by_row),
        gain=gain,
    )


def _decimals(by_row: Mapping[str, Sequence[float]]) -> int:
    """Return how many decimals show two digits of the spread between seeds."""
    spreads = [stdev(values) for values in by_row.values() if len(values) > 1]
    values = [value for row in by_row.values() for value in row]
    spread = median([one for one in spreads if one] or [abs(one) / 100 for one in values] or [0])
    if not spread:
        return 2
    return min(max(1 - math.floor(math.log10(spread)), 0), _MOST_DECIMALS)
