"""Names for blocks, and the options that each takes.

A block is a plain module. What the slot tells it (its channels, its stride, ...) comes as
positional parameters, taken by name from `SLOT_PARAMETERS`; what a user may choose comes as
keyword-only parameters, whose annotations and defaults are the block's options. So the constructor
is the schema: a misspelt option, a wrong type or a value out of range is refused before any model
is built, and a specification written with its defaults filled in identifies a block. A block of a
user's file is written with the digest of that file, ``my_block@3f2a9c1b04de``, so that a changed
file is another block.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PydanticUserError,
    ValidationError,
    create_model,
)
from pydantic_core import PydanticSerializationError
from torch import nn

from blocklab.blocks.option_types import ADDED_LATER
from blocklab.blocks.protocol import inner_width, width_options
from blocklab.errors import (
    BlocklabError,
    InputError,
    did_you_mean,
    error_line,
    one_line,
    place_in_files,
    with_place,
)
from blocklab.yaml_files import PlainModel, parse_yaml

BlockSpec = dict[str, Any]

# Of what a model says: far beyond any network, and small enough that each can be counted.
LARGEST_SIZE = 65_536
LONGEST_LIST = 64

SLOT_PARAMETERS: dict[str, tuple[str, ...]] = {
    # Added to a network: (B, C, H, W) -> (B, C, H, W).
    "attention": ("channels",),
    # Replaces a convolution: (B, C_in, H, W) -> (B, width, H / stride, W / stride).
    "mixer": ("in_channels", "out_channels", "stride", "first_in_stage", "activation"),
    # VAN's spatial unit: keeps the map's size, may widen it (attribute `out_channels`).
    "token_mixer": ("channels", "drop_path"),
    # Between the two 1x1 convolutions of VAN's FFN; may widen it (attribute `out_channels`).
    "ffn_mixer": ("channels", "activation"),
    # A network's stem and stages.
    "backbone": ("in_chans", "drop_path_rate"),
}
_OF_A_SLOT = ("type", "stages")  # what a specification says beside a block's options
_BlockClass = TypeVar("_BlockClass", bound=type[nn.Module])


class _Options(PlainModel):
    largest: ClassVar[int] = LARGEST_SIZE
    longest: ClassVar[int] = LONGEST_LIST

    model_config = ConfigDict(
        extra="forbid", strict=False, arbitrary_types_allowed=True, allow_inf_nan=False
    )


@dataclass(frozen=True)
class BlockInfo:
    """What the registry knows of a block."""

    name: str
    kind: str
    cls: type[nn.Module]
    slot_parameters: tuple[str, ...]
    options: type[BaseModel]
    digest: str | None = None  # of the user's file that it comes from
    width_options: tuple[str, ...] = ()  # that a mixer's `inner_width` alone reads

    @property
    def versioned_name(self) -> str:
        """What a specification calls it: its name, and its file's digest where it has one."""
        return f"{self.name}@{self.digest}" if self.digest else self.name

    def build(self, told: Mapping[str, Any], options: Mapping[str, Any]) -> nn.Module:
        """Build the block with what its slot tells and what a user chose."""
        return self.cls(**told, **options)


_REGISTRY: dict[tuple[str, str], BlockInfo] = {}


def is_attention(module: nn.Module) -> bool:
    """Whether a module is a block that is registered as an attention."""
    return any(one.kind == "attention" and type(module) is one.cls for one in _REGISTRY.values())


# What finds the attentions whose names begin so: those of another package.
FINDERS: dict[str, Callable[[str], BlockInfo]] = {}


def register_block(name: str, kind: str = "attention") -> Callable[[_BlockClass], _BlockClass]:
    """Register a module class under `name`, to be used in the slots of `kind`.

    Args:
        name: what models and YAML files call it.
        kind: ``attention``, ``mixer``, ``token_mixer`` or ``ffn_mixer``.

    Raises:
        InputError: if the kind is unknown, the name is taken by another class or no word that a
            study can write, the constructor asks for something that slots of this kind do not
            tell, or `width_options` of a mixer are none of its options.
    """
    if not isinstance(name, str):
        raise InputError("register_block takes a name; write @register_block('my_block')")
    if not is_word(name) or name == "none":
        raise InputError(
            f"a block cannot be called '{name}', which a study's file would read otherwise; name "
            "it by a word of letters, digits and _"
        )

    def register(cls: _BlockClass) -> _BlockClass:
        if kind not in SLOT_PARAMETERS:
            raise InputError(
                f"no kind of block '{kind}'{did_you_mean(kind, SLOT_PARAMETERS) or ';'} "
                f"kinds: {', '.join(SLOT_PARAMETERS)}"
            )
        taken = _REGISTRY.get((kind, name))
        if taken is not None and _identity(taken.cls) != _identity(cls):
            raise InputError(
                f"the {kind} '{name}' is already {taken.cls.__module__}.{taken.cls.__qualname__}; "
                "register yours under another name"
            )
        slot_parameters, options = _read_signature(name, kind, cls)
        for_width = width_options(cls, options.model_fields) if kind == "mixer" else ()
        info = BlockInfo(name, kind, cls, slot_parameters, options, width_options=for_width)
        _REGISTRY[kind, name] = info
        return cls

    return register


@contextmanager
def registering(digest: str, instead_of: Iterable[BlockInfo] = ()) -> Iterator[list[BlockInfo]]:
    """Mark what is registered inside as of a file with this digest; an error takes it all back.

    The list that is yielded holds those blocks at the end. `instead_of` are the blocks of an
    earlier version of the file.
    """
    before, found = dict(_REGISTRY), list[BlockInfo]()
    try:
        for info in instead_of:
            del _REGISTRY[info.kind, info.name]
        yield found
        for key, info in _REGISTRY.items():
            if info is not before.get(key):
                _REGISTRY[key] = replace(info, digest=digest)
                found.append(_REGISTRY[key])
    except BaseException:
        _REGISTRY.clear()
        _REGISTRY.update(before)
        raise


def is_word(name: str) -> bool:
    """Whether YAML, and a model in one line, read a name as that name."""
    return bool(re.fullmatch(r"[^\W\d][\w.-]*", name)) and parse_yaml(name, name) == name


def _identity(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__  # a module that is loaded again may register again


def _read_signature(
    name: str, kind: str, cls: type[nn.Module]
) -> tuple[tuple[str, ...], type[BaseModel]]:
    slot_parameters: list[str] = []
    options: dict[str, Any] = {}
    for parameter in inspect.signature(cls, eval_str=True).parameters.values():
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            if parameter.name not in SLOT_PARAMETERS[kind]:
                raise InputError(
                    f"block '{name}' asks for '{parameter.name}', which no {kind} slot tells; "
                    f"slots tell {', '.join(SLOT_PARAMETERS[kind])}; make it a keyword-only option"
                )
            slot_parameters.append(parameter.name)
        elif parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.annotation is parameter.empty or parameter.default is parameter.empty:
                raise InputError(
                    f"option '{parameter.name}' of block '{name}' needs a type and a default"
                )
            if parameter.name in _OF_A_SLOT or hasattr(_Options, parameter.name):
                raise InputError(
                    f"block '{name}' cannot have an option '{parameter.name}', which means "
                    "something else; give it another name"
                )
            if isinstance(parameter.default, set | frozenset):
                raise InputError(
                    f"option '{parameter.name}' of block '{name}' is a set, which has no order to "
                    "write down; make it a tuple"
                )
            options[parameter.name] = (parameter.annotation, parameter.default)
        else:
            raise InputError(f"block '{name}' takes *args or **kwargs; name its options instead")
    return tuple(slot_parameters), options_model(name, options)


def options_model(name: str, options: dict[str, Any]) -> type[BaseModel]:
    """Make the schema of a block's options, and check that its defaults can be written down."""
    try:
        model = create_model(f"{name}_options", __base__=_Options, **options)
        defaults = {option: default for option, (_, default) in options.items()}
        model.model_validate(defaults).model_dump(mode="json")
    except ValidationError as error:
        raise InputError(one_line(error, f"the defaults of block '{name}'")) from None
    except (PydanticUserError, PydanticSerializationError) as error:
        raise InputError(
            f"the options of block '{name}' are to be numbers, words or lists of them: "
            f"{error_line(error)}"
        ) from None
    return model


def block_info(kinds: str | tuple[str, ...], name: object) -> BlockInfo:
    """Find a block by name among one or several kinds.

    Raises:
        InputError: if there is none; the message names the closest and lists the others.
    """
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    if isinstance(name, str) and "attention" in kinds:
        for prefix, find in FINDERS.items():
            if name.startswith(prefix):
                return find(name)
    plain, _, digest = name.partition("@") if isinstance(name, str) else ("", "", "")
    for kind in kinds:
        info = _REGISTRY.get((kind, plain))
        if info is not None:
            if digest and digest != info.digest:
                raise InputError(
                    f"{kind} '{plain}' is not the one that was meant (@{digest}), as its file has "
                    "changed; give the file as it was, or run again"
                )
            return info
    if digest:
        raise InputError(
            f"no {kinds[0]} '{plain}'; give the file that it comes from: --plugin FILE, or "
            "blocklab.load_plugin(FILE) in Python"
        )
    known = sorted(known for kind, known in _REGISTRY if kind in kinds)
    raise InputError(
        f"no {kinds[0]} '{name}'{did_you_mean(str(name), known) or '.'} "
        f"{kinds[0].capitalize()}s: {', '.join(known)}, or your own with --plugin FILE, or "
        "blocklab.load_plugin(FILE) in Python"
    )


def registered_blocks() -> Iterator[BlockInfo]:
    """Every registered block, by kind and name."""
    yield from (_REGISTRY[key] for key in sorted(_REGISTRY))


def parse_block(kinds: str | tuple[str, ...], value: object) -> BlockSpec:
    """Turn ``"se"`` or ``{"type": "se", "reduction": 8}`` into a specification with all options.

    Raises:
        InputError: for an unknown block or option, or a value of the wrong type.
    """
    if isinstance(value, str):
        value = {"type": value}
    kind = kinds if isinstance(kinds, str) else kinds[0]
    if not isinstance(value, Mapping) or "type" not in value:
        article = "an" if kind[0] in "aeiou" else "a"
        raise InputError(
            f"{article} {kind} is a name or a mapping with a 'type', not {value!r}; "
            f"for example {{type: {_example(kind)}}}"
        )
    info = block_info(kinds, value["type"])
    given = {key: item for key, item in value.items() if key != "type"}
    try:
        options = info.options.model_validate(given)
    except ValidationError as error:
        what = f"{info.kind} '{info.name}'"
        raise InputError(one_line(error, what, info.options)) from None
    return {"type": info.versioned_name, **_written(options)}


def _written(options: BaseModel) -> dict[str, Any]:
    """Return all options but those added later that have their defaults."""
    added = {
        name
        for name, field in type(options).model_fields.items()
        if ADDED_LATER in field.metadata and getattr(options, name) == field.default
    }
    return options.model_dump(mode="json", exclude=added)


def _example(kind: str) -> str:
    return next((name for known, name in sorted(_REGISTRY) if known == kind), "...")


def parse_chain(value: object) -> list[BlockSpec]:
    """Turn nothing, one attention or a list of them into a list of full specifications."""
    if value is None or value == "none":
        return []
    items = value if isinstance(value, list | tuple) else [value]
    return [parse_block("attention", item) for item in items]


# The type of an option that is itself an attention, or a chain of them.
AttentionChain = Annotated[list[BlockSpec], BeforeValidator(parse_chain)]


def create_block(kinds: str | tuple[str, ...], spec: BlockSpec | str, **told: Any) -> nn.Module:
    """Build a block: `told` is what the slot tells it, of which it takes what it asks for.

    Raises:
        InputError: where the specification or the combination of options and channels is wrong.
    """
    spec = parse_block(kinds, spec)
    info = block_info(kinds, spec["type"])
    options = {key: value for key, value in spec.items() if key != "type"}
    given = {name: told[name] for name in info.slot_parameters}
    with _faults_of(info, given):
        return info.build(given, options)


@contextmanager
def _faults_of(info: BlockInfo, told: Mapping[str, Any]) -> Iterator[None]:
    """Say of an error in a user's block which block it is, and what it was told."""
    try:
        yield
    except Exception as error:
        if info.digest is None or isinstance(error, BlocklabError):
            raise
        line = with_place(error_line(error), place_in_files(error, _files_of(info)))
        raise InputError(
            f"{info.kind} '{info.name}' cannot be built with {told}: {line}"
        ) from error


def _files_of(info: BlockInfo) -> tuple[str, ...]:
    try:
        return (inspect.getfile(info.cls),)
    except (TypeError, OSError):  # of a class that no file defines
        return ()


def create_chain(specs: list[BlockSpec], channels: int) -> nn.Module:
    """Build a chain of attentions, applied in order; a chain of one is that attention itself."""
    blocks = [create_block("attention", spec, channels=channels) for spec in specs]
    if not blocks:
        return nn.Identity()
    return blocks[0] if len(blocks) == 1 else nn.Sequential(*blocks)


def mixer_width(spec: BlockSpec, planes: int) -> int:
    """How wide a mixer wants the inside of a block of `planes` channels (default: as it is).

    Raises:
        InputError: if it says no number of channels.
    """
    info = block_info("mixer", spec["type"])
    with _faults_of(info, {"planes": planes}):
        options = {key: value for key, value in spec.items() if key != "type"}
        return inner_width(info.cls, planes, options)
