"""The page of all named models with their costs, made from the catalogue."""

from fnmatch import fnmatch
from importlib import resources

from blocklab.measure.amounts import counted
from blocklab.measure.block_list import in_yaml
from blocklab.measure.cost import cost
from blocklab.models.names import catalogue
from blocklab.models.spec import model_spec
from blocklab.yaml_files import parse_yaml


def catalogue_page(files: str = "*.yaml") -> str:
    """Return its Markdown: a table for each file of the catalogue, or for those of a pattern."""
    parts = [
        "# Catalogue",
        f"The {len(catalogue())} named models: what each is made of, and what it costs with 1000 "
        "classes on one image of the size that its stem is made for. `blocklab models --cost` "
        "prints the same, `blocklab describe NAME` takes one apart, and [models](models.md) says "
        "how to make others. Their blocks: [blocks](blocks/index.md). timm's models are not "
        "listed: `blocklab models 'timm:*'`.",
    ]
    for file in sorted(resources.files("blocklab.models").joinpath("catalogue").iterdir(), key=str):
        if not fnmatch(file.name, files):
            continue
        names = parse_yaml(file.read_text(encoding="utf-8"), file.name)
        rows = [_row(name) for name in names]
        head = [
            "| model | what it is | pixels | MACs (G) | params (M) |",
            "|---|---|---:|---:|---:|",
        ]
        parts += [f"## {file.name.removesuffix('.yaml')}", "\n".join([*head, *rows])]
    return "\n\n".join(parts) + "\n"


def _row(name: str) -> str:
    side = model_spec(name).config.native_size
    counts = cost(name, side)
    what = ", ".join(f"{key}: {in_yaml(value)}" for key, value in catalogue()[name].items())
    amounts = f"{counted(counts.macs / 1e9)} | {counted(counts.params / 1e6)}"
    return f"| `{name}` | `{{{what}}}` | {side} | {amounts} |"
