"""Results as lines of named cells, for data frames and CSV files: one a run, or one a row."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from blocklab.results.ended_run import EndedRun
from blocklab.results.row_result import RowResult
from blocklab.statistics.family import Comparison
from blocklab.statistics.shrinkage import Expected
from blocklab.study.metric import TOP1, Metric

RESULT_FIGURES = (
    "test_top1_percent",
    "test_top5_percent",
    "test_loss",
    "best_test_top1_percent",
    "best_test_top5_percent",
    "best_test_epoch",
    "validation_top1_percent",
    "train_seconds",
    "images_per_second",
    "peak_memory_bytes",
)
RUN_COLUMNS = (
    *("row", "seed", "status", "epochs", *RESULT_FIGURES, "macs", "params", "cost_input_size"),
    *("precision", "memory_format", "threads", "device", "run"),
)
SUMMARY_COLUMNS = (
    *("row", "macs", "params", "cost_input_size", "seeds_planned", "seeds_finished"),
    *(
        f"{figure}_percent_{part}"
        for figure in ("test_top1", "test_top5", "best_test_top1", "best_test_top5")
        for part in ("mean", "sd", "low", "high")
    ),
    *(f"difference_top1_points_{part}" for part in ("mean", "low", "high")),
    *("difference_seeds", "difference_p_alone", "difference_p", "verdict", "verdict_reason"),
    "dominated",
    *("test_top1_percent_median", "test_top1_percent_worst_seed"),
    *("expected_top1_percent", "expected_gain_top1_points", "probability_best"),
    *(f"test_top1_percent_images_{part}" for part in ("low", "high")),
    *(
        f"difference_top1_points_{part}"
        for part in ("images_low", "images_high", "both_low", "both_high")
    ),
    *("train_seconds_mean", "images_per_second_mean"),
    *("reported_macs_g", "reported_params_m", "reported_top1_percent", "reported_top5_percent"),
    *("reported_size_macs", "reported_size_params", "reported_size_input_size"),
    *("reported_note", "notes"),
)

TEXT_COLUMNS = (
    *("row", "status", "precision", "memory_format", "device", "run", "reported_note", "notes"),
    *("verdict", "verdict_reason", "dominated"),
)


def told_of(
    metric: Metric, lines: list[dict[str, Any]], costs: Sequence[Mapping[str, float]] = ()
) -> list[dict[str, Any]]:
    """Return lines as they are told of a metric: of another than top-1 under its own name.

    Runs from elsewhere have no more than somebody gave, so there a column without any figure is
    left out. `costs` are each line's own, by name.
    """
    if metric == TOP1 or not lines:
        return lines
    kept = [name for name in lines[0] if any(line[name] not in (None, "") for line in lines)]
    names = {
        name: name.replace(TOP1.figure, metric.figure)
        .replace("top1_points", metric.name)
        .replace("top1_percent", metric.name)
        for name in kept
    }
    others = dict.fromkeys(name for one in costs for name in one)
    return [
        {new: line[name] for name, new in names.items()} | {name: one.get(name) for name in others}
        for line, one in zip(lines, costs or [{}] * len(lines), strict=True)
    ]


def frame(lines: list[dict[str, Any]], names: tuple[str, ...]) -> pd.DataFrame:
    names = tuple(lines[0]) if lines else names
    made = pd.DataFrame(lines, columns=pd.Index(names))
    for name in names:
        if name not in TEXT_COLUMNS:  # a column without any figure is still one of numbers
            made[name] = pd.to_numeric(made[name])
    return made


def run_line(row: RowResult, run: EndedRun) -> dict[str, Any]:
    """Return a run's line of `StudyResults.to_frame`, with None for what it lacks."""
    return {
        "row": row.name,
        "seed": run.seed,
        "status": run.result["status"],
        "epochs": run.epochs,
        **{name: run.result.get(name) for name in RESULT_FIGURES},
        TOP1.figure: run.result.get(row.metric.figure),
        "macs": row.macs,
        "params": row.params,
        "cost_input_size": row.input_size,
        **{name: run.run.get(name) for name in ("precision", "memory_format", "threads")},
        "device": (run.run.get("machine") or {}).get("device"),
        "run": run.hash,
    }


def summary_line(
    row: RowResult,
    comparison: Comparison | None,
    dominated: str | None = None,
    expected: Expected | None = None,
) -> dict[str, Any]:
    line: dict[str, Any] = dict.fromkeys(SUMMARY_COLUMNS)
    line |= {"row": row.name, "macs": row.macs, "params": row.params}
    line |= {"cost_input_size": row.input_size, "notes": "; ".join(row.notes)}
    line["dominated"] = dominated
    if row.score:
        line |= {"test_top1_percent_median": row.score.median}
        line |= {"test_top1_percent_worst_seed": min(row.score.values, key=row.metric.rank)}
    if expected:
        line |= {"expected_top1_percent": expected.mean}
        line |= {"expected_gain_top1_points": expected.gain}
        line |= {"probability_best": expected.probability_best}
    line |= {"seeds_planned": len(row.planned_seeds), "seeds_finished": len(row.finished)}
    for figure in ("test_top1", "test_top5", "best_test_top1", "best_test_top5"):
        if summary := row.over_seeds(f"{figure}_percent"):
            for part in ("mean", "sd", "low", "high"):
                line[f"{figure}_percent_{part}"] = getattr(summary, part)
    if row.score:  # under the name of most studies' metric, which `told_of` turns into its own
        for part in ("mean", "sd", "low", "high"):
            line[f"{TOP1.figure}_{part}"] = getattr(row.score, part)
    line["difference_seeds"] = row.difference.n if row.difference else 0
    if row.difference:
        for part in ("mean", "low", "high"):
            line[f"difference_top1_points_{part}"] = getattr(row.difference, part)
        line["difference_p_alone"] = row.difference.p_alone
        line["difference_p"] = row.difference.p
    if comparison:
        line |= {"verdict": comparison.word, "verdict_reason": comparison.reason or None}
    if images := row.over_images:
        line |= {"test_top1_percent_images_low": images.low}
        line |= {"test_top1_percent_images_high": images.high}
    if images := row.difference_over_images:
        line |= {"difference_top1_points_images_low": images.low}
        line |= {"difference_top1_points_images_high": images.high}
        line |= {"difference_top1_points_both_low": images.both_low}
        line |= {"difference_top1_points_both_high": images.both_high}
    for figure in ("train_seconds", "images_per_second"):
        if summary := row.over_seeds(figure):
            line[f"{figure}_mean"] = summary.mean
    if row.reported:
        line |= {"reported_macs_g": row.reported.macs_g, "reported_note": row.reported.note}
        line |= {"reported_params_m": row.reported.params_m}
        line |= {"reported_top1_percent": row.reported.top1}
        line |= {"reported_top5_percent": row.reported.top5}
    if row.reported_cost:
        line |= {f"reported_size_{name}": v for name, v in vars(row.reported_cost).items()}
    return line
