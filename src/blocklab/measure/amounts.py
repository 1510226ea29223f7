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
