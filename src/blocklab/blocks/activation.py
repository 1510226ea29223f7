"""Activations by name."""

from torch import nn

from blocklab.errors import InputError, did_you_mean

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "celu": nn.CELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "hardswish": nn.Hardswish,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "identity": nn.Identity,
}


def check_activation(name: str) -> str:
    """Return `name` if an activation has it.

    Raises:
        InputError: if none has.
    """
    if name not in ACTIVATIONS:
        raise InputError(
            f"no activation '{name}'{did_you_mean(name, ACTIVATIONS) or '.'} "
            f"Activations: {', '.join(ACTIVATIONS)}"
        )
    return name


def create_activation(name: str, inplace: bool = False) -> nn.Module:
    """Build an activation with PyTorch's defaults.

    `inplace` spares a copy where the function has such a form and the caller does not need its
    input again (as after BatchNorm).
    """
    cls = ACTIVATIONS[check_activation(name)]
    if inplace and cls in (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SiLU):
        return cls(inplace=True)
    return cls()
