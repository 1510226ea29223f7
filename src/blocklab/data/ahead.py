"""Making the next of a series while the last is used."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def made_ahead(make: Callable[[Given], Made], series: Sequence[Given]) -> Generator[Made]:
    """Yield `make` of each in order; a thread makes the next one meanwhile, and no more than it.

    What it raises is raised where its turn comes. The thread ends with the series, and when the
    generator is closed, as it is where a loop over it is left by an error or Ctrl-C.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="next-batch")
    try:
        waiting = [thread.submit(make, series[0])] if series else []
        for following in range(1, len(series) + 1):
            made = waiting.pop().result()
            if following < len(series):
                waiting.append(thread.submit(make, series[following]))
            yield made
    finally:
        thread.shutdown(cancel_futures=True)
