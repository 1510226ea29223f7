"""YAML as plain data, read as it looks, and the base of the schemas that check it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, get_args

import yaml
from pydantic import BaseModel, model_validator
from yaml.parser import ParserError
from yaml.scanner import ScannerError

from blocklab.errors import InputError, error_line

LARGEST_YAML = 1_000_000  # bytes: a study of a thousand rows has a tenth of it
DEEPEST_YAML = 20


class PlainModel(BaseModel):
    """What a YAML file may hold, by pydantic; a yes or a no is never taken for a number.

    Whole numbers are `largest` at most, and lists `longest`, so that no size is beyond counting.
    """

    largest: ClassVar[int] = 2**53  # up to which float64 holds every whole number
    longest: ClassVar[int] = 1_000_000

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_numbers(cls, given: Any) -> Any:
        for name, value in given.items() if isinstance(given, dict) else ():
            field = cls.model_fields.get(name)
            if field is None:
                continue
            if isinstance(value, list | tuple) and len(value) > cls.longest:
                raise ValueError(f"{name} is a list of {cls.longest:,} at most, not {len(value):,}")
            flat = list(_flat(value))
            if any(isinstance(one, int) and abs(one) > cls.largest for one in flat):
                raise ValueError(f"{name} is too large a number; it is {cls.largest:,} at most")
            if not any(isinstance(one, bool) for one in flat):
                continue
            kinds = set(_flat_types(field.annotation))
            if kinds & {int, float} and bool not in kinds:
                raise ValueError(f"{name} is a number, not {str(value).lower()}")
        return given


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _flat_types(annotation: Any) -> Iterator[Any]:
    yield annotation
    for argument in get_args(annotation):
        yield from _flat_types(argument)


# What YAML 1.1 reads otherwise than it looks: 0100 is 64 to it, 1:30 is 90.
_MISREAD = re.compile(r"[-+]?(0[0-9_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")


class _Loader(yaml.SafeLoader):
    """YAML as plain data: no tags, no key twice, no aliases that unfold, bounded depth."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not read; write it out")
        self.depth += 1
        if self.depth > DEEPEST_YAML:
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {DEEPEST_YAML}")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_scalar(self, node: Any) -> Any:
        if node.style is None and _MISREAD.fullmatch(node.value):
            raise yaml.MarkedYAMLError(
                problem=f"{node.value} may be read as another number; write the number without "
                "leading zeros or colons, or put it in quotes if it is text",
                problem_mark=node.start_mark,
            )
        return super().construct_scalar(node)

    def construct_yaml_int(self, node: Any) -> int:
        value = super().construct_yaml_int(node)
        if abs(value) > PlainModel.largest:
            raise yaml.MarkedYAMLError(
                problem=f"{node.value[:20]}… is too large; a whole number is "
                f"{PlainModel.largest:,} at most",
                problem_mark=node.start_mark,
            )
        return value

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                word = getattr(key, "value", "?")
                raise yaml.MarkedYAMLError(
                    problem=f"the key {word!r} is not text; put it in quotes",
                    problem_mark=key.start_mark,
                )
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key '{key.value}' is there twice; rename or remove one",
                    problem_mark=key.start_mark,
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def parse_yaml(text: str, what: str) -> Any:
    """Read YAML as plain data; `what` names it in errors.

    Raises:
        InputError: in one line, with the place, if it is not the YAML that blocklab reads.
    """
    if len(text) > LARGEST_YAML:
        raise InputError(f"{what} is longer than {LARGEST_YAML:,} characters; split it")
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{what}{place}: {_mended(error)}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{what} is not YAML: {error_line(error, kind=False)}") from None


def _mended(error: yaml.MarkedYAMLError) -> str:
    """Return what is wrong with some YAML, and what to do, which PyYAML does not say."""
    problem = str(error.problem)
    if r"'\t'" in problem:
        return "a tab stands where YAML takes none; put spaces in its place"
    if isinstance(error, ScannerError | ParserError):
        return f"{problem}; mend the indents, colons, brackets or quotes there"
    return problem


def read_yaml(path: Path) -> Any:
    """Read a YAML file as plain data.

    Raises:
        InputError: if it cannot be read, or is not the YAML that blocklab reads.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe that nobody writes to would keep us
            raise InputError(f"{path} is no file; name a YAML file")
        with path.open("rb") as file:
            content = file.read(LARGEST_YAML + 1)
        return parse_yaml(content.decode("utf-8"), str(path))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text in UTF-8; save it as that") from None
