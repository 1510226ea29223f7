"""A folder in which the documents' cells find what they name: small, and made once."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blocklab.cli.app import run
from blocklab.study.study import Study
from blocklab.training.run import execute_run

# The makers of data sets are modules of another folder.
sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from image_files import CLASSES, LABELS, make, write_parquet

ROOT = Path(__file__).parents[2]
STUDY = """\
title: Attention in a small ResNet
data: {source: digits, train_images: 48, test_images: 40, validation_fraction: 0.2}
recipe: {base: quick, epochs: 1, batch_size: 16}
seeds: 1
varies: [attention]
model: {widths: [4, 4, 8], depths: [1, 1, 1]}
rows: {plain: resnet20, se: resnet20_se, triplet: resnet20_triplet}
"""


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, no_ink: Callable[[pytest.MonkeyPatch], None]
) -> Iterator[Path]:
    """Small data sets and pictures under the names of the documents, and a study that has run."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    for name, classes in CLASSES.items():
        write_parquet(make(rng, classes, 2, 1), folder / "data" / name, LABELS[name])
    for split, class_name in ((s, c) for s in ("train", "test") for c in ("cat", "dog")):
        for number in range(4):
            pixels = rng.integers(0, 256, (40, 40, 3), np.uint8)
            path = folder / "photos" / split / class_name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    shutil.copytree(folder / "photos", folder / "my_images")
    for name in ("cat.jpg", "a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / name)
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copytree(ROOT / "results", folder / "results")
    shutil.copy(ROOT / "examples" / "my_block.py", folder)
    shutil.copy(ROOT / "examples" / "my_backbone.py", folder / "my_net.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("BLOCKLAB_CACHE", str(folder / "cache"))
        no_ink(patch)
        Path("my_study.yaml").write_text(STUDY)
        for planned in Study.load("my_study.yaml").plan():  # here: no worker is to be waited for
            execute_run(planned.definition, folder / "runs", planned.row.name, threads=1)
        assert run(["study", "my_study.yaml"]) == 0
    weights = next(folder.glob("runs/*/model.safetensors"))
    shutil.copy(weights, folder / "resnet18.safetensors")
    for recipe in ("quick", "strong"):
        shutil.copytree(folder / "runs/my_study", folder / f"runs/attention+recipe={recipe}")
    yield folder
