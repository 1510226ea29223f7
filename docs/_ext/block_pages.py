"""A page for each block, and one of them all, made from the blocks' code when the site is built."""

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from block_drawing import svg
from block_graph import boxes, in_words
from block_trace import trace
from measured import has_block, measured, records

from blocklab.blocks.registry import BlockInfo, BlockSpec, registered_blocks
from blocklab.errors import InputError
from blocklab.measure.amounts import counted
from blocklab.measure.block_list import (
    CHANNELS,
    SIDE,
    BlockLine,
    block_in_place,
    block_lines,
    in_yaml,
)
from blocklab.models.names import list_models
from blocklab.models.spec import model_spec
from blocklab.report.cell_text import ABSENT
from blocklab.yaml_files import parse_yaml

KINDS = {
    "attention": "is added to a network, and keeps its map's shape",
    "mixer": "takes the place of ResNet's 3x3 convolution",
    "token_mixer": "is VAN's spatial unit, or MetaFormer's mixer",
    "ffn_mixer": "takes the place of the depth-wise convolution in VAN's FFN",
}
# Where a block of a kind is put into a study's row.
ROWS = {
    "attention": "{{base: resnet20, attention: {block}}}",
    "mixer": "{{base: resnet20, mixer: {block}}}",
    "token_mixer": "{{base: van_b0, stem: cifar, mixer: {block}}}",
    "ffn_mixer": "{{base: van_b0, stem: cifar, ffn_mixer: {block}}}",
}
MOST_MODELS = 12
RECORDS = Path(__file__).parents[2] / "results"  # what `blocklab records` has kept of real studies
_TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "a name",
    "boolean": "true or false",
    "object": "a block",
    "null": "none",
}
_BOUNDS = {
    "minimum": "from {}",
    "exclusiveMinimum": "above {}",
    "maximum": "up to {}",
    "exclusiveMaximum": "below {}",
}


def block_pages(kept_in: Path = RECORDS) -> Iterator[tuple[str, str]]:
    """Every page's path below the documents and its Markdown.

    Args:
        kept_in: the folder of records of studies, whose results the pages show.
    """
    kept = records(kept_in)
    infos = {(info.kind, info.name): info for info in registered_blocks()}
    lines = list(block_lines())
    models = {name: model_spec(name).to_dict() for name in list_models()}
    for line in lines:
        users = [name for name, spec in models.items() if has_block(spec, line.kind, line.name)]
        said = measured(kept, line.kind, line.name, models)
        page = _page(line, infos[line.kind, line.name], users, said)
        yield f"blocks/{page_name(line)}.md", page
    yield "blocks/index.md", _index(lines)


def page_name(line: BlockLine) -> str:
    """Return the name of a block's page; two kinds may have a block of one name."""
    return f"{line.kind}-{line.name}"


def row_with(info: BlockInfo) -> str:
    """Return a study's row with the block: its own example, else its first option written out."""
    own = _own_example(info)
    option = next(iter(info.options().model_dump(mode="json").items()), None)
    if own:
        block = own
    elif option is None:
        block = info.name
    else:
        block = f"{{type: {info.name}, {option[0]}: {in_yaml(option[1])}}}"
    return ROWS[info.kind].format(block=block)


def drawing(info: BlockInfo) -> str:
    """Return the drawing of a block and the same in words, as HTML.

    The block has its default options; one that cannot be built with them has its own example's.
    Nothing where it cannot be recorded so.
    """
    example = _own_example(info)
    given: list[BlockSpec] = [{"type": info.versioned_name}]
    given += [parse_yaml(example, info.name)] if example else []
    for spec in given:
        try:
            graph = boxes(trace(lambda channels, spec=spec: block_in_place(info, spec, channels)))
        except (InputError, RuntimeError):  # a block of a user's may ask a map for its values
            continue
        return (
            f'<div class="block-flow">{svg(graph, f"What {info.name} computes; in words below")}'
            "</div>\n<details><summary>In words</summary><ol>"
            f"{''.join(f'<li>{escape(line)}</li>' for line in in_words(graph))}</ol></details>"
        )
    return ""


def meanings(cls: type) -> dict[str, str]:
    """Return what the documentation of a block's class says of each option, under ``Args:``."""
    _, _, said = (inspect.getdoc(cls) or "").partition("\nArgs:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n     .*)*)", said, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def allowed(schema: Mapping[str, Any]) -> str:
    """Say in words what a part of a JSON schema lets through."""
    if "anyOf" in schema:
        return " or ".join(map(allowed, schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        items = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return f"a list of: {allowed(items)}"
    bounds = [
        words.format(f"{schema[key]:.3g}" if schema[key] < 1 else f"{schema[key]:g}")
        for key, words in _BOUNDS.items()
        if key in schema
    ]
    return " ".join([_TYPES.get(schema.get("type", ""), "a value"), *bounds])


def _page(line: BlockLine, info: BlockInfo, users: list[str], said: str) -> str:
    doc, _, _ = (inspect.getdoc(info.cls) or "").partition("\nArgs:\n")
    module = inspect.cleandoc(sys.modules[info.cls.__module__].__doc__ or "")
    row = row_with(info)
    parts = [
        f"# {line.name}",
        f"*A block of the kind `{line.kind}`: it {KINDS[line.kind]}.*",
        *map(_as_markdown, doc.strip().split("\n\n")),
        f"**Source:** {_linked(_as_markdown(module))}",
        f"## What it computes\n{_drawn(info)}",
        f"## In a study\n```yaml\nrows:\n  plain: {row.split(',')[0]}}}\n  mine: {row}\n```",
        "## Options",
        _options(info),
        f"## Cost\n{_cost(line)}",
        f"## Measured\n{said}",
        f"## Named models with it\n{_models(users)}",
        f"`{info.cls.__module__}.{info.cls.__name__}`",
    ]
    return "\n\n".join(parts) + "\n"


def _own_example(info: BlockInfo) -> str | None:
    found = re.search(rf"``(\{{type: {info.name}\b.*?\}})``", inspect.getdoc(info.cls) or "")
    return found[1] if found else None


def _drawn(info: BlockInfo) -> str:
    html = drawing(info)
    if not html:
        return "It cannot be recorded with its default options, without values."
    return (
        "Recorded from its code, in evaluation, with C channels of a map of H × W positions; below "
        f"each box is the shape of what comes out.\n\n```{{raw}} html\n{html}\n```"
    )


def _options(info: BlockInfo) -> str:
    schemas = info.options.model_json_schema().get("properties", {})
    if not schemas:
        return "It has none."
    defaults = info.options().model_dump(mode="json")
    said = meanings(info.cls)
    rows = [
        f"| `{name}` | `{in_yaml(defaults[name])}` | {allowed(schema)} | {said.get(name, '')} |"
        for name, schema in schemas.items()
    ]
    return "\n".join(["| option | default | takes | what it is |", "|---|---|---|---|", *rows])


def _cost(line: BlockLine) -> str:
    place = f"{CHANNELS} channels of a {SIDE}x{SIDE} map, at stride 1"
    if line.macs is None or line.params is None:
        return f"Cannot be counted with its default options alone ({place})."
    return (
        f"{counted(line.macs / 1e6)} M MACs and {counted(line.params / 1e3)} k parameters with its "
        f"default options, on {place}. What it costs in a network of yours: "
        "`blocklab study FILE --dry-run`."
    )


def _models(users: list[str]) -> str:
    if not users:
        return "None; a study or `create_model` puts it where you like."
    named = ", ".join(f"`{name}`" for name in users[:MOST_MODELS])
    more = len(users) - MOST_MODELS
    rest = f" and {more} more" if more > 0 else ""
    return f"{named}{rest}: see [the catalogue](../catalogue.md)."


def _index(lines: list[BlockLine]) -> str:
    parts = [
        "# Blocks",
        "What comes with blocklab, made from its code. Costs are with default options, on "
        f"{CHANNELS} channels of a {SIDE}x{SIDE} map at stride 1; a mixer's with the convolutions "
        "that it brings. `blocklab models --blocks` prints the same list, with your own blocks. "
        "timm's attentions have no page: see [models](../models.md).",
    ]
    for kind, what in KINDS.items():
        of_kind = [line for line in lines if line.kind == kind]
        rows = [
            f"| [`{line.name}`]({page_name(line)}.md) | {_as_markdown(line.title)} "
            f"| {line.year or ABSENT} | {_in(1e6, line.macs)} | {_in(1e3, line.params)} |"
            for line in of_kind
        ]
        head = [
            "| block | what it does | year | MACs (M) | params (k) |",
            "|---|---|---|---:|---:|",
        ]
        pages = "\n".join(page_name(line) for line in of_kind)
        tree = f"```{{toctree}}\n:hidden:\n\n{pages}\n```"
        parts += [f"## `{kind}`: {what}", "\n".join([*head, *rows]), tree]
    return "\n\n".join(parts) + "\n"


def _in(unit: float, count: int | None) -> str:
    return ABSENT if count is None else counted(count / unit)


def _as_markdown(text: str) -> str:
    """Keep code between backquotes as it is, and what Markdown would read as signs as text."""
    pieces = re.split(r"(``.*?``|`.*?`)", " ".join(text.split()))
    return "".join(
        piece if piece.startswith("`") else re.sub(r"([\\*_\[\]<>|$~^])", r"\\\1", piece)
        for piece in pieces
    )


def _linked(text: str) -> str:
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
