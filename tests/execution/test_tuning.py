"""Learning rates tuned on validation images: what is tried, how it is chosen, what is recorded."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from blocklab.errors import InputError, RunError
from blocklab.execution.plan import make_plan
from blocklab.execution.train_studies import train_studies
from blocklab.execution.tuning import candidates, choose, with_candidates
from blocklab.results.ended_run import EndedRun
from blocklab.results.row_result import RowResult
from blocklab.results.study_results import StudyResults
from blocklab.study.study import Study


def study(**changes: Any) -> Study:
    value = {
        "title": "Tuned",
        "data": {"source": "digits", "train_images": 40, "test_images": 20},
        "recipe": {"base": "quick", "epochs": 1, "batch_size": 20, "flip": False},
        "seeds": [0, 1],
        "varies": ["attention"],
        "rows": {"plain": "resnet20", "se": "resnet20_se"},
        "tune": {"lr": [0.05, 0.1, 0.4], "seeds": [7, 8]},
        **changes,
    }
    return Study.parse(value, "tuned")


def results(of: Study, scores: dict[str, dict[int, float | None]]) -> StudyResults:
    """Return results of candidates with these validation accuracies; None is a diverged run."""
    rows = []
    for row in of.rows:
        runs = tuple(
            EndedRun(
                f"{seed}",
                seed,
                Path(),
                {},
                [],
                {"status": "diverged"}
                if score is None
                else {"status": "finished", "validation_top1_percent": score, "epochs": 1},
            )
            for seed, score in scores.get(row.name, {}).items()
        )
        rows.append(RowResult(row.name, {}, 1, 1, 32, runs, of.seeds))
    return StudyResults("t", "", {}, {}, "quick", of.seeds, of.varies, of.baseline, tuple(rows))


def test_every_row_is_tried_at_every_rate_with_equal_budgets_and_other_seeds() -> None:
    tuned = study()
    tried = candidates(tuned)
    assert tried is not None
    assert [row.name for row in tried.rows] == [
        f"{name} at lr {lr}" for name in ("plain", "se") for lr in (0.05, 0.1, 0.4)
    ]
    assert {row.recipe.epochs for row in tried.rows} == {1}
    assert [row.recipe.lr for row in tried.rows] == [0.05, 0.1, 0.4] * 2
    runs = [run.definition for run in tried.plan()]
    assert len(runs) == 2 * 3 * 2
    assert {run.seed for run in runs} == {7, 8}
    assert not {run.hash for run in runs} & {run.definition.hash for run in tuned.plan()}
    assert [one.name for one in with_candidates([tuned])] == ["tuned-tuning", "tuned"]
    plain = study(tune=None)
    assert candidates(plain) is None
    assert with_candidates([plain]) == (plain,)
    assert choose(plain, results(plain, {})) is plain


def test_the_data_say_whether_there_are_validation_images(tmp_path: Path) -> None:
    """A folder's own are used whatever the fraction is; of none nothing can be chosen."""
    none = study(data={"source": "digits", "train_images": 40, "validation_fraction": 0})
    with pytest.raises(InputError, match=r"'plain at lr 0.05' has none; set data"):
        make_plan([candidates(none) or none], tmp_path / "runs")
    assert not make_plan([study(tune=None)], tmp_path / "runs").finished
    for split in ("train", "val", "test"):
        for label in ("a", "b"):
            (tmp_path / "images" / split / label).mkdir(parents=True)
            for number in range(10):
                picture = Image.new("RGB", (32, 32), (25 * number, 9, 90 if label == "a" else 0))
                picture.save(tmp_path / "images" / split / label / f"{split}{number}.png")
    folder = {"source": f"folder:{tmp_path / 'images'}", "image_size": 32, "validation_fraction": 0}
    own = study(data=folder)
    assert len(make_plan([candidates(own) or own], tmp_path / "runs").jobs) == 12


def test_the_test_set_is_not_read_on_the_way() -> None:
    recipe = {"base": "report", "epochs": 1, "batch_size": 20}
    tuned = study(recipe=recipe)
    assert all(row.recipe.test_every_epoch for row in tuned.rows)
    tried = candidates(tuned)
    assert tried is not None
    assert not any(run.definition.recipe.test_every_epoch for run in tried.plan())


def test_the_best_mean_validation_accuracy_is_chosen_a_row() -> None:
    tuned = study()
    tried = candidates(tuned)
    assert tried is not None
    scores: dict[str, dict[int, float | None]] = {
        "plain at lr 0.05": {7: 50.0, 8: 52.0},
        "plain at lr 0.1": {7: 53.0, 8: 51.0},  # the best mean, though not the best run
        "plain at lr 0.4": {7: 10.0, 8: 60.0},
        "se at lr 0.05": {7: 40.0, 8: 40.0},
        "se at lr 0.1": {7: 40.0, 8: 40.0},  # as good: the first one listed is taken
        "se at lr 0.4": {7: 90.0, 8: None},  # diverged: counts for nothing
    }
    chosen = choose(tuned, results(tried, scores))
    assert [row.recipe.lr for row in chosen.rows] == [0.1, 0.05]
    assert chosen.tune is None
    assert "recipe.lr" in chosen.varies
    assert [row.name for row in chosen.rows] == ["plain", "se"]
    assert chosen.rows[0].tuned == {
        "lr": 0.1,
        "validation_top1_percent": {"0.05": 51.0, "0.1": 52.0, "0.4": 35.0},
        "seeds": [7, 8],
        "epochs": 1,
    }
    plain_note, se_note = chosen.notes[-2:]
    assert plain_note.startswith("plain: lr 0.1 chosen by validation top-1 (0.05: 51.00 %")
    assert "beyond" not in plain_note
    assert "not finished: 0.4" in se_note
    assert "the best is the smallest tried" in se_note


def test_a_row_without_any_finished_rate_is_an_error() -> None:
    tuned = study()
    tried = candidates(tuned)
    assert tried is not None
    with pytest.raises(
        RunError, match="no learning rate of 0.05, 0.1, 0.4 has fin".replace(".", r"\.")
    ):
        choose(tuned, results(tried, {"se at lr 0.1": {7: 1.0, 8: 1.0}}))


@pytest.mark.slow
def test_tuning_then_running_for_real(tmp_path: Path) -> None:
    tuned = study(seeds=[0], tune={"lr": [0.001, 0.1], "seeds": [7]})
    found = train_studies((tuned,), tmp_path, workers=1)[0]
    assert all(len(row.finished) == 1 for row in found.rows)
    assert "recipe.lr" in found.varies
    for row in found.rows:
        assert row.tuned is not None
        definition = row.runs[0].run["definition"]
        assert definition["recipe"]["lr"] == row.tuned["lr"]
        assert definition["seed"] == 0
    assert (tmp_path / "tuned-tuning" / "study.json").exists()
