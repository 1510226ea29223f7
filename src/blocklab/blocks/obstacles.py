"""What keeps a part of a network from being merged, folded or left out: others see it.

A part may be rewritten where one other uses it and nothing watches it: no hook, no parametrization,
no forward() of its own. How many use a part is known of a whole network alone, so a walk over one
looks at it first (`looking_at`); what is then kept is noted, with why.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from torch import nn

# How nn.Module keeps what is called around forward() and around its gradient.
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

_ABOUT_HOOKS = (
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs",
)


@dataclass(frozen=True)
class _Look:
    users: Counter[nn.Module]  # in how many places each part stands
    kept: dict[nn.Module, str] = field(default_factory=dict)  # why each stays as it is


_LOOK: ContextVar[_Look | None] = ContextVar("the network that is looked at", default=None)


@contextmanager
def looking_at(network: nn.Module) -> Iterator[dict[nn.Module, str]]:
    """Inside it the users of each part are those in this network; gives what is kept, and why.

    Inside another it changes nothing: the outer network is the whole one.
    """
    look = _LOOK.get()
    if look is not None:
        yield look.kept
        return
    look = _Look(_users(network))
    token = _LOOK.set(look)
    try:
        yield look.kept
    finally:
        _LOOK.reset(token)


def keep(part: nn.Module, why: str) -> None:
    """Note that a part stays as it is."""
    look = _LOOK.get()
    if look is not None:
        look.kept[part] = why


def obstacle(parent: nn.Module, name: str) -> str:
    """Say what of a part, or of what it stands in below `parent`, is seen by others; or nothing."""
    look = _LOOK.get()
    users = _users(parent) if look is None else look.users
    part, path = parent, ""
    for child in name.split("."):
        part, path = part.get_submodule(child), f"{path}.{child}" if path else child
        if users[part] > 1:
            return f"{path} is used in {users[part]} places"
        if why := watched(part):
            return f"{path} {why}"
    return ""


def obstacle_within(part: nn.Module) -> str:
    """Say what below a part is watched, or has parameters and is used elsewhere; or nothing."""
    for name, module in part.named_modules():
        holds = next(module.parameters(recurse=False), None) is not None
        if name and (obstacle(part, name) if holds else watched(module)):
            return obstacle(part, name)
    return ""


def watched(part: nn.Module) -> str:
    """Say what watches or changes this one module, such as "has hooks"; or nothing."""
    if any(getattr(part, hooks) for hooks in HOOKS):
        return "has hooks"
    if hasattr(part, "parametrizations"):
        return "is parametrized"
    return f"has a {method}() of its own" if (method := replaced_method(part)) else ""


def replaced_method(part: nn.Module) -> str:
    """Return the name of a method that was put on this one module in its class's place, if any."""
    own = (name for name, value in vars(part).items() if callable(value))
    return next((name for name in own if callable(getattr(type(part), name, None))), "")


def hand_over_hooks(part: nn.Module, other: nn.Module) -> None:
    """Let what watches a part watch the module that takes its place."""
    for name in (*HOOKS, *_ABOUT_HOOKS):
        getattr(other, name).update(getattr(part, name))
    if part._is_full_backward_hook is not None:
        other._is_full_backward_hook = part._is_full_backward_hook


def _users(network: nn.Module) -> Counter[nn.Module]:
    parts = (part for owner in network.modules() for part in owner._modules.values())
    return Counter(part for part in parts if part is not None)
