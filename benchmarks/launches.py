"""What one training step asks of a GPU, counted on a device that does nothing; no GPU is needed.

    python benchmarks/launches.py [MODEL...] [--batch 128] [--size 32] [--set FIELD=VALUE ...]

A step of the training loop in bf16 with MixUp, cutout, an average of the weights and clipping
(`--set` changes the recipe `strong` further): kernels launched, copies, waits, and the milliseconds
of Python that it took here. With ``cuda_graph=on`` a step is one launch of a graph. Nothing is
computed, so that no number here is a time of a GPU.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "null_cuda"))
import null_device

RECIPE = {"mixup": 0.2, "cutout": 8, "ema_decay": 0.9, "clip_grad_norm": 1.0, "precision": "bf16"}
MODELS = ("resnet18", "resnet50_triplet", "res2net50_celu_cd_st", "van_b0")


def step(model: str, recipe: dict[str, Any], batch: int, size: int) -> dict[str, Any]:
    """Return a step to count, as `counted` takes it; `recipe` changes `RECIPE`."""
    return {"model": model, "recipe": RECIPE | recipe, "batch": batch, "size": size}


def counted(steps: Sequence[dict[str, Any]], built: Path) -> list[dict[str, Any]]:
    """Return each step's counts, all from one process; `built` holds the null device."""
    script = null_device.HERE / "count_steps.py"
    lines = null_device.run(script, [json.dumps(steps)], built, timeout=60 + 30 * len(steps))
    return [json.loads(line) for line in lines.splitlines()]


def total(counts: dict[str, int], *starts: str) -> int:
    """Add up the counts whose names start so."""
    return sum(count for name, count in counts.items() if name.startswith(starts))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--set", action="append", default=[], dest="fields")
    given = parser.parse_args()
    if missing := null_device.missing():
        sys.exit(f"error: {missing}")
    recipe = {name: json.loads(text) for name, _, text in (f.partition("=") for f in given.fields)}
    print(f"{'':28}{'kernels':>9}{'graphs':>8}{'copies':>8}{'waits':>7}{'Python (ms)':>13}")
    with tempfile.TemporaryDirectory() as folder:
        null_device.build(Path(folder))
        steps = [step(model, recipe, given.batch, given.size) for model in given.models]
        for found in counted(steps, Path(folder)):
            counts = found["counts"]
            copies = total(counts, "memcpy:H2D", "memcpy:D2H", "memcpy:any")
            print(
                f"{found['model']:28}{counts.get('kernel', 0):9,}{counts.get('GraphLaunch', 0):8}"
                f"{copies:8}{total(counts, 'sync'):7}{found['python_ms']:13.1f}"
            )


if __name__ == "__main__":
    main()
