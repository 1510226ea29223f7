"""Folders of runs, written by the programs' own writers where they can be installed here."""

from pathlib import Path

import pytest
from timm.utils.summary import update_summary

from blocklab.errors import InputError
from blocklab.foreign.foreign_run import ForeignRun, Wanted
from blocklab.foreign.runs import read_runs

CURVES = {("plain", 0): [50.0, 76.5], ("plain", 1): [51.0, 76.0], ("se", 0): [52.0, 77.25]}


def figures(runs: tuple[ForeignRun, ...]) -> dict[tuple[str, int], list[float]]:
    return {(run.row, run.seed): [pytest.approx(value) for _, value in run.figures] for run in runs}


def test_timms_own_summaries_are_read(tmp_path: Path) -> None:
    for (row, seed), curve in CURVES.items():
        folder = tmp_path / "train" / f"20260101-1200{seed}-{row}"
        folder.mkdir(parents=True)
        (folder / "args.yaml").write_text(f"model: {row}\nseed: {seed}\nlr: 0.1\naa: null\n")
        for epoch, top1 in enumerate(curve):
            measured = {"loss": 1.0, "top1": top1, "top5": 90.0}
            update_summary(epoch, {"loss": 2.0}, measured, folder / "summary.csv", lr=0.1)
    found = read_runs([tmp_path], Wanted())
    assert figures(found.runs) == CURVES
    assert found.metric == "eval_top1"
    assert found.origin == f"3 runs of timm in {tmp_path}"
    # Resumed: the heading again, an epoch again; an epoch without evaluation; half a line.
    update_summary(1, {"loss": 2.0}, measured, folder / "summary.csv", lr=0.1, write_header=True)
    update_summary(2, {"loss": 2.0}, {}, folder / "summary.csv", lr=0.1)
    with (folder / "summary.csv").open("a") as file:
        file.write("3,1.9")
    assert figures(read_runs([tmp_path], Wanted()).runs) == CURVES
    assert read_runs([tmp_path], Wanted(metric="eval_loss")).runs[0].figures == ((0, 1), (1, 1))


def test_a_field_of_the_configuration_names_the_row_where_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "args.yaml").write_text("model: plain\nseed: 3\nopt: {lr: 0.5}\n")
    update_summary(0, {}, {"top1": 5.0}, tmp_path / "summary.csv")
    (run,) = read_runs([tmp_path], Wanted(row="opt.lr")).runs
    assert (run.row, run.seed) == ("0.5", 3)
    with pytest.raises(
        InputError, match=r"has no field 'optt.lr' for --row; did you mean 'opt.lr'"
    ):
        read_runs([tmp_path], Wanted(row="optt.lr"))
    with pytest.raises(InputError, match=r"has 'eval_top2'; did you mean 'eval_top1'"):
        read_runs([tmp_path], Wanted(metric="eval_top2"))


def test_lightnings_own_logs_are_read(tmp_path: Path) -> None:
    loggers = pytest.importorskip("pytorch_lightning.loggers")
    for (row, seed), curve in CURVES.items():
        logger = loggers.CSVLogger(tmp_path, name=row)
        logger.log_hyperparams({"model": row, "seed": seed, "optim": {"lr": 0.1}})
        for epoch, top1 in enumerate(curve):
            logger.log_metrics({"train_loss": 2.0, "epoch": epoch}, step=10 * epoch + 5)
            logger.log_metrics({"val_acc": top1 / 100, "epoch": epoch}, step=10 * epoch + 9)
        logger.save()
    found = read_runs([tmp_path], Wanted(metric="val_acc"))
    assert figures(found.runs) == {key: [v / 100 for v in curve] for key, curve in CURVES.items()}
    assert [epoch for epoch, _ in found.runs[0].figures] == [0, 1] and found.by == "epoch"
    with pytest.raises(InputError, match=r"with --metric\. There: .*val_acc"):
        read_runs([tmp_path], Wanted())


def test_lightnings_logs_without_hyperparameters_are_told_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "se_seed4" / "version_0"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("epoch,step,acc\n0,9,0.5\n")
    (run,) = read_runs([tmp_path], Wanted(metric="acc")).runs
    assert (run.row, run.seed) == ("se", 4)
    (run,) = read_runs([tmp_path], Wanted(metric="acc", name="{row}_seed{seed}/*")).runs
    assert (run.row, run.seed) == ("se", 4)
    (folder.parent).rename(tmp_path / "se")
    with pytest.raises(InputError, match=r"no seed is said in .*version_0, nor by its name"):
        read_runs([tmp_path], Wanted(metric="acc"))


def test_tensorboards_own_event_files_are_read(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter  # writes by tensorboard's own writer

    for (row, seed), curve in CURVES.items():
        with SummaryWriter(tmp_path / f"{row}_seed{seed}") as writer:
            for epoch, top1 in enumerate(curve):
                writer.add_scalar("test/top1", top1, epoch)
                writer.add_scalar("train/loss", 1.0, epoch)
    found = read_runs([tmp_path], Wanted(metric="test/top1"))
    assert figures(found.runs) == CURVES
    assert found.origin == f"3 runs of TensorBoard in {tmp_path}"
    assert found.by == "step"
    with pytest.raises(InputError, match="There: test/top1, train/loss, step"):
        read_runs([tmp_path], Wanted(metric="accuracy"))


def test_scalars_that_are_kept_as_tensors_are_read(tmp_path: Path) -> None:
    """As TensorFlow 2 writes them."""
    pytest.importorskip("tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
    from tensorboard.util.tensor_util import make_tensor_proto

    (tmp_path / "seed_2").mkdir()
    writer = EventFileWriter(str(tmp_path / "se" / "seed_2"))
    for step, value in enumerate((40.0, 60.5)):
        one = Summary.Value(tag="top1", tensor=make_tensor_proto(value, dtype="float32"))
        writer.add_event(Event(step=step, summary=Summary(value=[one])))
    writer.close()
    (run,) = read_runs([tmp_path], Wanted(metric="top1")).runs
    assert (run.row, run.seed) == ("se", 2)
    assert run.figures == ((0, 40.0), (1, 60.5))


def test_ultralytics_results_are_read(tmp_path: Path) -> None:
    """Written as its trainer writes them: blanks before names in older versions."""
    for (row, seed), curve in CURVES.items():
        folder = tmp_path / f"train{row}{seed}"
        (folder / "weights").mkdir(parents=True)
        (folder / "args.yaml").write_text(f"task: classify\nmodel: {row}\nseed: {seed}\n")
        lines = ["                  epoch,             train/loss,  metrics/accuracy_top1"]
        lines += [f"{epoch + 1:23},{2.1:23},{top1 / 100:23}" for epoch, top1 in enumerate(curve)]
        (folder / "results.csv").write_text("\n".join(lines) + "\n")
    found = read_runs([tmp_path], Wanted())
    assert figures(found.runs) == {key: [v / 100 for v in curve] for key, curve in CURVES.items()}
    assert found.metric == "metrics/accuracy_top1"


def test_mmpretrains_logs_are_read_and_its_configuration_is_not_run(tmp_path: Path) -> None:
    for (row, seed), curve in CURVES.items():
        logs = tmp_path / row / f"20260101_00000{seed}" / "vis_data"
        logs.mkdir(parents=True)
        (logs / "config.py").write_text(
            f"model = dict(type='ImageClassifier', backbone=dict(depth=18, type='{row}'))\n"
            f"randomness = dict(deterministic=False, seed={seed})\n"
            f"raise SystemExit('it was run')\n"
        )
        lines = []
        for epoch, top1 in enumerate(curve, 1):
            lines.append(
                f'{{"lr": 0.1, "loss": 1.5, "epoch": {epoch}, "iter": 9, "step": {9 * epoch}}}'
            )
            lines.append(f'{{"accuracy/top1": {top1}, "time": 0.01, "step": {epoch}}}')
        (logs / "scalars.json").write_text("\n".join([*lines, '{"lr": 0.1, "lo']))
    found = read_runs([tmp_path], Wanted())
    assert figures(found.runs) == CURVES
    assert [epoch for epoch, _ in found.runs[0].figures] == [1, 2]
    first, *_ = read_runs([tmp_path], Wanted(row="model.backbone.type")).runs
    assert first.row == "plain"


def test_a_run_without_the_figure_is_named_and_counts_for_nothing(tmp_path: Path) -> None:
    for seed, text in enumerate(("epoch,eval_top1\n0,50\n", "epoch,eval_loss\n0,1\n")):
        folder = tmp_path / str(seed)
        folder.mkdir()
        (folder / "args.yaml").write_text(f"model: se\nseed: {seed}\n")
        (folder / "summary.csv").write_text(text)
    one, other = read_runs([tmp_path], Wanted()).runs
    assert one.figures and not other.figures
    with pytest.raises(InputError, match=r"0 has no 'epcoh'; did you mean 'epoch'"):
        read_runs([tmp_path], Wanted(epoch="epcoh"))
    with pytest.raises(InputError, match="leave --row and --seed out"):
        read_runs([tmp_path], Wanted(name="{row}_{seed}", row="model"))
    assert other.trouble == f"no eval_top1 in {tmp_path / '1'}"


def test_folders_that_hold_no_runs_or_damaged_ones_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no runs: none of summary.csv \(timm\)"):
        read_runs([tmp_path], Wanted())
    (tmp_path / "summary.csv").write_text("epoch,eval_top1\n0,50\n")
    (tmp_path / "args.yaml").write_text("model: [se\n")
    with pytest.raises(InputError, match=r"cannot read .*args.yaml") as error:
        read_runs([tmp_path], Wanted())
    assert "\n" not in str(error.value)
    # A tag that would build an object builds nothing; a name of it is no row.
    (tmp_path / "args.yaml").write_text(
        "model: !!python/object/apply:os.system ['touch x']\nseed: 1\n"
    )
    (run,) = read_runs([tmp_path], Wanted(name=None)).runs
    assert run.row == tmp_path.name and not Path("x").exists()


def test_what_lies_deeper_in_a_run_is_told(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    for where in ("", "se_seed0", "se_seed1"):
        with SummaryWriter(tmp_path / "logs" / where) as writer:
            writer.add_scalar("top1", 70.0, 0)
    (tmp_path / "logs").rename(tmp_path / "all_seed7")
    found = read_runs([tmp_path], Wanted(metric="top1"))
    assert [run.seed for run in found.runs] == [7]
    (note,) = found.notes
    assert "all_seed7 is read as one run, and what lies in se_seed0, and 1 more, is not" in note
    deeper = [tmp_path / "all_seed7" / f"se_seed{seed}" for seed in (0, 1)]
    found = read_runs(deeper, Wanted(metric="top1", name="{row}_seed{seed}"))
    assert [run.seed for run in found.runs] == [0, 1] and found.notes == ()
