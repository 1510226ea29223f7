"""The checks of the block contract: each takes a block on trial and says what it tried."""

import copy
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from blocklab.blocks.protocol import mixed_by, smallest_batch, width_of
from blocklab.blocks.registry import create_block
from blocklab.contract.deployed_forms import folding, merging
from blocklab.contract.networks import in_networks
from blocklab.contract.options import options_change_something
from blocklab.contract.trial import (
    BATCH,
    LARGE_SIZE,
    PLANES,
    SIZES,
    CheckFailed,
    NotApplicable,
    Place,
    Subject,
    channels_of,
    difference,
    forward,
    gradients_of,
    listed,
    told,
    where,
)
from blocklab.measure.cost import cost
from blocklab.models.meta_device import without_memory

STUDY = "study"  # the check that is tried last, and only on a block that passes the others
BF16_TOLERANCE = 0.05  # of the norm of the output; bf16 keeps 8 bits: 0.4 % a rounding


def builds(subject: Subject) -> str:
    """It can be built in every place of its kind, and says how wide it is where it widens."""
    parameters = set()
    for place in subject.all_places():
        with where(f"built{told(place)}"):
            block = subject.build(place)
        for name, parameter in block.named_parameters():
            if not parameter.numel():
                raise CheckFailed(f"{name} is empty{told(place)}; keep a channel at least")
        parameters.add(sum(p.numel() for p in block.parameters()))
    counts = f"{min(parameters):,}"
    if len(parameters) > 1:
        counts += f" to {max(parameters):,}"
    refused = "".join(f"; refuses {width}: {why}" for width, why in subject.refused.items())
    return f"{counts} parameters, with {listed(subject.widths)} channels{refused}"


def shape(subject: Subject) -> str:
    """Its output has the shape that the slot counts on, for maps of several sizes."""
    for place in subject.all_places():
        block = subject.build(place)
        stride = place.get("stride", 1)
        width = place.get("out_channels") or place["channels"]
        if subject.info.kind in ("token_mixer", "ffn_mixer"):
            width = width_of(block, width)
        sizes = SIZES if channels_of(place) == PLANES else (*SIZES[:1], LARGE_SIZE)
        for height, breadth in sizes:
            for training, batch in ((True, BATCH), (False, BATCH), (False, smallest_batch(block))):
                mode = "training" if training else "evaluation"
                what = f"{height}x{breadth} maps, batch of {batch}, {mode}{told(place)}"
                with where(what):
                    x = subject.images(place, (height, breadth), batch=batch)
                    out = forward(block, x, training)
                expected = (batch, width, (height - 1) // stride + 1, (breadth - 1) // stride + 1)
                if tuple(out.shape) != expected:
                    raise CheckFailed(f"{what}: {tuple(out.shape)} instead of {expected}")
                if not out.isfinite().all():
                    raise CheckFailed(f"{what}: the output is not finite")
    tried = ", ".join(f"{height}x{breadth}" for height, breadth in (*SIZES, LARGE_SIZE))
    return f"maps of {tried}; training and evaluation"


def keeps_input(subject: Subject) -> str:
    """It leaves its input as it was: the network may still need it, for the shortcut."""
    for place in subject.places():
        block = subject.build(place)
        for training in (True, False):
            x = subject.images(place)
            before = x.clone()
            block.train(training)(x)
            if not torch.equal(x, before):
                raise CheckFailed(f"the input is overwritten{told(place)}; work on a copy")
    return "the input is left as it was"


def gradients(subject: Subject) -> str:
    """The input and every parameter get a finite gradient that is not zero."""
    silent: set[str] = set()
    count = 0
    for place in subject.places():
        largest: dict[str, list[float]] = {}
        for seed in range(3):  # a ReLU may be closed once
            block = subject.build(place, seed=seed, dtype=torch.float64)
            x = subject.images(place, dtype=torch.float64, seed=100 + seed)
            for training in (True, False):
                _, found = gradients_of(block, x, training)
                for name, gradient in found.items():
                    size = 0.0 if gradient is None else float(gradient.abs().max())
                    if not size < float("inf"):
                        raise CheckFailed(f"the gradient of {name} is not finite{told(place)}")
                    largest.setdefault(name, []).append(size)
        typical = max(largest["the input"])
        for name, sizes in largest.items():
            if max(sizes) == 0:
                raise CheckFailed(f"{name} gets no gradient{told(place)}; it does nothing")
            if max(sizes) < 1e-10 * typical:  # no more than rounding
                silent.add(name)
        count = max(count, len(largest) - 1)
    said = f"the input and {count} parameter tensors"
    if silent:  # as a bias before a softmax: no fault of the code
        said += f"; {', '.join(sorted(silent))} cancels out by design"
    return said


def finitedifferences(subject: Subject) -> str:
    """Its gradients are those that small steps measure, in float64."""
    worst = 0.0
    for place in subject.places():
        for training in (False, True):
            wrong: dict[str, float] = {}
            for attempt in range(3):  # a step may cross a kink once, not thrice
                errors = _errors_ofgradients_of(subject, place, training, attempt)
                wrong = {name: error for name, error in errors.items() if not error <= 1e-4}
                if not wrong:
                    worst = max([worst, *errors.values()])
                    break
            if wrong:
                name = max(wrong, key=lambda key: wrong[key])
                mode = "training" if training else "evaluation"
                raise CheckFailed(
                    f"the gradient of {name} is {100 * wrong[name]:.2g} % from what small steps "
                    f"measure, in {mode}{told(place)}"
                )
    return f"input and parameters agree to {worst:.0e}"


def _errors_ofgradients_of(
    subject: Subject, place: Place, training: bool, attempt: int
) -> dict[str, float]:
    step = 1e-6
    block = subject.build(place, seed=attempt, dtype=torch.float64)
    x = subject.images(place, (4, 3), batch=3, dtype=torch.float64, seed=100 + attempt)
    out, found = gradients_of(block, x, training)
    generator = torch.Generator().manual_seed(2)
    weighting = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    rounding = 1e-15 * float((out.detach() * weighting).abs().sum()) / step
    tensors = {"the input": x} | dict(block.named_parameters())
    errors = {}
    for number, (name, gradient) in enumerate(found.items()):
        tensor = tensors[name].detach()
        direction = torch.randn(
            tensor.shape, generator=generator.manual_seed(10 + number), dtype=torch.float64
        )
        values = []
        with torch.no_grad():
            start = tensor.clone()
            for sign in (1, -1):
                tensor.copy_(start + sign * step * direction)
                values.append(float((forward(block, x, training) * weighting).sum()))
            tensor.copy_(start)
        measured = (values[0] - values[1]) / (2 * step)
        computed = 0.0 if gradient is None else float((gradient * direction).sum())
        scale = max(abs(measured), abs(computed), 1e4 * rounding, 1e-8)
        errors[name] = abs(measured - computed) / scale
    return errors


def samples(subject: Subject) -> str:
    """In evaluation, what it makes of one image does not depend on the others of the batch."""
    for place in subject.places():
        block = subject.build(place, dtype=torch.float64)
        one = subject.images(place, dtype=torch.float64)
        other = subject.images(place, dtype=torch.float64, seed=101)
        mixed = torch.cat([one[:1], other[1:]])
        if said := mixed_by(block):
            with torch.no_grad():
                if torch.equal(forward(block, mixed)[:1], forward(block, one)[:1]):
                    raise CheckFailed(f"it says that it mixes samples ({said}), and does not")
            raise NotApplicable(f"it mixes samples by design ({said})")
        with torch.no_grad():
            alone = forward(block, one[:1])
            for what, batch in (("the others", mixed), ("company", one)):
                if difference(forward(block, batch)[:1], alone) > 1e-9:
                    raise CheckFailed(f"an image's output changes with {what}{told(place)}")
    return "an image alone, and in two batches: the same output"


def deterministic(subject: Subject) -> str:
    """In evaluation, it gives the same again and learns nothing; built anew, it starts alike."""
    for place in subject.places():
        one, two = (subject.build(place, random=False) for _ in range(2))
        for (name, value), again in zip(
            one.state_dict().items(), two.state_dict().values(), strict=True
        ):
            if not isinstance(value, Tensor):
                raise CheckFailed(
                    f"{name} of its state_dict is a {type(value).__name__}, and files of weights "
                    "hold tensors alone; make it a buffer"
                )
            if not torch.equal(value, again):
                raise CheckFailed(f"{name} starts otherwise from the same seed; draw with torch")
        block = subject.build(place).eval()
        before = copy.deepcopy(block.state_dict())
        with torch.no_grad():
            x = subject.images(place)
            first, second = block(x), block(x)
        if not torch.equal(first, second):
            raise CheckFailed(f"two runs on one input differ in evaluation{told(place)}")
        for name, value in block.state_dict().items():
            if not torch.equal(value, before[name]):
                raise CheckFailed(f"{name} changes in evaluation{told(place)}")
    return "same seed, same start; same input, same output to the bit"


def state(subject: Subject) -> str:
    """All that it has learnt is in its state_dict: a fresh block takes it up; so does a copy."""
    for place in subject.places():
        block = subject.build(place)
        with torch.no_grad():
            x = subject.images(place)
            for number in range(2):  # what it learns by running is state too
                forward(block, subject.images(place, seed=200 + number), training=True)
            expected = forward(block, x)
            fresh = subject.build(place, seed=1)
            with where(f"loaded into a fresh block{told(place)}"):
                fresh.load_state_dict(block.state_dict())
            with where(f"copied{told(place)}"):
                double = copy.deepcopy(block)
            for what, other in (("a fresh block with its state_dict", fresh), ("a copy", double)):
                if not torch.equal(forward(other, x), expected):
                    raise CheckFailed(f"{what} gives other outputs{told(place)}")
    return "a fresh block with its state_dict, and a copy: the same output to the bit"


def bf16(subject: Subject) -> str:
    """It works in bf16, by autocast and as a whole, and stays near float32."""
    worst = 0.0
    for place in subject.places():
        block = subject.build(place)
        x = subject.images(place)
        with torch.no_grad():
            expected = forward(block, x)
            with where(f"autocast{told(place)}"), torch.autocast("cpu", torch.bfloat16):
                cast = forward(block, x)
            with where(f"bfloat16(){told(place)}"):
                whole = forward(copy.deepcopy(block).bfloat16(), x.bfloat16())
        for what, out in (("autocast", cast), ("bfloat16()", whole)):
            off = difference(out, expected)
            if not off < BF16_TOLERANCE:
                raise CheckFailed(
                    f"{what} is {100 * off:.2g} % from float32{told(place)}; "
                    f"{100 * BF16_TOLERANCE:.0f} % is what rounding explains"
                )
            worst = max(worst, off)
        if whole.dtype != torch.bfloat16:
            raise CheckFailed(f"bfloat16() gives {whole.dtype}, which the next layer cannot take")
        for layout in (torch.contiguous_format, torch.channels_last):  # as networks are trained
            block.to(memory_format=layout)  # type: ignore[call-overload]
            block.zero_grad()
            with where(f"training with autocast{told(place)}"):
                leaf = x.to(memory_format=layout, copy=True).requires_grad_()
                with torch.autocast("cpu", torch.bfloat16):
                    out = forward(block, leaf, training=True)
                out.float().square().sum().backward()
            for name, tensor in {"the input": leaf, **dict(block.named_parameters())}.items():
                if tensor.grad is not None and not tensor.grad.isfinite().all():
                    raise CheckFailed(f"the gradient of {name} is not finite with autocast")
    return f"autocast and bfloat16() within {100 * worst:.2g} % of float32"


def channels_last(subject: Subject) -> str:
    """It gives the same values and gradients where tensors lie channels_last in memory."""
    for place in subject.places():
        for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
            block = subject.build(place, dtype=dtype)
            x = subject.images(place, (8, 12), dtype=dtype)
            for training in (False, True):
                expected, gradient = gradients_of(copy.deepcopy(block), x, training)
                moved = copy.deepcopy(block).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                laid = x.to(memory_format=torch.channels_last)
                with where(f"channels_last{told(place)}"):
                    out, moved_gradient = gradients_of(moved, laid, training)
                _same(out, expected, gradient, moved_gradient, tolerance, told(place))
    return "same values and gradients"


def _same(
    out: Tensor,
    expected: Tensor,
    gradients: dict[str, Tensor | None],
    others: dict[str, Tensor | None],
    tolerance: float,
    place: str,
) -> None:
    if not difference(out, expected) < tolerance:
        raise CheckFailed(f"the output is another{place}")
    typical = max(float(g.norm()) for g in gradients.values() if g is not None)
    for name, gradient in gradients.items():
        other = others[name]
        if gradient is None or other is None:
            continue
        if not float((gradient - other).norm()) < 10 * tolerance * typical:
            raise CheckFailed(f"the gradient of {name} is another{place}")


def compiles(subject: Subject) -> str:
    """`torch.compile` gives the same values and gradients."""
    backend = subject.compile_backend
    if backend is None:
        raise NotApplicable("not asked for")
    import torch._dynamo.utils  # a second or two, which only this check needs

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for place in subject.places():
        block = subject.build(place)
        x = subject.images(place)
        for training in (False, True):
            expected, gradient = gradients_of(copy.deepcopy(block), x, training)
            with where(f"compiled{told(place)}"):
                compiled = cast(nn.Module, torch.compile(copy.deepcopy(block), backend=backend))
                out, other = gradients_of(compiled, x, training)
            other = {name.removeprefix("_orig_mod."): value for name, value in other.items()}
            _same(out, expected, gradient, other, 1e-4, told(place))
    breaks = sum(torch._dynamo.utils.counters["graph_break"].values())
    graph = f"with {breaks} graph breaks" if breaks else "in one graph"
    code = "compiled to code" if backend == "inductor" else "traced; no code was made"
    return f"{backend}: same values and gradients, {graph} ({code})"


def countable(subject: Subject) -> str:
    """Its cost can be counted, without memory for its weights."""
    place = subject.places()[0]
    with where("built on the meta device"), without_memory():
        block = create_block(subject.info.kind, subject.spec, **place)
    channels = channels_of(place)
    counted = cost(block, input_size=8, in_chans=channels)
    return (
        f"{counted.macs:,} MACs on an 8x8 map of {channels} channels, {counted.params:,} parameters"
    )


CHECKS: dict[str, Callable[[Subject], str]] = {
    "builds": builds,
    "shape": shape,
    "keeps its input": keeps_input,
    "gradients": gradients,
    "finite differences": finitedifferences,
    "options": options_change_something,
    "samples": samples,
    "deterministic": deterministic,
    "state_dict": state,
    "bf16": bf16,
    "channels_last": channels_last,
    "compile": compiles,
    "cost": countable,
    "merge": merging,
    "fold_norms": folding,
    STUDY: in_networks,
}
