"""Types of options that several blocks and backbones take."""

from typing import Annotated

from pydantic import AfterValidator, Field

from blocklab.blocks.activation import check_activation
from blocklab.errors import InputError

LARGEST_KERNEL = 1023
MOST_GROUPS = 256  # into which a map is split, each with a convolution of its own


def check_odd(kernel: int) -> int:
    """Return a kernel's size if it is odd and positive, so that padding keeps the map's size.

    Raises:
        InputError: if it is not.
    """
    if kernel < 1 or kernel % 2 == 0:
        raise InputError(f"a kernel's size must be odd and positive, not {kernel}")
    return kernel


Activation = Annotated[str, AfterValidator(check_activation)]  # the name of one
OddInt = Annotated[int, Field(le=LARGEST_KERNEL), AfterValidator(check_odd)]
Scale = Annotated[int, Field(ge=2, le=MOST_GROUPS)]

# Marks an option that models of old were specified without: a specification leaves it out where it
# has its default, so that those are still the same models.
ADDED_LATER = "added later"
