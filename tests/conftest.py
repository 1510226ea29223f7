"""Run folders that are made up, written as a run writes them."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from blocklab.blocks import plugins, registry
from blocklab.measure import operators
from blocklab.training.predictions import pack, read_per_image
from blocklab.training.run_files import definition_hash
from blocklab.training.run_folder import RunFolder

MakeRun = Callable[..., Path]


def predictions(top1: float, images: int, like: str, seed: int) -> dict[str, np.ndarray]:
    """Return what a network of that accuracy says; rows that are `like` one another say the same.

    The wrong images have their class among the five as often as not.
    """
    rng = np.random.default_rng([seed, *like.encode()])
    labels = np.arange(images) % 100
    hard = np.random.default_rng(0).random(images)  # the same images are hard for every network
    rank = np.argsort(np.argsort(hard + rng.normal(0, 0.1, images)))
    place = np.where(rank < round(top1 * images / 100), 0, np.where(rank % 2, 2, 7))
    top5 = (labels[:, None] - place[:, None] + np.arange(5)) % 100
    return {"labels": labels, "top5": top5, "loss": rng.random(images).astype(np.float32)}


@pytest.fixture(scope="session", autouse=True)
def one_thread_for_runs() -> Iterator[None]:
    """Runs that are told no number of threads take one: several wait for one another here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("blocklab.training.run.available_cores", lambda: 1)
        yield


@pytest.fixture(scope="session", autouse=True)
def nothing_waits_for_the_disk() -> Iterator[None]:
    """Files are not synced, of which a test sees nothing but the time: only power cuts undo it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield


@pytest.fixture
def one_thread_and_a_fixed_seed() -> Iterator[None]:
    """The same numbers whatever ran before, on however many cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch, no_ink: Callable[[pytest.MonkeyPatch], None]) -> None:
    """Figures of pages unchecked and without ink, which is most of the time that a page takes."""
    no_ink(monkeypatch)


@pytest.fixture(scope="session")
def no_ink() -> Callable[[pytest.MonkeyPatch], None]:
    """What `undrawn` does, for fixtures of a wider scope."""
    return _without_ink


def _without_ink(monkeypatch: pytest.MonkeyPatch) -> None:
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"></svg>'
    empty = SimpleNamespace(
        vegalite_to_svg=lambda *_, **__: svg, svg_to_png=lambda *_, **__: b"\x89PNG\r\n\x1a\n"
    )
    monkeypatch.setattr("blocklab.report.drawing.vl_convert", empty)
    monkeypatch.setattr("altair.utils.schemapi.DEBUG_MODE", False)
    monkeypatch.setattr("altair.utils.schemapi.SchemaBase.validate", lambda *_, **__: None)


@pytest.fixture
def registry_as_it_was() -> Iterator[None]:
    """Take back what a test registers, blocks and counts, and which files it loads."""
    tables: list[dict[Any, Any]] = [registry._REGISTRY, plugins._LOADED, operators.COUNTS]
    before = [dict(table) for table in tables]
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)


@pytest.fixture
def make_run() -> MakeRun:
    """A function that writes the folder of a made-up run that has ended; `top1` None diverged.

    `images` of them have predictions, whose figures are then the result's. `run` and `result` are
    fields of those files to change; `definition` is in place of a made-up one.
    """

    def make(
        out: Path,
        row: str = "row",
        seed: int = 0,
        top1: float | None = 50.0,
        *,
        epochs: int = 5,
        images: int = 0,
        like: str | None = None,
        model: dict[str, Any] | None = None,
        reads_test_set: bool = False,
        run: dict[str, Any] | None = None,
        result: dict[str, Any] | None = None,
        definition: dict[str, Any] | None = None,
    ) -> Path:
        rng = random.Random(f"{row}{seed}")
        if definition is None:
            definition = {"model": model or {"name": row}, "data": {"source": "cifar100"}}
            definition |= {"recipe": {"epochs": epochs}, "seed": seed}
        written = RunFolder(out / definition_hash(definition))
        about = {
            "definition": definition,
            "data_address": "cifar100",
            "label": row,
            "versions": {"blocklab": "1", "code": "c0de", "torch": "2", "timm": "3", "python": "4"},
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
            "data_mean": [0.5] * 3,
            "data_std": [0.2] * 3,
        }
        lines: list[dict[str, Any]] = []
        for epoch in range(1, epochs + 1):
            reached = (top1 or 1.0) * (1 - 0.6**epoch) / (1 - 0.6**epochs)
            line = {"epoch": epoch, "train_loss": 4.0 / epoch, "lr": 0.1, "train_seconds": 12.5}
            line["validation_top1_percent"] = max(0.0, reached - 0.5 + rng.gauss(0, 0.3))
            line["validation_top5_percent"] = min(99.0, reached + 20)
            if reads_test_set:
                line |= {"test_top1_percent": reached}
                line |= {"test_top5_percent": min(99.0, reached + 20)}
            lines.append(line)
        ended: dict[str, Any] = {"status": "diverged", "epochs": epochs}
        if top1 is not None:
            ended |= {"status": "finished", "train_seconds": 62.5, "images_per_second": 720.0}
            ended |= {"test_top1_percent": top1, "test_top5_percent": min(99.0, top1 + 25)}
            ended |= {"test_loss": 1.5, "peak_memory_bytes": 512_000_000}
            if reads_test_set:
                ended |= {"best_test_top1_percent": top1 + 0.75, "best_test_epoch": epochs - 1}
        with written.locked():
            written.write_run(about | (run or {}))
            written.write_log(lines)
            if images and top1 is not None:
                arrays = predictions(top1, images, like or row, seed)
                written.write_predictions(arrays)
                ended |= read_per_image(pack(arrays), images).figures
            written.finish(ended | (result or {}))
        return written.path

    return make
