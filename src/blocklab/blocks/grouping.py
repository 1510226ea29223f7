"""Into how many groups channels can be split."""

from blocklab.errors import InputError


def fitting_groups(most: int, *channels: int) -> int:
    """Return the largest count of groups up to `most` that divides all of these channels."""
    return max(
        count for count in range(1, most + 1) if all(width % count == 0 for width in channels)
    )


def halved(channels: int, what: str) -> int:
    """Return half of the channels.

    Raises:
        InputError: if they have none; `what` splits them.
    """
    if channels % 2:
        raise InputError(f"{what} splits channels in two and needs an even number, not {channels}")
    return channels // 2
