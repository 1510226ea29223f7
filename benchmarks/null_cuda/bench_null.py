"""Runs `bench` on the null device and prints it as JSON; no time or value in it means anything.

bench_null.py MODEL
"""

import gc
import json
import os
import sys
import weakref
from typing import Any

import torch
from null_device import Counter

from blocklab.measure import speed, ways
from blocklab.models.factory import create_model


def main() -> None:
    counter = Counter()
    speed.PEAK_SIDES["cuda"] = 64
    captured = 0
    capture = ways.replayed

    def counted(step: ways.Step) -> ways.Step:
        nonlocal captured
        captured += 1
        return capture(step)

    ways.replayed = counted
    model: Any = sys.argv[1]
    report = speed.bench(model, batch_size=4, rounds=1, compiled=False)
    found = report.to_dict() | {
        "captured": captured,
        "replays": counter.counts().get("GraphLaunch", 0),
        "memory_left": torch.cuda.memory_reserved(),
    }
    network = create_model(model).cuda()
    captured_network = weakref.ref(network)
    way = ways.Way(ways.TRAINING, "contiguous", "fp32", ways.GRAPH)
    replay = ways.make_step(network, way, (32, 32), 4)
    del network
    gc.collect()
    found["network_lives"] = captured_network() is not None
    replay()
    print(json.dumps(found), flush=True)
    os._exit(0)  # PyTorch's threads cannot be ended in order on a device that is none


if __name__ == "__main__":
    main()
