"""Files, names and options under attack; the long form is ``python benchmarks/attacks.py``."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "attacks.py"


def test_attacks_are_held_or_refused() -> None:
    command = [sys.executable, str(SCRIPT), "--attacks", "20", "--seed", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    counts = json.loads(done.stdout.splitlines()[-1])["in all"]
    assert done.returncode == 0 and counts.get("fault", 0) == 0, done.stderr
    assert counts["held"] >= 5 and counts["refused"] >= 5
