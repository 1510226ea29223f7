"""``blocklab train`` and what can be done with the run it leaves."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file

from blocklab import load_run
from blocklab.errors import InputError, RunError
from blocklab.models.hub import from_pretrained
from blocklab.models.model_file import load_model
from blocklab.training.finished import FinishedRun
from blocklab.training.run_files import LOCK

Blocklab = Any
SMALL = ("--set", "epochs=2", "--set", "batch_size=16", "--set", "data.train_images=48")
SMALL = (*SMALL, "--set", "data.test_images=40")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from blocklab.cli.app import run

    out = tmp_path_factory.mktemp("runs")
    assert run(["train", "resnet20_se", "--data", "digits", "--out", str(out), *SMALL]) == 0
    (folder,) = (path.parent for path in out.glob("*/result.json"))
    return folder


def test_a_run_is_a_folder_of_the_contract(run_folder: Path) -> None:
    names = {path.name for path in run_folder.iterdir()}
    wanted = "run.json log.jsonl model.safetensors predictions.npz result.json"
    assert set(wanted.split()) <= names and "last.ckpt" not in names
    assert len((run_folder / "log.jsonl").read_text().splitlines()) == 2


def test_a_finished_run_is_not_trained_again(blocklab: Blocklab, run_folder: Path) -> None:
    before = (run_folder / "model.safetensors").stat().st_mtime_ns
    command = ("train", "resnet20_se", "--data", "digits", "--out", run_folder.parent)
    said = blocklab(*command, *SMALL, "--json")
    assert said.status == 0
    result = json.loads(said.out)
    assert result["run"] == str(run_folder)
    assert result["status"] == "finished" and result["epochs"] == 2
    assert (run_folder / "model.safetensors").stat().st_mtime_ns == before


def test_evaluate_repeats_the_result(blocklab: Blocklab, run_folder: Path) -> None:
    said = blocklab("evaluate", run_folder, "--json")
    assert said.status == 0, said.err
    measured = json.loads(said.out)
    result = json.loads((run_folder / "result.json").read_text())
    assert measured["images"] == 40
    for name in ("test_top1_percent", "test_top5_percent", "test_loss"):
        assert measured[name] == pytest.approx(result[name], abs=1e-6)
    assert blocklab("evaluate", run_folder).status == 0


def test_images_that_changed_since_are_not_measured_as_the_runs_own(
    blocklab: Blocklab, tmp_path: Path
) -> None:
    """A new image draws the splits anew: most of the test images would have been trained on."""
    noise = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(24):
            pixels = noise.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number:02d}.png")
    of = ("--data", f"folder:{tmp_path / 'data'}")
    few = ("--set", "epochs=1", "--set", "batch_size=8")
    said = blocklab("train", "resnet20", *of, "--out", tmp_path / "runs", *few, "--json")
    assert said.status == 0, said.err
    run = Path(json.loads(said.out)["run"])
    assert blocklab("evaluate", run).err == ""
    whole = blocklab("evaluate", run, *of, "--json")
    assert "is what the run was trained on, and all of it was measured" in whole.err
    assert json.loads(whole.out)["images"] == 48 and "note" in json.loads(whole.out)
    (tmp_path / "data" / "a" / "24.png").write_bytes(
        (tmp_path / "data" / "b" / "03.png").read_bytes()
    )
    for command in (("evaluate", run), ("diagnose", run, "--first", 1, "--last", 1)):
        said = blocklab(*command)
        assert said.status == 2, said
        assert "changed since" in said.err and "put them back" in said.err
    assert blocklab("evaluate", run, *of).status == 0


def test_a_run_finds_the_validation_images_of_its_seed(blocklab: Blocklab, tmp_path: Path) -> None:
    given = ("--seed", 3, *SMALL, "--set", "data.vary_split=true")
    said = blocklab("train", "resnet20", "--data", "digits", "--out", tmp_path, *given, "--json")
    folder = Path(json.loads(said.out)["run"])
    last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    measured = json.loads(blocklab("evaluate", folder, "--split", "validation", "--json").out)
    assert measured["validation_loss"] == pytest.approx(last["validation_loss"], abs=1e-6)


def test_every_way_to_a_runs_network_says_how_its_images_are_prepared(
    blocklab: Blocklab, run_folder: Path, tmp_path: Path
) -> None:
    """By other means and crops the same weights give other answers."""
    import blocklab as package
    from blocklab.models.hub import from_pretrained, save_pretrained
    from blocklab.models.model_file import load_model

    opened = package.load_run(run_folder)
    mean, std = opened.normalisation
    assert mean != pytest.approx((0.485, 0.456, 0.406), abs=1e-3)
    to = tmp_path / "hub"
    assert blocklab("export", run_folder, "--format", "hub", "--to", to).status == 0
    save_pretrained(load_model(run_folder), tmp_path / "again")
    networks = [opened.model, load_model(run_folder), from_pretrained(to)]
    networks.append(from_pretrained(tmp_path / "again"))
    for network in networks:
        cfg = network.pretrained_cfg
        assert cfg["mean"] == pytest.approx(mean) and cfg["std"] == pytest.approx(std)
        assert tuple(cfg["input_size"]) == (3, 32, 32)
        assert (cfg["crop_pct"], cfg["interpolation"]) == (1.0, "bicubic")
    for network in networks[:-1]:  # the last was saved without names
        assert list(network.pretrained_cfg["label_names"]) == list(opened.class_names)


def test_evaluate_says_which_images_there_are_none_of(
    blocklab: Blocklab, run_folder: Path, tmp_path: Path
) -> None:
    said = blocklab("evaluate", run_folder, "--data", "digits", "--split", "validation")
    assert said.status == 2 and said.err.count("\n") == 1
    assert "has no validation images; measure on another split" in said.err


@pytest.mark.parametrize(
    ("change", "most"), [("cutout=16", 15), ("cutout=99999", 15), ("crop_padding=9", 8)]
)
def test_an_augmentation_that_leaves_nothing_is_refused_before_training(
    blocklab: Blocklab, tmp_path: Path, change: str, most: int
) -> None:
    small = ("--data", "digits", "--set", "data.image_size=8", "--set", "epochs=1")
    said = blocklab("train", "resnet20", *small, "--set", change, "--out", tmp_path)
    assert said.status == 2 and f"set at most {most}" in said.err
    assert not list(tmp_path.glob("*/log.jsonl"))


@pytest.mark.parametrize("layout", ["flat", "test alone", "some classes"])
def test_evaluate_measures_other_images_whole(
    layout: str, blocklab: Blocklab, run_folder: Path, tmp_path: Path
) -> None:
    """The run's own test images, written into folders: the same accuracy, to the image."""
    test = FinishedRun.open(run_folder).open_data().test
    own = json.loads(blocklab("evaluate", run_folder, "--json").out)
    pixels, labels = test.pixels(slice(None)), test.targets
    names = [name for name in map(str, range(10)) if layout != "some classes" or name > "4"]
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        if str(label) in names:
            place = tmp_path / "set" / ("test" if layout == "test alone" else "") / str(label)
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{number}.png")
    said = blocklab("evaluate", run_folder, "--data", f"folder:{tmp_path / 'set'}", "--json")
    assert said.status == 0, said.err
    measured = json.loads(said.out)
    assert measured["images"] == sum(str(label) in names for label in labels)
    if layout != "some classes":
        assert measured["images"] == 40
        for name in ("test_top1_percent", "test_top5_percent", "test_loss"):
            assert measured[name] == pytest.approx(own[name], abs=1e-6)


def test_evaluate_joins_the_labels_of_a_table_by_name(
    blocklab: Blocklab, run_folder: Path, tmp_path: Path
) -> None:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    test = FinishedRun.open(run_folder).open_data().test
    own = json.loads(blocklab("evaluate", run_folder, "--json").out)
    images = []
    for image in test.pixels(slice(None)):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        images.append({"bytes": stream.getvalue()})
    names = list("9876543210")  # another order than the run's
    labels = [names.index(str(label)) for label in test.targets]
    note = json.dumps({"info": {"features": {"label": {"names": names}}}})
    table = pa.table({"img": images, "label": labels}).replace_schema_metadata(
        {"huggingface": note}
    )
    (tmp_path / "set").mkdir()
    for name in ("test", "train"):  # the second measured whole
        for old in (tmp_path / "set").iterdir():
            old.unlink()
        pq.write_table(table, tmp_path / "set" / f"{name}.parquet")
        said = blocklab("evaluate", run_folder, "--data", f"parquet:{tmp_path / 'set'}", "--json")
        assert said.status == 0, said.err
        measured = json.loads(said.out)
        assert measured["images"] == 40
        assert measured["test_loss"] == pytest.approx(own["test_loss"], abs=1e-6)


def test_evaluate_refuses_other_classes(
    blocklab: Blocklab, run_folder: Path, tmp_path: Path
) -> None:
    for number, name in enumerate(("0", "1", "cat")):
        (tmp_path / "set" / name).mkdir(parents=True)
        pixels = np.full((32, 32, 3), 40 * number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "set" / name / "0.png")
    said = blocklab("evaluate", run_folder, "--data", f"folder:{tmp_path / 'set'}")
    assert said.status == 2 and said.err.count("\n") == 1
    assert "set has other classes (cat) than the run (0, 1, 2 and 7 more)" in said.err


def test_predict_names_classes(blocklab: Blocklab, run_folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (40, 30, 3), np.uint8)).save(path)
    said = blocklab("predict", run_folder, *paths, "--top", 3, "--json")
    assert said.status == 0, said.err
    found = json.loads(said.out)
    assert [one["image"] for one in found] == list(map(str, paths))
    for one in found:
        shares = [named["probability"] for named in one["classes"]]
        assert len(shares) == 3 and shares == sorted(shares, reverse=True)
        assert 0 < sum(shares) <= 1.0001
        assert all(named["class"] in "0123456789" for named in one["classes"])


def test_predict_goes_on_past_a_corrupt_image(
    blocklab: Blocklab, run_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    names = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "in" / "c.jpg"]
    for number, path in enumerate(names):
        Image.fromarray(np.full((9, 9, 3), 99 * number, np.uint8)).save(path)
    names[1].write_bytes(names[1].read_bytes()[:40])
    (tmp_path / "notes.txt").write_text("no image")
    for given in ([tmp_path], names):  # a folder, and its files
        said = blocklab("predict", run_folder, *given, "--json")
        assert said.status == 1
        kept = [str(names[0]), str(names[2])]
        assert [one["image"] for one in json.loads(said.out)] == kept
        assert said.err.startswith("error: ") and said.err.count("\n") == 1
        assert str(names[1]) in said.err
    shown = blocklab("predict", run_folder, tmp_path)
    assert shown.status == 1 and "a.png" in shown.out and "c.jpg" in shown.out
    (tmp_path / "empty").mkdir()
    empty = blocklab("predict", run_folder, tmp_path / "empty")
    assert empty.status == 2 and "holds no images" in empty.err


def test_a_run_predicts_in_python(run_folder: Path, tmp_path: Path) -> None:
    """Every way to give an image's 8 bits is one image; a foreign size is resized as a file's."""
    run = load_run(str(run_folder))
    assert repr(run).startswith(f"<run {run_folder} of ") and len(repr(run)) < 300
    for wrong in (None, 3, ""):
        with pytest.raises(InputError, match="load_run takes the name of a run"):
            load_run(wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="there is no run 'plain:0'"):
        load_run("plain:0")
    rng = np.random.default_rng(0)
    for shape in ((32, 32, 3), (40, 30, 3)):
        pixels = rng.integers(0, 256, shape, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        first = torch.from_numpy(pixels).permute(2, 0, 1)
        (expected,) = run.predict(tmp_path / "a.png", top=10)
        assert expected.image == str(tmp_path / "a.png")
        assert {name for name, _ in expected.classes} == set(map(str, range(10)))
        assert (expected.name, expected.probability) == expected.classes[0]
        assert sum(share for _, share in expected.classes) == pytest.approx(1, abs=1e-5)
        ways = [str(tmp_path / "a.png"), Image.open(tmp_path / "a.png"), pixels, pixels / 255]
        found = run.predict([*ways, first, first[None] / 255, pixels[None]], top=10)
        assert len(found) == 7
        for one in found:
            assert one.classes == expected.classes
    grey = np.linspace(0, 1, 32 * 32).reshape(32, 32)
    (flat, deep) = run.predict([grey, np.repeat(grey[..., None], 3, 2)])
    assert flat.classes == deep.classes and flat.image == "image 0"


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.full((32, 32, 3), 255.0), "values from 255 to 255; floats are from 0 to 1"),
        (np.full((32, 32, 3), np.nan), "values from nan to nan"),
        (np.zeros((32, 32, 3), int), "is of int64"),
        (np.zeros((32, 32, 2), np.uint8), r"shape \(32, 32, 2\)"),
        (torch.zeros(3, 0, 4), r"shape \(3, 0, 4\)"),
        ([[1, 2]], "a list is no image"),
        (3, "a int is no image"),
        ("absent.png", "there is no image absent.png; check the path"),
    ],
)
def test_what_is_no_image_is_refused(image: Any, said: str, run_folder: Path) -> None:
    with pytest.raises(InputError, match=said):
        load_run(run_folder).predict(image)


def test_a_run_is_a_model_file(run_folder: Path, tmp_path: Path) -> None:
    expected = FinishedRun.open(run_folder).model.state_dict()
    for path in (run_folder, run_folder / "model.safetensors"):
        model = load_model(path)
        assert model.num_classes == 10 and not model.training
        found = model.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)
    for name in ("model.safetensors", "run.json", "result.json"):
        copied = tmp_path / name / run_folder.name
        shutil.copytree(run_folder, copied)
        content = bytearray((copied / name).read_bytes())
        content[-100 if name == "model.safetensors" else 60] ^= 1
        (copied / name).write_bytes(bytes(content))
        with pytest.raises(RunError, match="damaged"):
            load_model(copied)
        with pytest.raises(RunError, match=r"damaged|holds another run"):
            load_run(copied)
    (copied / "model.safetensors").unlink()
    with pytest.raises(InputError, match="they were not kept; name another run"):
        load_model(copied)


def test_diagnose_counts_zeros(blocklab: Blocklab, run_folder: Path) -> None:
    said = blocklab("diagnose", run_folder, "--first", 1, "--last", 1, "--json")
    assert said.status == 0, said.err
    assert json.loads(said.out)
    small = blocklab("diagnose", run_folder, "--json")  # has no batch 30
    assert small.status == 0, small.err
    assert json.loads(small.out) == json.loads(said.out)
    late = blocklab("diagnose", run_folder, "--first", 30)
    assert late.status == 2 and late.err.count("\n") == 1
    assert "40 test images make 1 batch, and --first is 30; begin at 1" in late.err


def test_export_safetensors(blocklab: Blocklab, run_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "exported.safetensors"
    said = blocklab("export", run_folder, "--format", "safetensors", "--to", path)
    assert said.status == 0, said.err
    assert load_file(path).keys() == load_file(run_folder / "model.safetensors").keys()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train", "resnet20"), "--data"),
        (("train", "resnet20x", "--data", "digits"), "did you mean 'resnet20'"),
        (("train", "resnet20", "--data", "digit"), "did you mean 'digits'"),
        (("train", "resnet20", "--data", "digits", "--recipe", "qick"), "did you mean 'quick'"),
        (("train", "resnet20", "--data", "digits", "--set", "epoch=3"), "epochs"),
        (("train", "resnet20", "--data", "digits", "--set", "epochs"), "FIELD=VALUE"),
        (("train", "resnet20", "--data", "digits", "--set", "epochs=0"), "greater than 0"),
        (("train", "resnet20", "--data", "digits", "--set", "lr=fast"), "number"),
        (("train", "resnet20", "--data", "digits", "--set", "batch_size=1"), "batch_size"),
        (("train", "resnet20", "--data", "digits", "--set", "data.image_size=-1"), "greater than"),
        (("train", "resnet20", "--data", "digits", "--seed", -1), "seed"),
        (("train", "resnet20", "--data", "digits", "--set", "optimizer=sdg"), "optimizer"),
        (("train", "resnet20", "--data", "folder:/no/such", "--set", "epochs=1"), "/no/such"),
        (("train", "resnet20", "--data", "digits", "--threads", 0), "threads"),
        (("train", "resnet20", "--data", "digits", "--threads", 99), "threads"),
        (("train", "resnet20", "--data", "digits", "--set", "cutout=99"), "set at most"),
        (("train", "resnet20", "--data", "digits", "--pretrained", "gone.pth"), "gone.pth"),
        (
            ("train", "resnet20", "--data", "digits", "--devices", 2, "--set", "batch_size=2"),
            "devi",
        ),
        (("evaluate", "/no/such/run"), "there is no run's folder"),
        (("predict", "/no/such/run", "a.png"), "there is no run's folder"),
        (("export", "/no/such/run", "--format", "tflite"), "tflite"),
        (("report", "/no/such/study"), "study"),
    ],
)
def test_wrong_input_is_one_line(
    blocklab: Blocklab, tmp_path: Path, arguments: tuple[object, ...], says: str
) -> None:
    if arguments[0] == "train":
        arguments = (*arguments, "--out", tmp_path / "runs")
    said = blocklab(*arguments)
    assert said.status == 2, said.err
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    assert says in said.err
    assert not list(tmp_path.iterdir()), "what is refused leaves nothing"


def test_a_folder_that_is_there_stays_where_a_run_is_refused(
    blocklab: Blocklab, tmp_path: Path
) -> None:
    wrong = ("train", "resnet20", "--data", "digits", "--set", "cutout=99")
    (tmp_path / "kept").mkdir()
    assert blocklab(*wrong, "--out", tmp_path / "kept").status == 2
    assert not list((tmp_path / "kept").iterdir())
    assert blocklab(*wrong, "--out", tmp_path / "made" / "deep").status == 2
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "resnet20", "--data", "digits", "--out"),
        ("study", "quickstart", "--dry-run", "--out"),
        ("records", "quickstart", "records", "--out"),
        ("plan", "quickstart", "--gain", "1", "--sd", "1", "--out"),
        ("compare", "none.csv", "--out"),
        ("quickstart", "--out"),
        ("runs", "--out"),
        ("new", "block", "my_gate", "--to"),
        ("figure", "kernels", "resnet20", "--to"),
        ("records", "quickstart"),
    ],
)
def test_a_file_is_no_folder_to_write_to(
    blocklab: Blocklab, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    file = tmp_path / "runs"
    file.write_text("a file, not a folder")
    for given in (file, file / "in it"):
        said = blocklab(*arguments, given)
        assert said.status == 2, said.err
        assert said.err.count("\n") == 1 and f"{file} is a file; name a folder" in said.err


# What needs a network with its weights.
USES = [
    ("evaluate",),
    ("predict", "a.png"),
    ("diagnose",),
    ("export", "--format", "safetensors"),
    ("figure", "grad_cam"),
]


@pytest.mark.parametrize("use", USES)
def test_a_run_without_weights_or_result_is_refused_with_what_to_do(
    blocklab: Blocklab, make_run: Any, tmp_path: Path, use: tuple[str, ...]
) -> None:
    def said_of(folder: Path) -> str:
        before, after = (use, ()) if use[0] == "figure" else (use[:1], use[1:])
        said = blocklab(*before, folder, *after)
        assert (said.status, said.err.count("\n")) == (2, 1), said.err
        return said.err

    diverged = make_run(tmp_path, top1=None)
    assert "diverged: it has no weights to use; name a run that finished" in said_of(diverged)
    (diverged / "result.json").unlink()
    assert "has not ended; run its study or training again, which goes on" in said_of(diverged)
    with FileLock(diverged / LOCK):
        assert "is being trained; wait for it to end" in said_of(diverged)


def test_a_model_is_not_made_of_a_run_without_weights(make_run: Any, tmp_path: Path) -> None:
    diverged = make_run(tmp_path, top1=None)
    with pytest.raises(InputError, match="its run diverged, or they were not kept; name another"):
        load_model(diverged)
    (diverged / "result.json").unlink()
    with pytest.raises(InputError, match="let its run end first: run its study or training again"):
        load_model(diverged)


def test_images_that_are_none(blocklab: Blocklab, run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    for name in ("text.png", "absent.png"):
        said = blocklab("predict", run_folder, tmp_path / name)
        assert said.status == 2 and said.err.count("\n") == 1 and name in said.err


def test_export_says_what_it_wrote(blocklab: Blocklab, run_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    arguments = ("export", run_folder, "--format", "torch_export", "--to", path)
    options = ("--input-size", "8x16", "--dynamic", "batch,width", "--normalized", "--fp16")
    said = blocklab(*arguments, *options, "--json")
    assert said.status == 0, said.err
    wrote = json.loads(said.out)
    assert wrote["run"] == str(run_folder) and wrote["path"] == str(path)
    assert wrote["input_size"] == [8, 16] and wrote["dynamic"] == ["batch", "width"]
    assert wrote["fp16"] is wrote["normalized"] is True and wrote["difference"] < 0.02
    said = blocklab(*arguments, "--dynamic", "")
    assert said.status == 0 and "32x32;" in said.out and "free" not in said.out
    said = blocklab(*arguments, "--dynamic", "batch,depth")
    assert said.status == 2 and "not 'depth'" in said.err and said.err.count("\n") == 1
    said = blocklab("export", run_folder, "--format", "safetensors", "--opset", 18)
    assert said.status == 2 and said.err.count("\n") == 1


def test_export_replaces_its_own_alone(
    blocklab: Blocklab, run_folder: Path, tmp_path: Path
) -> None:
    arguments = ("export", run_folder, "--format", "hub", "--to")
    (tmp_path / "README.md").write_text("mine")
    said = blocklab(*arguments, tmp_path)
    assert said.status == 2 and "--force" in said.err and said.err.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["README.md"]
    assert blocklab(*arguments, tmp_path, "--force").status == 0
    assert blocklab(*arguments, tmp_path).status == 0
    said = blocklab(*arguments, run_folder)  # whose weights are the run's
    assert said.status == 2 and "model.safetensors" in said.err


def test_a_hub_folder_says_nothing_of_this_machine(blocklab: Blocklab, tmp_path: Path) -> None:
    for number in range(24):
        file = tmp_path / "at home" / "pets" / ("cat", "dog")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number * 9, 99, 0)).save(file)
    out = tmp_path / "runs"
    data = f"folder:{tmp_path / 'at home' / 'pets'}"
    said = blocklab(
        "train",
        "resnet20",
        "--data",
        data,
        "--out",
        out,
        "--set",
        "epochs=1",
        "--set",
        "batch_size=2",
    )
    assert said.status == 0, said.err
    (run,) = (path.parent for path in out.glob("*/result.json"))
    mean = json.loads((run / "run.json").read_text())["data_mean"]
    said = blocklab("export", run, "--format", "hub", "--to", tmp_path / "hub")
    assert said.status == 0, said.err
    for name in ("README.md", "config.json"):
        assert str(tmp_path) not in (tmp_path / "hub" / name).read_text()
    assert "Results on pets" in (tmp_path / "hub" / "README.md").read_text()
    assert from_pretrained(tmp_path / "hub").pretrained_cfg["mean"] == pytest.approx(mean)
