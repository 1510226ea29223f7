"""What comes before a step is captured as a CUDA graph."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

WARM_UP_STEPS = 3  # as they are: libraries set themselves up in their first calls


@contextmanager
def aside() -> Iterator[None]:
    """Work on another stream than the usual one, as what is to be captured must before."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)
