"""Files to start from: a block, a backbone or a study that runs as it is, with its test."""

import importlib.util
import keyword
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from shlex import quote
from string import Template

from blocklab.backbones.registry import BACKBONES, FAMILIES
from blocklab.blocks.registry import BlockInfo, is_word, registered_blocks
from blocklab.errors import InputError, check_choice
from blocklab.files import write_atomically
from blocklab.models.names import list_models
from blocklab.study.schema import study_names

KINDS = ("block", "backbone", "study")
# What a row of each kind of block is, and what it stands beside.
_ROWS = {
    "attention": ("resnet20", "{base: resnet20, attention: NAME}"),
    "mixer": ("resnet20", "{base: resnet20, mixer: NAME}"),
    "token_mixer": ("van_b0", "{base: van_b0, stem: cifar, mixer: NAME}"),
    "ffn_mixer": ("van_b0", "{base: van_b0, stem: cifar, ffn_mixer: NAME}"),
    "backbone": ("resnet20", "NAME"),
}
_PLAIN = {"resnet20": "resnet20", "van_b0": "{base: van_b0, stem: cifar}"}


def write_start(
    kind: str, name: str, folder: Path, plugins: Sequence[tuple[Path, Sequence[BlockInfo]]] = ()
) -> list[Path]:
    """Write a block, a backbone (each with its test) or a study; return the files.

    `plugins` are files and what they register, which a study gets rows of.

    Raises:
        InputError: for an unknown kind, a name that is no identifier or is taken, or a file that is
            there already; then nothing is written.
        RunError: if a file cannot be written.
    """
    check_choice("what is new", kind, KINDS)
    _check_name(kind, name)
    if kind != "study" and plugins:
        raise InputError("--plugin gives a study its rows; a block or a backbone takes none")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder, in which the new files are written")
    endings = {"study": [f"{name}.yaml"]}.get(kind, [f"{name}.py", f"test_{name}.py"])
    files = [folder / ending for ending in endings]
    for file in files:
        if file.exists() or file.is_symlink():
            raise InputError(f"{file} is there already; choose another name, or move it away")
    if kind != "study":
        _check_module(name)
    words = {"name": name, "cls": _class_name(name), **_study_words(plugins)}
    for file, template in zip(files, _templates(kind), strict=True):
        write_atomically(file, Template(template).substitute(words))
    return files


def next_commands(kind: str, files: Sequence[Path], plugins: Sequence[Path] = ()) -> list[str]:
    """Return what one types next, as a shell takes it."""
    first = files[0]
    if kind == "study":
        command = f"blocklab study {quote(str(first))}{_given(plugins)}"
        return [f"{command} --dry-run", command]
    study = f"blocklab new study {first.stem}_study{_given([first])}"
    return [f"blocklab check {quote(str(first))}", f"pytest {quote(str(files[1]))}", study]


def _given(plugins: Sequence[Path]) -> str:
    return "".join(f" --plugin {quote(str(path))}" for path in plugins)


def _check_name(kind: str, name: str) -> None:
    word = name.isidentifier() and not keyword.iskeyword(name) and is_word(name)
    if not word or not name.strip("_"):
        raise InputError(
            f"'{name}' is no name for a {kind}: take letters, digits and _, such as my_{kind}"
        )
    taken = study_names() if kind == "study" else [info.name for info in registered_blocks()]
    if kind == "backbone":
        taken += [*list_models(), *BACKBONES, *FAMILIES]
    if name in taken:
        raise InputError(f"'{name}' is a {kind} of blocklab's; choose another name")


def _check_module(name: str) -> None:
    """Refuse a file that would hide a package from whatever runs beside it."""
    if name in sys.stdlib_module_names or importlib.util.find_spec(name) is not None:
        raise InputError(
            f"'{name}' is a Python package's name, which {name}.py would hide; choose another name"
        )


def _class_name(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def _templates(kind: str) -> list[str]:
    names = ["study.yaml.txt"] if kind == "study" else [f"{kind}.py.txt", f"test_{kind}.py.txt"]
    folder = resources.files("blocklab") / "templates"
    return [(folder / name).read_text(encoding="utf-8") for name in names]


def _study_words(plugins: Sequence[tuple[Path, Sequence[BlockInfo]]]) -> dict[str, str]:
    """Return what a study's file says of the rows that plugins bring, or of two shipped ones."""
    rows: dict[str, str] = {}
    for _, blocks in plugins:
        for info in blocks:
            base, row = _ROWS[info.kind]
            rows.setdefault(base, _PLAIN[base])
            rows[info.name] = row.replace("NAME", info.name)
    rows = rows or {"resnet20": "resnet20", "se": "{base: resnet20, attention: se}"}
    return {
        "plugin": _given([path for path, _ in plugins]),
        "baseline": next(iter(rows)),
        "rows": "\n".join(f"  {name}: {row}" for name, row in rows.items()),
    }
