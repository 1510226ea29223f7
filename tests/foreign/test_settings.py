"""Runs of one row that were not trained alike: said, as their mean is of nothing that was run."""

from pathlib import Path

import pytest
from timm.utils.summary import update_summary

from blocklab.foreign.comparison import compare_runs
from blocklab.foreign.foreign_run import Wanted
from blocklab.foreign.runs import read_runs
from blocklab.foreign.settings import mixed_settings, settings_of


def timms(folder: Path, seed: int, **fields: object) -> None:
    folder.mkdir(parents=True)
    lines = [f"{name}: {value}" for name, value in {"seed": seed, **fields}.items()]
    (folder / "args.yaml").write_text("\n".join(lines) + "\n")
    update_summary(0, {"loss": 2.0}, {"top1": 70.0 + seed}, folder / "summary.csv")


def test_runs_of_other_settings_in_one_row_are_told(tmp_path: Path) -> None:
    for seed, lr in enumerate((0.1, 0.1, 0.4)):
        name = f"se_seed{seed}"
        timms(tmp_path / name, seed, model="se", lr=lr, output=name, experiment=name, workers=seed)
        timms(tmp_path / f"plain{seed}", seed, model="plain", lr=0.2)
    notes = compare_runs(read_runs([tmp_path], Wanted())).notes
    assert [note for note in notes if "alike" in note] == [
        "runs of se were not trained alike, and count as one row: lr 0.1 (seed 0, 1), 0.4 (seed 2)"
        "; tell them apart with --row"
    ]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ("model,seed,learning_rate,top1", "learning_rate 0.1 (seed 0), 0.2 (seed 1)"),
        ("model,seed,params.depth,top1", "depth 0.1 (seed 0), 0.2 (seed 1)"),
        ("model,seed,val_loss,top1", None),
        ("model,seed,params.output_dir,top1", None),
    ],
)
def test_of_a_table_those_that_are_called_so(tmp_path: Path, columns: str, told: str) -> None:
    table = tmp_path / "runs.csv"
    table.write_text(f"{columns}\nse,0,0.10,70\nse,1,0.2,71\n")
    notes = compare_runs(read_runs([table], Wanted(metric="top1"))).notes
    assert [note for note in notes if told and told in note] == [
        note for note in notes if "alike" in note
    ]
    assert bool(told) == any("alike" in note for note in notes)


def test_what_is_a_runs_own_is_no_setting() -> None:
    own = {
        "name": "a", "run_name": "b", "seed": 1, "data.seed": 2, "save_dir": "c", "logger.id": "x",
        "ckpt_path": "y", "time": 3, "trainer.devices": [0], "workers": 8, "data": "/mnt/cifar",
        "aa": None, "experiment": "z", "output": "o", "device": "cuda:1", "log_interval": 50,
    }  # fmt: skip
    mine = {
        "lr": 0.1, "optimizer.name": "adam", "drop_path": 0.1, "dropout": 0.5, "projection_dim": 64,
        "amp": True, "model.groups": 4, "epochs": 90, "data_set": "cifar100",
    }  # fmt: skip
    assert settings_of({**own, **mine}) == mine


def test_many_fields_and_values_are_told_in_short() -> None:
    runs = [("se", seed, {f"f{n}": str(seed) for n in range(9)}) for seed in range(6)]
    (note,) = mixed_settings(runs)
    assert "f3 0 (seed 0), 1 (seed 1), 2 (seed 2), 3 (seed 3), and 2 more values" in note
    assert "and 5 more fields; tell them apart" in note and "f4" not in note
    assert mixed_settings([("se", 0, {"lr": "1e-1"}), ("se", 1, {"lr": 0.1})]) == []
    assert mixed_settings([("se", 0, {"lr": 1}), ("plain", 1, {"lr": 2}), ("se", 2, {})]) == []
