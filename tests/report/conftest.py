"""Studies whose run folders are made up, written as a run writes them and read as a report does."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blocklab.results.records import read_run
from blocklab.results.row_result import RowResult
from blocklab.results.study_results import StudyResults
from blocklab.study.reported import Reported

MakeResults = Callable[..., StudyResults]


def write_run(
    folder: Path, seed: int, top1: float | None, *, epochs: int = 5, reads_test_set: bool = False
) -> None:
    """Write run.json, log.jsonl and result.json; `top1` None is a run that diverged."""
    rng = random.Random(f"{folder.name}{seed}")
    folder.mkdir(parents=True)
    run = {
        "definition": {"model": {}, "data": {"source": "cifar100"}, "recipe": {}, "seed": seed},
        "label": "row",
        "versions": {"blocklab": "0.1.0", "torch": "2.9.1", "timm": "1.0.22", "python": "3.11.7"},
        "machine": {"cpu": "Some CPU <fast>", "cores": 2, "device": "cpu"},
        "precision": "bf16-mixed",
        "memory_format": "channels_last",
        "threads": 1,
        "started": "2025-11-24T13:00:00+00:00",
        "class_names": [f"class {number}" for number in range(100)],
        "image_size": 32,
        "train_images": 45000,
        "validation_images": 5000,
        "test_images": 10000,
    }
    lines: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        reached = (top1 or 1.0) * (1 - 0.6**epoch) / (1 - 0.6**epochs)
        line = {"epoch": epoch, "train_loss": 4.0 / epoch, "lr": 0.1, "train_seconds": 12.5}
        line["validation_top1_percent"] = reached - 0.5 + rng.gauss(0, 0.3)
        line["validation_top5_percent"] = min(99.0, reached + 20)
        if reads_test_set:
            line |= {"test_top1_percent": reached, "test_top5_percent": min(99.0, reached + 20)}
        lines.append(line)
    result: dict[str, Any] = {"status": "finished", "epochs": epochs, "train_seconds": 62.5}
    if top1 is None:
        result = {"status": "diverged", "epochs": epochs}
    else:
        result |= {"test_top1_percent": top1, "test_top5_percent": min(99.0, top1 + 25)}
        result |= {"test_loss": 1.5, "images_per_second": 720.0, "peak_memory_bytes": 512_000_000}
    if reads_test_set and top1 is not None:
        result |= {"best_test_top1_percent": top1 + 0.75, "best_test_epoch": epochs - 1}
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "result.json").write_text(json.dumps(result))


def write_predictions(folder: Path, seed: int, top1: float, like: str, images: int) -> None:
    """Write predictions.npz; rows that are `like` one another say the same of each image."""
    rng = np.random.default_rng([seed, *like.encode()])
    labels = np.arange(images) % 100
    hard = np.random.default_rng(0).random(images)  # the same images are hard for every network
    correct = hard + rng.normal(0, 0.1, images) < top1 / 100
    top5 = (labels[:, None] + np.where(correct, 0, 1)[:, None] + np.arange(5)) % 100
    loss = rng.random(images).astype(np.float32)
    with (folder / "predictions.npz").open("wb") as file:
        np.savez_compressed(file, labels=labels, top5=top5, loss=loss)


@pytest.fixture
def make_results(tmp_path: Path) -> MakeResults:
    """Build results from ``{row: [top-1 of seed 0, of seed 1, ...]}``; the first is the baseline.

    None for a seed is a run that diverged, "missing" one that has not ended. With `images`, runs
    have results for so many test images; `twins` names the row that a row is bit for bit.
    `rows_with` gives rows further fields.
    """

    def build(
        accuracies: dict[str, list[float | str | None]],
        *,
        epochs: int = 5,
        reads_test_set: bool = False,
        macs: dict[str, int] | None = None,
        reported: dict[str, Reported] | None = None,
        failed: dict[str, tuple[str, ...]] | None = None,
        images: int = 0,
        twins: dict[str, str] | None = None,
        rows_with: dict[str, dict[str, Any]] | None = None,
        **fields: Any,
    ) -> StudyResults:
        seeds = tuple(range(max(map(len, accuracies.values()))))
        made = len(list(tmp_path.glob("made*")))
        studies = tmp_path / f"made{made}"
        studies.mkdir(parents=True)
        rows = []
        for number, (name, values) in enumerate(accuracies.items()):
            runs = []
            for seed, top1 in enumerate(values):
                if isinstance(top1, str):
                    continue
                folder = studies / "runs" / f"{made:04x}{number:04x}{seed:08x}"
                write_run(folder, seed, top1, epochs=epochs, reads_test_set=reads_test_set)
                if images and top1 is not None:
                    like = (twins or {}).get(name, name)
                    write_predictions(folder, seed, top1, like, images)
                record = read_run(folder)
                assert record is not None
                runs.append(record)
            rows.append(
                RowResult(
                    name=name,
                    model={"backbone": "resnet50"},
                    macs=(macs or {}).get(name, 2_500_000_000 + 150_000_000 * number),
                    params=16_360_000 + 11_000 * number,
                    input_size=224,
                    runs=tuple(runs),
                    planned_seeds=seeds,
                    failed=(failed or {}).get(name, ()),
                    reported=(reported or {}).get(name),
                    **(rows_with or {}).get(name, {}),
                )
            )
        given: dict[str, Any] = {
            "title": "Attention in Res2Net-50",
            "description": "Where to put the attention.",
            "data": {"source": "cifar100", "validation_fraction": 0.1},
            "recipe": {"epochs": epochs, "optimizer": {"name": "sgd", "lr": 0.1}, "ema": None},
            "recipe_name": "report",
            "seeds": seeds,
            "varies": ("attention",),
            "baseline": next(iter(accuracies)),
            "rows": tuple(rows),
            "command": "blocklab study attention --seeds 3",
        }
        return StudyResults(**(given | fields))

    return build
