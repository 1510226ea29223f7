"""Networks as loops over single numbers, in float64: what the fast blocks are tested against.

A map is a `Grid` of zero-dimensional tensors, so that autograd gives the gradients of the loops
too. Nothing here calls a layer, a reduction or a broadcast of PyTorch: only sums, products and
elementary functions of one number.
"""

import math
from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int, int]
Index = tuple[int, ...]
Loop = Callable[["Grid", "Weights"], "Grid"]


class Grid:
    """Numbers by (sample, channel, row, column)."""

    def __init__(self, shape: Shape, numbers: dict[Index, Tensor] | None = None) -> None:
        self.shape = shape
        self.numbers: dict[Index, Tensor] = {} if numbers is None else numbers

    @classmethod
    def of(cls, tensor: Tensor) -> "Grid":
        batch, channels, height, width = tensor.shape
        return cls((batch, channels, height, width), numbers_of(tensor))

    def __getitem__(self, index: Shape) -> Tensor:
        return self.numbers[index]

    def __setitem__(self, index: Shape, value: Tensor) -> None:
        self.numbers[index] = value

    def __iter__(self) -> Iterator[Shape]:
        batch, channels, height, width = map(range, self.shape)
        return product(batch, channels, height, width)

    def tensor(self) -> Tensor:
        return torch.stack([self[index] for index in self]).view(self.shape)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Grid":
        return Grid(self.shape, {index: function(self[index]) for index in self})

    def channels(self, first: int, last: int) -> "Grid":
        """Return the channels from `first` up to but without `last`."""
        batch, _, height, width = self.shape
        part = Grid((batch, last - first, height, width))
        for b, c, i, j in part:
            part[b, c, i, j] = self[b, first + c, i, j]
        return part

    def __add__(self, other: "Grid") -> "Grid":
        assert self.shape == other.shape
        return Grid(self.shape, {index: self[index] + other[index] for index in self})


def numbers_of(tensor: Tensor) -> dict[Index, Tensor]:
    indices = product(*(range(size) for size in tensor.shape))
    return dict(zip(indices, tensor.flatten().unbind(), strict=True))


def total(terms: list[Tensor]) -> Tensor:
    result = terms[0]
    for term in terms[1:]:
        result = result + term
    return result


def join(parts: list[Grid]) -> Grid:
    """Put grids behind one another on the channel axis."""
    batch, _, height, width = parts[0].shape
    joined = Grid((batch, sum(part.shape[1] for part in parts), height, width))
    offset = 0
    for part in parts:
        for b, c, i, j in part:
            joined[b, offset + c, i, j] = part[b, c, i, j]
        offset += part.shape[1]
    return joined


class Weights:
    """A module's parameters by name, and what its running statistics should become."""

    def __init__(self, module: nn.Module) -> None:
        self.training = module.training
        self.parameters = {
            name: parameter.detach().clone().requires_grad_()
            for name, parameter in module.named_parameters()
        }
        self.buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
        self._numbers: dict[str, dict[Index, Tensor]] = {}

    def __getitem__(self, name: str) -> dict[Index, Tensor]:
        if name not in self._numbers:
            self._numbers[name] = numbers_of(self.parameters[name])
        return self._numbers[name]


def conv(
    x: Grid,
    weights: Weights,
    name: str,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Grid:
    """y[o, i, j] = bias[o] + sum of weight[o, c, u, v] * x[c, si + du - p, sj + dv - p]."""
    weight, shape = weights[f"{name}.weight"], weights.parameters[f"{name}.weight"].shape
    bias = weights[f"{name}.bias"] if f"{name}.bias" in weights.parameters else None
    batch, in_channels, height, width = x.shape
    out_channels, per_group, kernel_height, kernel_width = shape
    assert in_channels == per_group * groups
    out_height = (height + 2 * padding - dilation * (kernel_height - 1) - 1) // stride + 1
    out_width = (width + 2 * padding - dilation * (kernel_width - 1) - 1) // stride + 1
    y = Grid((batch, out_channels, out_height, out_width))
    for b, o, i, j in y:
        first = o // (out_channels // groups) * per_group
        value = bias[o,] if bias is not None else torch.zeros((), dtype=torch.float64)
        for c, u, v in product(range(per_group), range(kernel_height), range(kernel_width)):
            row, column = i * stride + u * dilation - padding, j * stride + v * dilation - padding
            if 0 <= row < height and 0 <= column < width:
                value = value + weight[o, c, u, v] * x[b, first + c, row, column]
        y[b, o, i, j] = value
    return y


def batch_norm(
    x: Grid, weights: Weights, name: str, *, momentum: float = 0.1, eps: float = 1e-5
) -> Grid:
    """Normalise each channel, and note its new running statistics in `weights.buffers`."""
    batch, channels, height, width = x.shape
    scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
    running_mean = weights.buffers[f"{name}.running_mean"]
    running_var = weights.buffers[f"{name}.running_var"]
    y = Grid(x.shape)
    for c in range(channels):
        places = list(product(range(batch), range(height), range(width)))
        if weights.training:
            count = len(places)
            mean = total([x[b, c, i, j] for b, i, j in places]) / count
            squares = total([(x[b, c, i, j] - mean) ** 2 for b, i, j in places])
            variance = squares / count
            unbiased = squares.detach() / (count - 1)
            running_mean[c] = (1 - momentum) * running_mean[c] + momentum * mean.detach()
            running_var[c] = (1 - momentum) * running_var[c] + momentum * unbiased
        else:
            mean, variance = running_mean[c], running_var[c]
        for b, i, j in places:
            normal = (x[b, c, i, j] - mean) / torch.sqrt(variance + eps)
            y[b, c, i, j] = scale[c,] * normal + shift[c,]
    if weights.training:
        weights.buffers[f"{name}.num_batches_tracked"] += 1
    return y


def sigmoid(v: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-v))


def tanh(v: Tensor) -> Tensor:
    return (torch.exp(v) - torch.exp(-v)) / (torch.exp(v) + torch.exp(-v))


def hardswish(v: Tensor) -> Tensor:
    if v <= -3:
        return 0 * v
    return v if v >= 3 else v * (v + 3) / 6


def selu(v: Tensor) -> Tensor:
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    return scale * v if v > 0 else scale * alpha * (torch.exp(v) - 1)


SCALAR_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda v: v if v > 0 else 0 * v,
    "leaky_relu": lambda v: v if v > 0 else 0.01 * v,
    "elu": lambda v: v if v > 0 else torch.exp(v) - 1,
    "celu": lambda v: v if v > 0 else torch.exp(v) - 1,
    "selu": selu,
    "gelu": lambda v: v * (1 + torch.erf(v / math.sqrt(2))) / 2,
    "silu": lambda v: v * sigmoid(v),
    "mish": lambda v: v * tanh(torch.log(1 + torch.exp(v))),
    "hardswish": hardswish,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "identity": lambda v: v,
}


def act(x: Grid, name: str | None) -> Grid:
    return x if name is None else x.map(SCALAR_ACTIVATIONS[name])


def softmax(scores: list[Tensor]) -> list[Tensor]:
    powers = [torch.exp(score) for score in scores]
    return [power / total(powers) for power in powers]


def randomise(module: nn.Module) -> nn.Module:
    """Give every parameter and running statistic its own random value, in float64."""
    module.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-0.6, 0.6, generator=generator)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.uniform_(-0.5, 0.5, generator=generator)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5, generator=generator)
    return module


def assert_equals_loop(module: nn.Module, loop: Loop, shape: Shape) -> None:
    """Compare output, gradients and running statistics in training and in evaluation mode.

    Gradients are those of a random weighting of the outputs, for the input and every parameter.
    """
    randomise(module)
    generator = torch.Generator().manual_seed(2)
    image = torch.randn(shape, generator=generator, dtype=torch.float64)
    for training in (False, True):
        mode = "training" if training else "evaluation"
        module.train(training)
        weights = Weights(module)  # before the module's own forward pass moves its statistics
        x, slow_x = image.clone().requires_grad_(), image.clone().requires_grad_()
        slow = loop(Grid.of(slow_x), weights).tensor()
        fast = module(x)
        cotangent = torch.randn(slow.shape, generator=generator, dtype=torch.float64)
        _close(fast, slow, f"output in {mode} mode")
        slow_gradients = torch.autograd.grad(
            slow,
            [slow_x, *weights.parameters.values()],
            cotangent,
            allow_unused=True,
            materialize_grads=True,
        )
        fast_gradients = torch.autograd.grad(fast, [x, *module.parameters()], cotangent)
        for name, got, expected in zip(
            ["input", *weights.parameters], fast_gradients, slow_gradients, strict=True
        ):
            _close(got, expected, f"gradient of {name} in {mode} mode")
        for name, buffer in module.named_buffers():
            _close(buffer, weights.buffers[name], f"{name} after {mode} mode")


def _close(got: Tensor, expected: Tensor, what: str) -> None:
    torch.testing.assert_close(
        got, expected, rtol=1e-8, atol=1e-9, msg=lambda text: f"{what}: {text}"
    )
