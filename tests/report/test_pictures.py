"""`blocklab figure`: each figure by its command, as SVG and PNG, of runs, models and recipes."""

import json
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blocklab.cli.app import run as blocklab
from blocklab.errors import InputError
from blocklab.measure.saliency import LetThrough, Maps, grad_cam, let_through
from blocklab.models.probe import noise_images
from blocklab.report.named_figures import draw, place_of
from blocklab.report.pictures import Seen, attention_figure
from blocklab.report.run_pictures import Subject
from blocklab.study.study import Study
from blocklab.training.run import execute_run

STUDY = """\
title: Two tiny networks
data: {source: digits, train_images: 48, test_images: 40}
recipe: {base: quick, epochs: 2, batch_size: 16}
seeds: 1
varies: [attention]
model: {widths: [4, 4, 8], depths: [1, 1, 1]}
rows:
  plain: resnet20
  a/b gate: resnet20_se
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that has run."""
    home = tmp_path_factory.mktemp("pictures")
    (home / "tiny.yaml").write_text(STUDY)
    for planned in Study.load(home / "tiny.yaml").plan():  # here, which starts no worker
        execute_run(planned.definition, home / "runs", planned.row.name)
    assert blocklab(["study", str(home / "tiny.yaml"), "--out", str(home / "runs")]) == 0
    return home / "runs" / "tiny"


def drawn(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[Path]:
    """Run `blocklab figure`; return what it wrote: one SVG with text, and the same as PNG."""
    capsys.readouterr()
    assert blocklab(["figure", *map(str, arguments), "--json"]) == 0
    files = [Path(path) for path in json.loads(capsys.readouterr().out)["files"]]
    assert [path.suffix for path in files] == [".svg", ".png"] * (len(files) // 2)
    for svg, png in zip(files[::2], files[1::2], strict=True):
        assert svg.stem == png.stem
        text = svg.read_text()
        assert text.startswith("<svg") and "<text" in text and "http" not in text.split(">", 1)[1]
        with Image.open(png) as image:
            assert min(image.size) > 60
    return files


@pytest.mark.parametrize("name", ["grad_cam", "attention"])
def test_where_a_run_looks(name: str, study: Path, capsys: Any) -> None:
    svg, _ = drawn(capsys, name, study / "a/b gate:0")
    assert svg.parent == study / "pictures" and svg.name.endswith(f"-0-{name}.svg")
    text = svg.read_text()
    assert text.count("test image") == 4 and text.count("named: ") == 4
    assert text.count("<image") == 4 * (2 if name == "grad_cam" else 4)
    assert ("layer3.0" if name == "grad_cam" else "layer3.0.attention") in text


def test_gates_share_one_scale_and_those_of_channels_have_one_colour() -> None:
    grey = np.full((8, 8, 3), 128, np.uint8)
    seen = [Seen(grey, "an image", "named: a (50 %)")]
    hardly = np.float32(0.73) + np.linspace(0, 0.004, 64, dtype=np.float32).reshape(1, 8, 8)
    half = np.where(np.arange(64).reshape(1, 8, 8) % 2, 0.2, 0.9).astype(np.float32)
    gates = (Maps("a", hardly), Maps("b", half), Maps("c", half, everywhere=True))
    figure = attention_figure("net", seen, LetThrough(gates, 9))
    given = figure.specification["datasets"]
    images, texts = (given[one["data"]["name"]] for one in figure.specification["layer"])
    pictures = [
        np.asarray(Image.open(BytesIO(b64decode(one["picture"].split(",")[1]))), np.int64)
        for one in images
    ]
    ranges = [int(np.ptp(picture, (0, 1)).max()) for picture in pictures]
    assert ranges[1] <= 4 and ranges[2] > 60 and ranges[3] == 0
    words = [one["text"] for one in texts]
    assert "0.73 to 0.73" in words and "0.55 at every position" in words
    assert "pale yellow 1;" in figure.caption and "3 of 9 attentions: the last" in figure.caption
    larger = LetThrough((Maps("a", 4 * half),), 1)
    assert "pale yellow 3.6;" in attention_figure("net", seen, larger).caption


def test_a_second_image_needs_its_own_option(study: Path, capsys: Any, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (50, 40), "red").save(tmp_path / name)
    given = ["--image", str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert blocklab(["figure", "grad_cam", f"{study}/plain:0", *given]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "b.png is an image; give --image before each: --image " in said


def test_pictures_of_ones_own(study: Path, capsys: Any, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, colour in enumerate(["red", "green"]):
        Image.new("RGB", (50, 40), colour).save(photos / f"{number}.png")
    (photos / "broken.png").write_bytes(b"no picture")
    command = ["figure", "grad_cam", f"{study}/plain:0", "--image", str(photos)]
    assert blocklab([*command, "--to", str(tmp_path / "to")]) == 1
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "broken.png" in said.err
    text = (tmp_path / "to" / "tiny-plain-0-grad_cam-photos.svg").read_text()
    assert "0.png" in text and "1.png" in text and "broken" not in text
    (photos / "0.png").unlink()
    (photos / "1.png").unlink()
    assert blocklab(command) == 2
    assert "none of the images can be read" in capsys.readouterr().err


def test_a_runs_fields_are_drawn_with_both_weights(study: Path, capsys: Any) -> None:
    svg, _ = drawn(capsys, "receptive_field", study / "plain:0")
    text = svg.read_text()
    assert "weights: random, seed 0" in text and "weights: trained, seed 0" in text


def test_kernels_and_zeros(study: Path, capsys: Any) -> None:
    svg, _ = drawn(capsys, "kernels", study / "plain:0")
    assert "All 4 kernels of conv1" in svg.read_text() and "trained, seed 0" in svg.read_text()
    svg, _ = drawn(capsys, "kernels", study / "plain:0", "--layer", "layer3.0.conv1")
    assert "norm over 4 input channels" in svg.read_text()
    svg, _ = drawn(capsys, "dead_neurons", study / "plain:0")
    assert "Zeros over test batches 1 to" in svg.read_text()


def test_curves_of_a_study_a_run_and_a_recipe(study: Path, capsys: Any, tmp_path: Path) -> None:
    files = drawn(capsys, "accuracy", study)
    assert [path.stem for path in files[::2]] == [
        "validation_accuracy_over_epochs",
        "train_accuracy_over_epochs",
        "validation_top5_over_epochs",
    ]
    assert len(drawn(capsys, "accuracy", f"{study}/plain:0", f"{study}/a/b gate:0")) == 6
    for of in ("report", "figure_35", f"{study}/plain:0"):
        files = drawn(capsys, "learning_rate", of, "--to", tmp_path)
        assert files[0].name.endswith("learning_rate.svg")
    (svg, *_) = drawn(capsys, "figure_35", "--to", tmp_path)
    assert "0.1" in svg.read_text()


def test_diagnose_draws_what_it_can(study: Path, capsys: Any) -> None:
    assert blocklab(["diagnose", f"{study}/plain:0", "--pictures"]) == 0
    said = capsys.readouterr().out
    for what in ("receptive_fields", "kernels", "dead_neurons", "grad_cam"):
        assert f"plain-0-{what}.svg" in said
    assert "attention.svg" not in said
    assert "no attention gates: the network has no attention" in said
    assert "The commonest mistakes" in said and "calibration error" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("kernel", "resnet20"), "did you mean 'kernels'"),
        (("kernels",), "kernels of what? Name a run"),
        (("grad_cam", "resnet20"), "'resnet20' is a model; name a run"),
        (("attention", "resnet20_se"), "'resnet20_se' is a model; name a run"),
        (("kernels", "resnet20", "--layer", "conv9"), "no convolution 'conv9'; did you mean"),
        (("kernels", "resnet20", "resnet32"), "of one network; name one, not 2"),
        (("kernels", "nowhere/plain:0"), "there is no run 'nowhere/plain:0'"),
        (("figure_36", "--out", "nowhere"), "`blocklab study figure_36` trains it"),
        (("learning_rate", "reprot"), "did you mean 'report'"),
        (("dead_neurons", "resnet20", "--layer", "conv1"), "dead_neurons shows no other layer"),
        (("receptive_field", "resnet20", "--layer", "conv1"), "(kernels, grad_cam: they do)"),
        (("accuracy", "nowhere", "--input-size", "32"), "accuracy shows no other input_size"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_a_line(
    arguments: tuple[str, ...], said: str, capsys: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert blocklab(["figure", *arguments]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert [*tmp_path.iterdir()] == []


def test_where_pictures_lie(study: Path) -> None:
    assert place_of(str(study)) == (study / "pictures", "", "tiny-")
    folder, prefix, elsewhere = place_of(f"{study}/a/b gate:0")
    assert folder == study / "pictures" and prefix.startswith("a_b gate-")
    assert elsewhere == f"tiny-{prefix}"
    assert place_of("resnet20") == (Path("pictures"), "resnet20-", "resnet20-")


def test_no_picture_takes_the_place_of_another(
    study: Path, capsys: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("{epochs: 2, lr: 0.1}")
    plain, gate, to = study / "plain:0", study / "a/b gate:0", ("--to", "to")
    run = next(path.parent for path in study.parent.glob("*/result.json"))
    written = [
        path.resolve()
        for of in (
            *((study,), (plain,), (plain, gate)),
            *((study, *to), (run, *to), (plain, *to), (plain, gate, *to)),
        )
        for path in drawn(capsys, "accuracy", *of)
    ]
    written += [
        path.resolve()
        for of in (
            *(("kernels", "resnet20"), ("kernels", "resnet20", "--input-size", "32")),
            *(("kernels", plain), ("kernels", plain, "--layer", "layer3.0.conv1")),
            *(("receptive_field", one, plain) for one in ("resnet20:depths=[1,1,1]", gate)),
            ("learning_rate", "mine.yaml"),
        )
        for path in drawn(capsys, *of)
    ]
    assert len(set(written)) == len(written)
    assert tmp_path / "pictures" / "mine.yaml-learning_rate.svg" in written
    assert tmp_path / "pictures" / "resnet20-kernels-32x32.svg" in written


@pytest.mark.parametrize(
    ("model", "attends"),
    [
        ("van_b0:widths=[8,8,8,8],depths=[1,1,1,1]", True),
        ("replknet_31b:widths=[8,8,8,8],depths=[1,1,1,1]", False),
        ("convnext_tiny:widths=[8,8,8,8],depths=[1,1,1,1]", False),
        ("timm:mobilenetv3_small_050", True),
        pytest.param("timm:swin_tiny_patch4_window7_224", False, marks=pytest.mark.slow),
    ],
)
def test_every_family_has_fields_kernels_and_zeros(model: str, attends: bool) -> None:
    size = 224 if "swin" in model else 64
    one = Subject.open(model, 5, size)
    for figure in (one.receptive_field(), one.kernels(), one.dead_neurons()):
        assert figure.specification
    noise = noise_images(one.network, size, 2)
    if attends:
        assert let_through(one.network, noise)
    else:
        with pytest.raises(InputError, match="no attention gates"):
            let_through(one.network, noise)
    assert grad_cam(one.network, noise, [0, 1]).values.max() > 0


def test_tokens_have_no_map_and_that_is_said() -> None:
    one = Subject.open("timm:vit_tiny_patch16_224", 5)
    with pytest.raises(InputError, match="gives no map"):
        one.receptive_field()
    assert "16\u00d716" in one.kernels().caption


def test_no_subject_is_drawn_twice() -> None:
    with pytest.raises(InputError, match="of one recipe"):
        draw("learning_rate", ["report", "quick"])
