"""What a block computes, recorded while it runs: its operations, their order and their shapes.

The block runs twice on the meta device, at sizes of which every product is told apart. A length
that grows as the channels do is then written with C, one that does not grow as a number.
"""

import itertools
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Shape = tuple[int, ...]
Numbers = tuple[float, ...]
# Images, channels, height and width of the two runs: each grows by a prime of its own.
SIZES: tuple[Shape, Shape] = ((1, 256, 14, 28), (7, 512, 42, 140))
LETTERS = "BCHW"
_POWERS = ("", "{}", "{}²")
TIMES, PLUS, MINUS, OVER = "×", "+", "−", "÷"
_SIGNS = {"mul": TIMES, "add": PLUS, "sub": MINUS, "div": OVER, "truediv": OVER}
_SAME_DATA = frozenset(
    "clone contiguous detach dropout expand expand_as flatten float get getitem narrow repeat "
    "reshape select squeeze to type_as unflatten unsqueeze view view_as".split()
)
_TURNS = frozenset("movedim permute swapaxes T transpose".split())
_CALLED = {
    "batch_norm": "BN",
    "layer_norm": "LN",
    "relu": "ReLU",
    "celu": "CELU",
    "gelu": "GELU",
    "silu": "SiLU",
    "hardswish": "h-swish",
    "hardsigmoid": "h-sigmoid",
    "cat": "concatenate",
    "split": "split",
    "chunk": "split",
    "matmul": "matrix product",
    "bmm": "matrix product",
    "einsum": "weighted sum",
    "rsqrt": "1 / root",
    "sqrt": "root",
    "lerp": "mix by a share",
    "scaled_dot_product_attention": "softmax(q k) v",
}
_REDUCTIONS = {
    "mean": "mean",
    "max": "maximum",
    "amax": "maximum",
    "sum": "sum",
    "std": "standard deviation",
    "var": "variance",
    "linalg_vector_norm": "norm",
    "softmax": "softmax",
}
_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


@dataclass(frozen=True)
class Step:
    """An operation on maps.

    Attributes:
        text: what it is called, with a `{}` for each of `numbers`.
        numbers: lengths and other numbers that the text names.
        inputs: the steps that it takes maps of; step 0 is the block's input.
        shapes: of what it gives; several of a split.
    """

    text: str
    numbers: Numbers
    inputs: tuple[int, ...]
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class Traced:
    """A step in words: what it is, what it takes, and the shape of what it gives."""

    text: str
    inputs: tuple[int, ...]
    shape: str

    @property
    def is_sign(self) -> bool:
        """Whether maps meet here, to be added or multiplied."""
        return self.text in _SIGNS.values()


def trace(build: Callable[[int], tuple[nn.Module, int]]) -> list[Traced]:
    """Return the steps of a block, the last of which gives its output.

    Args:
        build: makes the block for so many channels, and says how many its input has.
    """
    runs = list[tuple[list[Step], Shape]]()
    for images, channels, height, width in SIZES:
        block, given = build(channels)
        size = (images, given, height, width)
        runs.append((_recorded(block.eval(), size), size))
    (first, small), (second, large) = runs
    if [(step.text, step.inputs) for step in first] != [(one.text, one.inputs) for one in second]:
        second, large = first, small  # not the same operations at each size: numbers, no letters
    steps = list[Traced]()
    for step, other in zip(first, second, strict=True):
        numbers = zip(step.numbers, other.numbers, strict=True)
        text = step.text.format(*(_number(a, b, small, large) for a, b in numbers))
        text = re.sub(r"over HW(?!/)", "over H, W", text)
        shapes = [
            [in_letters(*pair, small, large) for pair in zip(*both, strict=True)]
            for both in zip(step.shapes, other.shapes, strict=True)
        ]
        steps.append(Traced(text, step.inputs, _listed(shapes)))
    return steps


def in_letters(length: int, other: int, small: Shape, large: Shape) -> str:
    """Write a length that is `length` at sizes `small` and `other` at `large`: "C/16", "HW", "7".

    A length that is neither alike at both nor follows from the sizes is its number.
    """
    if length == other or length == 0:
        return str(length)
    growths = [Fraction(b, a) for a, b in zip(small, large, strict=True)]
    each = itertools.product(range(len(_POWERS)), repeat=len(small))
    for powers in sorted(each, key=sum):
        if prod(map(operator.pow, growths, powers)) == Fraction(other, length):
            letters = "".join(
                _POWERS[n].format(one) for n, one in zip(powers, LETTERS, strict=True)
            )
            times = Fraction(length, prod(map(operator.pow, small, powers)))
            front = "" if times.numerator == 1 else str(times.numerator)
            return front + letters + ("" if times.denominator == 1 else f"/{times.denominator}")
    for one, two in itertools.combinations(range(len(small)), 2):
        if (small[one] + small[two], large[one] + large[two]) == (length, other):
            return f"({LETTERS[one]} + {LETTERS[two]})"
    return str(length)


def _number(value: float, other: float, small: Shape, large: Shape) -> str:
    """Write a number of an operation: a length, a root of one, or what is the same at each size."""
    if isinstance(value, int) and isinstance(other, int):
        return in_letters(value, other, small, large)
    if value == other:
        return f"{value:.3g}"
    for front, squares in (("√", (value**2, other**2)), ("1/√", (value**-2, other**-2))):
        small_length, large_length = map(round, squares)
        if all(abs(square - round(square)) < 1e-3 for square in squares) and small_length:
            return f"{front}({in_letters(small_length, large_length, small, large)})"
    return "a number of the size"


def _listed(shapes: list[list[str]]) -> str:
    """Write shapes without the images: "C × H × W", "4 of C/4 × H × W"."""
    texts = [f" {TIMES} ".join(_without_images(shape)) for shape in shapes]
    counts = {text: texts.count(text) for text in texts}
    if len(texts) == 1:
        return texts[0]
    return ", ".join(text if n == 1 else f"{n} of {text}" for text, n in counts.items())


def _without_images(shape: list[str]) -> list[str]:
    if not any("B" in length for length in shape):
        return shape or ["1"]
    per_image = [length.replace("B", "", 1) for length in shape if length != "B"]
    return per_image[1:] if per_image[:1] == ["1"] and "B" not in shape else per_image or ["1"]


def _recorded(block: nn.Module, size: Shape) -> list[Step]:
    x = torch.empty(size, device="meta")
    with torch.no_grad(), _Recorder(x) as recorder:
        y = block(x)
    recorder.steps.append(Step("y", (), recorder.sources([y]), (tuple(y.shape),)))
    return recorder.steps


class _Recorder(TorchFunctionMode):
    """Writes down each operation on what comes from `x`; those on weights alone are left out."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.steps = [Step("x", (), (), (tuple(x.shape),))]
        self._of = {id(x): 0}
        self._alive: list[Tensor] = [x]  # that no other tensor gets the name of one that is gone

    def sources(self, values: Iterable[object]) -> tuple[int, ...]:
        """Return the steps that these values come from."""
        return tuple(self._of[id(value)] for value in values if id(value) in self._of)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = list(_flat([args, kwargs or {}]))
        before = [tuple(value.shape) for value in given if isinstance(value, Tensor)]
        inputs = self.sources(given)
        result = func(*args, **(kwargs or {}))
        made = [value for value in _flat(result) if isinstance(value, Tensor)]
        if inputs and made:
            name = _plain(getattr(func, "__name__", str(func)))
            same = name in _TURNS and tuple(made[0].shape) == before[0]
            if name in _SAME_DATA or same or _changes_nothing(name, given):
                step = inputs[0]
            else:
                text, numbers = _words(name, given, before, args, kwargs or {}, inputs, made)
                shapes = tuple(tuple(one.shape) for one in made)
                shapes = shapes if name in ("split", "chunk", "unbind") else shapes[:1]
                unique = inputs if len(set(inputs)) > 1 else inputs[:1]
                self.steps.append(Step(text, numbers, unique, shapes))
                step = len(self.steps) - 1
            self._alive += made
            self._of |= {id(one): step for one in made}
        return result


def _flat(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _plain(name: str) -> str:
    """Return an operation's name without the marks of its form: `__rmul__`, `mul_` -> `mul`."""
    name = name.strip("_")
    return name[1:] if name[:1] in "ri" and name[1:] in _SIGNS else name


def _changes_nothing(name: str, given: Sequence[object]) -> bool:
    """Whether it is times 1 or plus 0, by a default option."""
    numbers = [value for value in given if isinstance(value, int | float)]
    return name in _SIGNS and numbers[:1] == [name in ("mul", "div", "truediv")]


def _words(
    name: str,
    given: Sequence[object],
    before: Sequence[Shape],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    inputs: tuple[int, ...],
    made: Sequence[Tensor],
) -> tuple[str, Numbers]:
    """Say what an operation is, with the lengths that its words name."""
    if name.startswith("conv"):
        return _convolution({**dict(zip(_CONVOLUTION, args, strict=False)), **kwargs}, inputs)
    if name in _SIGNS:
        return _arithmetic(name, given, inputs)
    after = tuple(made[0].shape)
    if name in _TURNS:
        return "transpose", ()
    if name in _REDUCTIONS:
        axes = [value for value in _flat([args[1:], kwargs.get("dim", [])]) if type(value) is int]
        axes = axes[1:] if name == "linalg_vector_norm" and "dim" not in kwargs else axes
        over = tuple(before[0][axis] for axis in axes if -len(before[0]) <= axis < len(before[0]))
        return f"{_REDUCTIONS[name]} over {', '.join(['{}'] * len(over)) or 'all'}", over
    if name == "linear":
        return "linear → {}", after[-1:]
    if name == "group_norm":
        return "GN, groups: {}", (args[1],)
    if name.startswith("adaptive_avg"):
        return f"averaged to {' × '.join(['{}'] * len(after[2:]))}", after[2:]
    if name in ("avg_pool2d", "max_pool2d", "unfold"):
        side = kwargs.get("kernel_size", args[1] if len(args) > 1 else 0)
        sides = (side, side) if isinstance(side, int) else tuple(side)
        what = {"avg_pool2d": "mean of {} × {}", "max_pool2d": "maximum of {} × {}"}
        return what.get(name, "neighbours in {} × {}"), sides
    return _CALLED.get(name, name.replace("_", " ")), ()


def _convolution(told: Mapping[str, Any], inputs: tuple[int, ...]) -> tuple[str, Numbers]:
    weight = told["weight"]
    outputs, taken, *sides = weight.shape
    groups, channels = told.get("groups", 1), told["input"].shape[1]
    kernel = " × ".join(["{}"] * len(sides)) + (", 1-D" if len(sides) == 1 else "")
    numbers = tuple(sides)
    if len(inputs) > 1:
        return f"convolve, {kernel}, with these kernels", numbers
    if groups > 1 and taken == 1 and groups == channels:
        text = f"depth-wise {kernel}"
    elif groups > 1:
        text, numbers = f"conv {kernel} in {{}} groups", (*numbers, groups)
    else:
        text = f"conv {kernel}"
    for key in ("dilation", "stride"):
        value = told.get(key, 1)
        largest = max(value) if isinstance(value, list | tuple) else value
        if largest > 1:
            text, numbers = f"{text}, {key} {{}}", (*numbers, largest)
    if outputs != channels:
        text, numbers = f"{text} → {{}}", (*numbers, outputs)
    return text, numbers


def _arithmetic(name: str, given: Sequence[object], inputs: tuple[int, ...]) -> tuple[str, Numbers]:
    if len(set(inputs)) > 1:
        return _SIGNS[name], ()
    if len(inputs) > 1 and name == "mul":
        return "square", ()
    numbers = [float(value) for value in given if isinstance(value, int | float)]
    if numbers:
        return f"{_SIGNS[name]} {{}}", (numbers[0],)
    learned = any(isinstance(value, nn.Parameter) for value in given)
    what = ("bias" if name in ("add", "sub") else "weight") if learned else "constant"
    return f"{_SIGNS[name]} a {'learned ' * learned}{what}", ()
