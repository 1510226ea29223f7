"""How an amount is said: with digits enough to tell two small networks apart."""

import math


def counted(value: float) -> str:
    """Show G or M with 3 decimals, and 4 digits or more of what is small: ``4.089``, ``0.04125``.

    Zero is ``0``, and nothing else is.
    """
    if value == 0:
        return "0"
    decimals = max(3, 3 - math.floor(math.log10(abs(value))))
    whole, _, digits = f"{value:,.{decimals}f}".partition(".")
    return f"{whole}.{digits[:3]}{digits[3:].rstrip('0')}"


def rough_time(seconds: float) -> str:
    """Write a time as roughly as it is known: seconds, minutes, hours or days."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if (minutes := seconds / 60) < 100:
        return f"{minutes:.0f} min"
    if (hours := minutes / 60) < 100:
        return f"{hours:.0f} h" if hours >= 10 else f"{hours:.1f} h"
    return f"{hours / 24:,.0f} days"
