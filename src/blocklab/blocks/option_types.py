"""Types of options that several blocks and backbones take."""

from typing import Annotated

from pydantic import AfterValidator

from blocklab.blocks.activation import check_activation
from blocklab.errors import InputError


def check_odd(kernel: int) -> int:
    """Return a kernel's size if it is odd and positive, so that padding keeps the map's size.

    Raises:
        InputError: if it is not.
    """
    if kernel < 1 or kernel % 2 == 0:
        raise InputError(f"a kernel's size must be odd and positive, not {kernel}")
    return kernel


Activation = Annotated[str, AfterValidator(check_activation)]  # the name of one
OddInt = Annotated[int, AfterValidator(check_odd)]
