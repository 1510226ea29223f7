"""Faults of many files, said together: the first ten and how many there are."""

from collections.abc import Sequence

from blocklab.errors import InputError

MOST_SHOWN = 10


def first_few(items: Sequence[str], joint: str = ", ", most: int = MOST_SHOWN) -> str:
    """Join the first few of some texts and count the rest."""
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return joint.join(items[:most]) + more


class Faults:
    """Collects what is wrong, file by file, so that a user mends all of it at once."""

    def __init__(self) -> None:
        self._shown: list[str] = []
        self.count = 0

    def add(self, error: InputError | str) -> None:
        """Note what is wrong with one more file."""
        self.count += 1
        if len(self._shown) < MOST_SHOWN:
            self._shown.append(str(error))

    def refuse(self, what: str) -> None:
        """Raise what was collected, if anything was; `what` names the things counted.

        Raises:
            InputError: in one line.
        """
        if not self.count:
            return
        shown = "; ".join(self._shown)
        if self.count > 1:
            more = self.count - len(self._shown)
            shown = f"{self.count:,} {what}: {shown}" + (f"; and {more:,} more" if more else "")
        raise InputError(shown)
