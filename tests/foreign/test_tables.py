"""Tables of runs as people have them: long CSV, TSV, JSON Lines, W&B's and MLflow's exports."""

import json
from pathlib import Path

import pytest

from blocklab.errors import InputError
from blocklab.foreign.foreign_run import ForeignRun, Wanted
from blocklab.foreign.runs import read_runs

ASKED = Wanted(metric="top1")


def table(folder: Path, text: str, name: str = "results.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def figures(runs: tuple[ForeignRun, ...]) -> dict[tuple[str, int], list[float]]:
    return {(run.row, run.seed): [value for _, value in run.figures] for run in runs}


EXPECTED = {("plain", 0): [76.5], ("plain", 1): [76.0], ("se", 0): [77.25]}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "model,seed,top1\nplain,0,76.5\nplain,1,76\n\nse,0,77.25%\n"),
        ("a.csv", "model;seed;top1\nplain;0;76,5\nplain;1;76\nse;0;77,25\n"),
        ("a.csv", "\ufeffmodel, seed, TOP1\nplain, 0.0, 76.5\nplain, 1.0, 76\nse, 0.0, 77.25\n"),
        ("a.tsv", "model\tseed\ttop1\nplain\t0\t76.5\nplain\t1\t76\nse\t0\t77.25\n"),
        (
            "a.jsonl",
            '{"model": "plain", "seed": 0, "top1": 76.5}\n{"model": "plain", "seed": 1, "top1": 76}'
            '\n\n{"top1": 77.25, "model": "se", "seed": "0", "more": {"lr": 0.1}}\n',
        ),
    ],
)
def test_a_line_a_run_in_each_form(tmp_path: Path, name: str, text: str) -> None:
    found = read_runs([table(tmp_path, text, name)], ASKED)
    assert figures(found.runs) == EXPECTED
    assert not found.notes


def test_lines_of_epochs_are_one_run_in_the_order_of_epochs(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "row,seed,epoch,top1\nse,0,2,70\nse,0,10,75\nse,0,1,60\nse,1,1,61\nse,1,2,\nse,1,3,nan\n",
    )
    one, other = read_runs([path], ASKED).runs
    assert one.figures == ((1.0, 60.0), (2.0, 70.0), (10.0, 75.0))
    assert [epoch for epoch, _ in other.figures] == [1.0, 3.0]


def test_an_export_of_wandb_counts_finished_runs_alone(tmp_path: Path) -> None:
    """As its table of runs is downloaded: Name, State, then configuration and summary."""
    path = table(
        tmp_path,
        '"Name","State","Notes","User","Tags","Created","Runtime","Sweep","model","seed","val/top1"\n'
        '"brisk-sun-1","finished","-","me","","2026-01-01T00:00:00.000Z","90","","plain","0","76.5"\n'
        '"calm-moon-2","finished","-","me","","2026-01-01T00:00:00.000Z","90","","plain","1","76"\n'
        '"dry-hill-4","crashed","-","me","","2026-01-01T00:00:00.000Z","20","","se","1","31.5"\n'
        '"cold-lake-3","finished","-","me","","2026-01-01T00:00:00.000Z","90","","se","0","77.25"\n',
    )
    found = read_runs([path], Wanted(metric="val/top1"))
    assert figures(found.runs) == EXPECTED | {("se", 1): []}
    assert [run.trouble for run in found.runs if run.trouble] == [
        f"its state is 'crashed' ({path}, line 4)"
    ]


def test_names_of_runs_tell_row_and_seed(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "Name,State,acc\nplain_s0,finished,76.5\nplain_s1,finished,76\nse_s0,finished,77.25\n",
    )
    asked = Wanted(row="Name", metric="acc", name="{row}_s{seed}")
    assert figures(read_runs([path], asked).runs) == EXPECTED
    with pytest.raises(InputError, match=r"line 2: the name 'plain_s0' is not of --name"):
        read_runs([path], Wanted(row="Name", metric="acc", name="{row}-{seed}"))
    with pytest.raises(InputError, match=r"has \{row\} and \{seed\} in it, each once"):
        read_runs([path], Wanted(row="Name", metric="acc", name="{row}"))


def test_an_export_of_mlflow_needs_no_prefixes(tmp_path: Path) -> None:
    """As `search_runs(...).to_csv()` and `mlflow experiments csv` write it."""
    head = "run_id,experiment_id,status,artifact_uri,start_time,end_time,metrics.top1,params.model,"
    path = table(
        tmp_path,
        f"{head}params.seed,tags.mlflow.runName\n"
        "a1,0,FINISHED,x,2026,2026,76.5,plain,0,one\n"
        "a2,0,FINISHED,x,2026,2026,76.0,plain,1,two\n"
        "a3,0,FINISHED,x,2026,2026,77.25,se,0,three\n"
        "a4,0,FAILED,x,2026,2026,,se,1,four\n",
    )
    found = read_runs([path], ASKED)
    assert figures(found.runs) == EXPECTED | {("se", 1): []}
    (trouble,) = [run.trouble for run in found.runs if run.trouble]
    assert trouble.startswith("its status is 'FAILED'")


STATED = "Name,State,model,seed,epoch,top1\n"


def test_a_line_of_an_export_is_a_whole_run_at_whatever_epoch(tmp_path: Path) -> None:
    """Newest first: the run that was done again stands above the one that crashed."""
    lines = "s0b,finished,se,0,89,76.9\ns0a,crashed,se,0,12,41\ns1,finished,se,1,90,77\n"
    path = table(tmp_path, STATED + lines)
    found = read_runs([path], ASKED)
    assert figures(found.runs) == {("se", 0): [76.9], ("se", 1): [77.0]}
    assert not any(run.trouble for run in found.runs)
    (note,) = found.notes
    assert note == f"se, seed 0: a run is left out, its state is 'crashed' ({path}, line 3)"
    twice = table(tmp_path, STATED + lines + "s1b,finished,se,1,12,70\n")
    with pytest.raises(InputError, match=r"row 'se' has seed 1 twice: .*line 4 and .*line 5"):
        read_runs([twice], ASKED)
    # A name of several lines is a run's curve.
    curve = table(tmp_path, STATED + "s0,finished,se,0,1,70\ns0,finished,se,0,2,76.9\n")
    assert figures(read_runs([curve], ASKED).runs) == {("se", 0): [70.0, 76.9]}
    # Without seeds each line is a run, too.
    unseeded = table(
        tmp_path, "Name,State,model,epoch,top1\na,finished,se,1,76\nb,finished,se,1,77\n"
    )
    assert figures(read_runs([unseeded], ASKED).runs) == {("se", 0): [76.0], ("se", 1): [77.0]}


def test_without_seeds_a_rows_runs_are_numbered_and_that_is_said(tmp_path: Path) -> None:
    path = table(tmp_path, "row,top1\nplain,76.5\nse,77.25\nplain,76\n")
    found = read_runs([path], ASKED)
    assert figures(found.runs) == EXPECTED
    assert found.notes == ("results.csv has no seeds: a row's runs are numbered as they come",)


def test_several_tables_are_read_as_one(tmp_path: Path) -> None:
    one = table(tmp_path, "model,seed,top1\nplain,0,76.5\nplain,1,76\n", "one.csv")
    other = table(tmp_path, json.dumps({"model": "se", "seed": 0, "top1": 77.25}), "two.jsonl")
    assert figures(read_runs([one, other], ASKED).runs) == EXPECTED
    with pytest.raises(InputError, match=r"row 'plain' has seed 0 twice: .* line 2 and .* line 2"):
        read_runs([one, one], ASKED)


@pytest.mark.parametrize(
    ("text", "wanted", "said"),
    [
        (
            "model,seed,top1\nse,0,1\n",
            Wanted(metric="top2"),
            "no column 'top2'; did you mean 'top1'",
        ),
        ("model,seed,top1\nse,0,1\n", Wanted(), "with --metric. There: model, seed, top1"),
        ("net,seed,top1\nse,0,1\n", ASKED, "name the one that tells rows apart with --row"),
        ("model,seed,top1\nse,0,1\n", Wanted(row="net", metric="top1"), "no column 'net'"),
        ("model,seed,top1\nse,0,1\nse,0,2\n", ASKED, r"row 'se' has seed 0 twice: .*line 2 and"),
        ("model,seed,epoch,top1\nse,0,1,1\nse,0,1,2\n", ASKED, "seed 0, epoch 1, twice"),
        ("model,epoch,top1\nse,1,1\nse,2,2\n", ASKED, "runs cannot be told apart"),
        ("model,seed,top1\nse,0,1\nse,x,2\n", ASKED, "line 3: the seed, seed, is 'x'"),
        ("model,seed,top1\nse,0,1\nse,,2\n", ASKED, "line 3: the seed, seed, is empty"),
        ("model,seed,top1\nse,0.5,1\n", ASKED, "a seed is a whole number from 0"),
        ("model,seed,top1\nse,0,1_0.5\n", ASKED, "line 2: top1 is '1_0.5', which is no number"),
        ("model,seed,top1\nse,0,good\n", ASKED, "line 2: top1 is 'good', which is no number"),
        ("model,seed,top1\n,0,1\n", ASKED, "line 2: the row's name is ''"),
        ("model,seed,top1\nse,0\n", ASKED, "line 2 has 2 cells, and the heading 3"),
        ("model,seed,top1,top1\nse,0,1,2\n", ASKED, "has 2 columns 'top1'"),
        ("model,seed,top1\n", ASKED, "no line under its heading"),
        ("model,seed,epoch,top1\nse,0,1,5\nse,0,nan,6\n", ASKED, "line 3: epoch is nan, which"),
        ("model,seed,epoch,top1\nse,0,inf,6\n", ASKED, "line 2: epoch is inf, which is no epoch"),
        (
            "model,seed,top1\nse_s1,0,6\n",
            Wanted(metric="top1", name="{row}_s{seed}", seed="seed"),
            "--name tells a run's seed; leave --seed out",
        ),
        ("", ASKED, "no line under its heading"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_in_one_line(
    tmp_path: Path, text: str, wanted: Wanted, said: str
) -> None:
    with pytest.raises(InputError, match=said) as error:
        read_runs([table(tmp_path, text)], wanted)
    assert "\n" not in str(error.value)


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no .*nothing\.csv"):
        read_runs([tmp_path / "nothing.csv"], ASKED)
    with pytest.raises(InputError, match=r"is no table that is read here \(.csv"):
        read_runs([table(tmp_path, "x", "results.xlsx")], ASKED)
    (tmp_path / "latin.csv").write_bytes(b"model,seed,top1\n\xe9,0,1\n")
    with pytest.raises(InputError, match="not text in UTF-8"):
        read_runs([tmp_path / "latin.csv"], ASKED)
    with pytest.raises(InputError, match="line 1 is no JSON object"):
        read_runs([table(tmp_path, "[1]\n", "a.jsonl")], ASKED)
    with pytest.raises(InputError, match="line 1 is no JSON"):
        read_runs([table(tmp_path, "{\n", "a.jsonl")], ASKED)
