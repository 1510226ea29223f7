"""How an amount is said: with digits enough to tell two small networks apart."""

import math
from collections.abc import Callable

_EXACT = 9  # decimals of G: none counts a part of one product


def counted(value: float, least: int = 3) -> str:
    """Show G or M with 3 decimals, and 4 digits or more of what is small: ``4.089``, ``0.04125``.

    Zero is ``0``, and nothing else is. `least` asks for more decimals.
    """
    if value == 0:
        return "0"
    decimals = max(least, 3 - math.floor(math.log10(abs(value))))
    whole, _, digits = f"{value:,.{decimals}f}".partition(".")
    return f"{whole}.{digits[:least]}{digits[least:].rstrip('0')}"


def counted_apart(
    ours: float, theirs: float, holds: Callable[[float], bool] = lambda gap: gap > 0
) -> tuple[str, str]:
    """Show two amounts with as many decimals as show whether they differ, and by enough.

    `holds` says of a difference whether it is enough, such as more than a margin.
    """
    gap, shown = round(ours - theirs, _EXACT), (counted(ours), counted(theirs))
    for decimals in range(3, _EXACT + 1):
        shown = counted(ours, decimals), counted(theirs, decimals)
        seen = round(round(ours, decimals) - round(theirs, decimals), _EXACT)
        if holds(seen) == holds(gap) and (shown[0] == shown[1]) == (gap == 0):
            break
    return shown


def rough_time(seconds: float) -> str:
    """Write a time as roughly as it is known: seconds, minutes, hours or days."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if (minutes := seconds / 60) < 100:
        return f"{minutes:.0f} min"
    if (hours := minutes / 60) < 100:
        return f"{hours:.0f} h" if hours >= 10 else f"{hours:.1f} h"
    return f"{hours / 24:,.0f} days"
