"""Running studies: plan, sharing of the machine, workers, a cluster, progress."""
