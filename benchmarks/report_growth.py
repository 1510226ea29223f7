"""How the report grows: time and memory of a page over N made-up finished runs.

    python benchmarks/report_growth.py 2000 --rows 200

Writes N run folders as training writes them (checksums, a log line an epoch, results of 10,000
test images), then, in a process of its own, reads them, computes verdicts and all tables, and
writes the page. Prints one JSON line. Weights and checkpoints are left out: a report reads none.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

EPOCHS, IMAGES, CLASSES = 50, 10_000, 100
DATA = {"source": "cifar100"}


def main() -> None:
    """Make the folders and measure the report over them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=int, help="how many finished runs")
    parser.add_argument("--rows", type=int, default=40, help="rows that share them")
    parser.add_argument("--keep", type=Path, help="make them here and leave them")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure)))
        return
    if given.rows < 1 or given.runs < given.rows:
        parser.error("give one row or more, and a run for each")
    with tempfile.TemporaryDirectory() as temporary:
        out = given.keep or Path(temporary)
        study = fabricate(out, given.runs, given.rows)
        command = [sys.executable, __file__, str(given.runs), "--measure", str(study)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        print(json.dumps({"runs": given.runs, "rows": given.rows, **json.loads(said)}))


def measure(study: Path) -> dict[str, float]:
    """Read a study's folder and write its page; seconds, MB of memory and of page."""
    import resource

    from blocklab.report.page import write_report
    from blocklab.report.tables import tables
    from blocklab.results.study_folder import read_study_folder

    began, busy = time.perf_counter(), time.process_time()
    results = read_study_folder(study)
    read = time.perf_counter()
    _ = results.summary_lines, results.judgements, [table.cells for table in tables(results)]
    counted = time.perf_counter()
    page = write_report(results, study)
    written = time.perf_counter()
    return {
        "read_seconds": round(read - began, 2),
        "statistics_and_tables_seconds": round(counted - read, 2),
        "page_seconds": round(written - counted, 2),
        "seconds": round(written - began, 2),
        "processor_seconds": round(time.process_time() - busy, 2),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "page_mb": round(page.stat().st_size / 1e6, 2),
    }


def fabricate(out: Path, runs: int, rows: int) -> Path:
    """Write run folders and a study.json over them; return the study's folder."""
    from blocklab.files import write_checked_json
    from blocklab.training.recipe import load_recipe

    rng = np.random.default_rng(0)
    hard = rng.random(IMAGES)
    labels = rng.integers(0, CLASSES, IMAGES)
    recipe = load_recipe("strong").model_dump(mode="json")
    lines = []
    for number in range(rows):
        name = f"resnet_{number:04d}"
        seeds = range(number * runs // rows, (number + 1) * runs // rows)
        level = 60 + rng.normal(0, 1)
        hashes = {}
        for seed in range(len(seeds)):
            top1 = level + rng.normal(0, 0.25)
            hashes[str(seed)] = write_run(out, name, seed, top1, recipe, (hard, labels))
        cost = {"macs": int(4e9 + 1e7 * number), "params": int(25e6 + 1e4 * number)}
        lines.append(
            {
                "name": name,
                "model": {"name": name},
                "runs": hashes,
                "cost": {**cost, "input_size": 32},
                "reported": None,
                "reported_cost": None,
                "tuned": None,
                "note": None,
            }
        )
    folder = out / "growth"
    write_checked_json(
        folder / "study.json",
        {
            "title": "A made-up study",
            "description": "",
            "data": DATA,
            "recipe": recipe,
            "recipe_name": "strong",
            "seeds": list(range(max(len(line["runs"]) for line in lines))),
            "varies": ["attention"],
            "baseline": "resnet_0000",
            "notes": [],
            "claims": [f"resnet_{i:04d} > resnet_0000" for i in range(1, min(rows, 10))],
            "command": None,
            "threads": 1,
            "rows": lines,
        },
    )
    return folder


def write_run(
    out: Path,
    name: str,
    seed: int,
    top1: float,
    recipe: dict[str, object],
    images: tuple[np.ndarray, np.ndarray],
) -> str:
    """Write a run's folder with the functions that training writes it with; return its name."""
    from blocklab.training.run_files import definition_hash
    from blocklab.training.run_folder import RunFolder

    rng = np.random.default_rng([seed, *name.encode()])
    hard, labels = images
    right = hard + rng.normal(0, 0.15, IMAGES) < top1 / 100
    top5 = rng.integers(0, CLASSES, (IMAGES, 5))
    top5[:, 0] = np.where(right, labels, (labels + 1) % CLASSES)
    measured = 100 * float(right.mean())
    definition = {"model": {"name": name}, "data": DATA, "recipe": recipe, "seed": seed}
    run = {
        "definition": definition,
        "data_address": "cifar100",
        "label": name,
        "started": "2025-01-01T00:00:00+00:00",
        "versions": {"blocklab": "0", "torch": "0", "timm": "0", "python": "3"},
        "machine": {"cpu": "none", "cores": 1, "device": "cpu"},
        "precision": "fp32",
        "memory_format": "channels_last",
        "threads": 1,
        "class_names": [str(number) for number in range(CLASSES)],
        "data_mean": [0.5] * 3,
        "data_std": [0.2] * 3,
        "image_size": 32,
        "train_images": 45_000,
        "validation_images": 5_000,
        "test_images": IMAGES,
    }
    log = []
    for epoch in range(1, EPOCHS + 1):
        reached = measured * (1 - 0.9**epoch)
        line = {"epoch": epoch, "lr": 0.1, "train_loss": 4.0 / epoch, "train_seconds": 10.0}
        line |= {"train_top1_percent": reached, "images_per_second": 4500.0}
        line |= {"validation_loss": 2.0, "validation_top1_percent": reached + rng.normal(0, 0.3)}
        log.append(line | {"validation_top5_percent": min(99.0, reached + 20)})
    loss = rng.gamma(1, 1, IMAGES).astype(np.float32)
    among = 100 * float((top5 == labels[:, None]).any(1).mean())
    result = {"status": "finished", "epochs": EPOCHS, "test_top1_percent": measured}
    result |= {"test_top5_percent": among, "test_loss": float(loss.mean(dtype=np.float64))}
    result |= {"train_seconds": 500.0, "images_per_second": 4500.0, "peak_memory_bytes": 10**9}
    folder = RunFolder(out / definition_hash(definition))
    with folder.locked():
        folder.write_run(run)
        folder.write_log(log)
        folder.write_predictions({"labels": labels, "top5": top5, "loss": loss})
        folder.finish(result)
    return folder.path.name


if __name__ == "__main__":
    main()
