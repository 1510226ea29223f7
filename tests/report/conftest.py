"""Studies whose run folders are made up, read as a report reads them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blocklab.results.ended_run import read_ended_run
from blocklab.results.row_result import RowResult
from blocklab.results.study_results import StudyResults
from blocklab.study.reported import Reported
from blocklab.training.run_reader import RunReader

MakeResults = Callable[..., StudyResults]


@pytest.fixture
def make_results(tmp_path: Path, make_run: Callable[..., Path]) -> MakeResults:
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
                folder = make_run(
                    studies / "runs",
                    name,
                    seed,
                    top1,
                    epochs=epochs,
                    images=images,
                    like=(twins or {}).get(name, name),
                    model={"row": number, "study": made},
                    reads_test_set=reads_test_set,
                )
                record = read_ended_run(RunReader(folder))
                assert record is not None
                runs.append(record)
            rows.append(
                RowResult(
                    name=name,
                    macs=(macs or {}).get(name, 2_500_000_000 + 150_000_000 * number),
                    params=16_360_000 + 11_000 * number,
                    input_size=224,
                    runs=tuple(runs),
                    planned_seeds=seeds,
                    failed=(failed or {}).get(name, ()),
                    reported=(reported or {}).get(name),
                    **({"model": {"backbone": "resnet50"}} | (rows_with or {}).get(name, {})),
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
