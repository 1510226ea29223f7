"""``blocklab models`` and ``blocklab describe``."""

from fnmatch import fnmatch
from typing import Annotated

import typer

from blocklab.cli.app import app
from blocklab.cli.options import Json, Plugins, complete_models, load_plugins, parse_size
from blocklab.cli.output import print_json, print_table
from blocklab.errors import InputError, did_you_mean
from blocklab.models.names import list_models

NativeSize = Annotated[
    str | None,
    typer.Option(
        "--input-size",
        metavar="SIZE",
        help="Pixels a side, or height and width: 64x96 (default: what the stem is made for, 32 or "
        "224).",
    ),
]


@app.command()
def models(
    pattern: Annotated[
        str, typer.Argument(metavar="[FILTER]", help="A shell pattern, such as 'res2net*'.")
    ] = "*",
    with_blocks: Annotated[
        bool, typer.Option("--blocks", help="List the blocks that fill slots, and their options.")
    ] = False,
    with_cost: Annotated[bool, typer.Option("--cost", help="Count MACs and parameters.")] = False,
    input_size: NativeSize = None,
    num_classes: Annotated[int, typer.Option(help="Outputs of the head.")] = 1000,
    plugin: Plugins = [],  # noqa: B006 - read only
    json: Json = False,
) -> None:
    """List the named models, then those of plugins; or the blocks that fill their slots."""
    if input_size is not None and (with_blocks or not with_cost):
        raise InputError("--input-size is what models are counted at; it goes with --cost")
    load_plugins(plugin)
    own: list[str] = []
    if plugin:
        from blocklab.backbones.registry import own_names

        own = list(own_names())
    if with_blocks:
        _list_blocks(pattern, json)
        return
    names = [*list_models(pattern), *(name for name in own if fnmatch(name, pattern))]
    if not names:
        close = did_you_mean(pattern.strip("*?"), [*list_models(), *own])
        raise InputError(f"no model matches '{pattern}'{close or ';'} `blocklab models` lists all")
    if not with_cost:
        if json:
            print_json([{"model": name} for name in names])
        else:
            print("\n".join(names))
        return
    from blocklab.measure.amounts import counted
    from blocklab.measure.cost import cost
    from blocklab.models.probe import plain_size
    from blocklab.models.spec import model_spec
    from blocklab.report.cell_text import sides

    asked = None if input_size is None else plain_size(parse_size(input_size))
    sizes = {
        name: model_spec(name).config.native_size if asked is None else asked for name in names
    }
    costs = {name: cost(name, sizes[name], num_classes) for name in names}
    if json:
        print_json(
            [
                {"model": name, "macs": c.macs, "params": c.params, "input_size": sizes[name]}
                for name, c in costs.items()
            ]
        )
        return
    print_table(
        ("model", "input", "MACs (G)", "params (M)"),
        [
            (name, sides(sizes[name]), counted(c.macs / 1e9), counted(c.params / 1e6))
            for name, c in costs.items()
        ],
    )


def _list_blocks(pattern: str, json: bool) -> None:
    from blocklab.measure.amounts import counted
    from blocklab.measure.block_list import CHANNELS, SIDE, block_lines, in_yaml
    from blocklab.report.cell_text import ABSENT

    lines = [line for line in block_lines() if fnmatch(line.name, pattern)]
    if not lines:
        close = did_you_mean(pattern.strip("*?"), [line.name for line in block_lines()])
        raise InputError(
            f"no block matches '{pattern}'{close or ';'} `blocklab models --blocks` lists all"
        )
    if json:
        print_json([line.to_dict() for line in lines])
        return
    print_table(
        ("block", "kind", "year", "arXiv", "MACs (M)", "params (k)", "options"),
        [
            (
                line.name,
                line.kind,
                str(line.year or ABSENT),
                line.arxiv or ABSENT,
                ABSENT if line.macs is None else counted(line.macs / 1e6),
                ABSENT if line.params is None else counted(line.params / 1e3),
                ", ".join(f"{name}={in_yaml(value)}" for name, value in line.options.items()),
            )
            for line in lines
        ],
        f"Blocks; costs with {CHANNELS} channels on a map of {SIDE}x{SIDE}, stride 1",
    )


@app.command()
def describe(
    model: Annotated[
        str, typer.Argument(help="A named model, or timm:NAME.", autocompletion=complete_models)
    ],
    input_size: NativeSize = None,
    num_classes: Annotated[int, typer.Option(help="Outputs of the head.")] = 1000,
    plugin: Plugins = [],  # noqa: B006 - read only
    json: Json = False,
) -> None:
    """Show a model's stages, shapes and costs, and which taps of large kernels can be used."""
    from blocklab.measure.amounts import counted
    from blocklab.measure.description import describe as describe_model
    from blocklab.measure.receptive_field import live_taps
    from blocklab.models.spec import model_spec
    from blocklab.report.cell_text import sides

    load_plugins(plugin)
    spec = model_spec(model)
    size = spec.config.native_size if input_size is None else parse_size(input_size)
    network = spec.build_meta(num_classes, input_size=size)
    described, taps = describe_model(network, size), live_taps(network, size)
    if json:
        print_json(
            {
                "model": model,
                "specification": spec.to_dict(),
                "input_size": described.input_size,
                "num_classes": num_classes,
                "macs": described.macs,
                "params": described.params,
                "parts": [part.to_dict() for part in described.parts],
                "large_kernels": [row.to_dict() for row in taps],
            }
        )
        return
    print_table(
        ("part", "output (C, H, W)", "MACs (G)", "params (M)"),
        [
            *(
                (
                    part.name,
                    ", ".join(map(str, part.shape)),
                    counted(part.macs / 1e9),
                    counted(part.params / 1e6),
                )
                for part in described.parts
            ),
            ("total", "", counted(described.macs / 1e9), counted(described.params / 1e6)),
        ],
        f"{model} at {sides(size)}, {num_classes} classes",
    )
    if taps:
        print_table(
            ("large kernel", "map", "taps that can meet it", "of"),
            [row.cells() for row in taps],
            "Taps of large kernels that can ever meet a pixel",
        )
