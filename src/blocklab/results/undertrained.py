"""Whether a row stopped before it had learned what its recipe could teach it.

A row is undertrained where its loss on the training images was still falling steeply when the last
epoch ended, or where it never left chance. Its accuracy then says how fast the network learns, not
how good it becomes, and a comparison with a network that was done says little about either.
"""

import math
from collections import defaultdict
from collections.abc import Sequence

from blocklab.results.ended_run import EndedRun

STEEP = 0.5  # of the run's average pace
FEWEST_EPOCHS = 3  # of two, the last pace is the average


def last_pace(runs: Sequence[EndedRun]) -> float | None:
    """Return how fast the training loss fell at the end, as a share of its pace over all epochs.

    The loss is the mean over the runs at each epoch that all of them have. The end is the last
    tenth of the epochs, at least one. A straight line gives 1, a loss that has levelled out 0, one
    that rises at the end less. None of fewer than three epochs, and where the loss did not fall.
    """
    by_epoch: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        for line in run.log:
            if (loss := line.get("train_loss")) is not None and math.isfinite(loss):
                by_epoch[line["epoch"]].append(loss)
    epochs = sorted(epoch for epoch, values in by_epoch.items() if len(values) == len(runs))
    if len(epochs) < FEWEST_EPOCHS:
        return None
    losses = [math.fsum(by_epoch[epoch]) / len(runs) for epoch in epochs]
    average = (losses[0] - losses[-1]) / (epochs[-1] - epochs[0])
    if average <= 0:
        return None
    back = max(1, round(len(epochs) / 10))
    late = (losses[-1 - back] - losses[-1]) / (epochs[-1] - epochs[-1 - back])
    return late / average


def why_undertrained(runs: Sequence[EndedRun]) -> str | None:
    """Say why finished runs of one row count as undertrained; None where they do not.

    They do where all of them are at chance, or where `last_pace` is above a half.
    """
    if not runs:
        return None
    if all(run.at_chance for run in runs):
        return "it never learned: no better on its training images than the commonest class"
    pace = last_pace(runs)
    if pace is None or pace <= STEEP:
        return None
    ends = [run.log[-1].get("train_top1_percent") for run in runs if run.log]
    known = [value for value in ends if value is not None]
    reached = f", with {math.fsum(known) / len(known):.1f} % of them right" if known else ""
    return (
        f"its loss on the training images still fell at {100 * pace:.0f} % of its average pace in "
        f"the last epochs{reached}; train it longer"
    )
