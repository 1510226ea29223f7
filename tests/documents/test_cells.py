"""Every cell of every document: what it names is there, and what can be run here is run.

A command goes through the real command line, up to where it would train, time or plan what takes
minutes (`HEAVY`); the rest of it is run. A Python cell is run as it stands, its studies being one
that has run already. A YAML cell is read by what reads such a file. A cell with
``<!-- not run: why -->`` before it is for another machine or takes other programs' files: its
commands are only parsed.
"""

import importlib
import inspect
import re
import runpy
import shlex
import shutil
import tomllib
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
import timm
import typer
from torch import nn

import blocklab
from blocklab.blocks import plugins, registry
from blocklab.cli.app import COMMANDS, app, run
from blocklab.models import export
from blocklab.results.study_folder import read_study_folder
from blocklab.study.collection import StudyCollection
from blocklab.study.rows import recipe_fields
from blocklab.study.schema import StudyFile
from blocklab.study.study import Study
from blocklab.tracking.tracker import MODULES
from blocklab.training.recipe import Recipe
from blocklab.yaml_files import parse_yaml

ROOT = Path(__file__).parents[2]
MADE = {"catalogue.md"}  # by the site's build, which lies beside the documents then
DOCUMENTS = [
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md")))
    if path.name not in MADE
]
CELL = re.compile(
    r"^(?:<!-- not run: (?P<why>.+?) -->\n)?```(?P<language>[^\n]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
INLINE = re.compile(r"`blocklab ([^`]+)`")
LANGUAGES = {"sh", "console", "python", "yaml", "text"}
# Programs that cells may call without `not run`: what they take is looked at here.
LOOKED_AT = {"blocklab", "python", "pip", "make", "pytest"}
OF_A_SHELL = {"git", "cd", "."}
# Where a command has read all that was typed, and begins what takes seconds or more.
HEAVY = {
    "train": "blocklab.training.distributed.launch",
    "study": "blocklab.running.run_collection",
    "--dry-run": "blocklab.execution.dry_run.plan_lines",
    "check": "blocklab.contract.report_card.check_block",
    "bench": "blocklab.measure.speed.bench",
    "models --cost": "blocklab.measure.cost.cost",
    "models --blocks": "blocklab.measure.block_list.block_lines",
    "describe": "blocklab.measure.description.describe",
    "figure receptive_field": "blocklab.report.run_pictures.receptive_field",
}
VARIED = ["model", "recipe", "data", "pretrained"]


@dataclass(frozen=True)
class Cell:
    """A fenced block: its language, its text, and why it is not run, if it is not."""

    language: str
    text: str
    why: str | None

    def commands(self) -> Iterator[list[str]]:
        """The words of each command; a console's have a ``$`` before them."""
        if self.language not in ("sh", "console"):
            return
        for line in self.text.replace("\\\n", " ").splitlines():
            if self.language == "console" and not line.startswith("$ "):
                continue
            for part in line.removeprefix("$ ").split(" && "):
                words = shlex.split(part, comments=True)
                while words and re.match(r"\w+=", words[0]):  # of its environment
                    words = words[1:]
                if words:
                    yield words


def cells(document: str) -> list[Cell]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return [Cell(one["language"], one["text"], one["why"]) for one in CELL.finditer(text)]


class Reached(BaseException):
    """A command has read what was typed and would now begin its work."""


@pytest.fixture
def here(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry_as_it_was: None
) -> Path:
    """A copy of the world, as the working and the home directory."""
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BLOCKLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BLOCKLAB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("BLOCKLAB_OFFLINE", "1")
    monkeypatch.setattr("blocklab.tracking.tracker.find_spec", lambda name: name)
    return tmp_path


def stop_before(monkeypatch: pytest.MonkeyPatch, *heavy: str) -> None:
    def reached(*_: Any, **__: Any) -> NoReturn:
        raise Reached

    for name in heavy:
        importlib.import_module(name.rpartition(".")[0])
        monkeypatch.setattr(name, reached)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_cells_are_marked(document: str) -> None:
    """Each says what it is written in, none is missed, and what runs is of programs known here."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = cells(document)
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(found)
    for cell in found:
        if cell.language.startswith("{literalinclude}"):
            file = cell.language.partition(" ")[2]
            assert (ROOT / document).parent.joinpath(file).is_file(), file
        elif not cell.language.startswith("{"):
            assert cell.language in LANGUAGES, cell.text
        if cell.why is None:
            programs = {words[0] for words in cell.commands()}
            assert programs <= LOOKED_AT | OF_A_SHELL, f"say `not run: why`: {cell.text}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_options_named_in_a_sentence_are_there(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for said in INLINE.findall(text):
        given = said.replace("\\|", "|").split()
        verb = given[0].rstrip("…")
        if verb and not verb.startswith("-") and verb != "COMMAND":
            takes = options_of(verb)
            named = {word for word in re.findall(r"(?<![\w-])--[\w-]+", said)}
            assert named <= takes | {"--help"}, f"blocklab {said}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_yaml_is_read(document: str, here: Path) -> None:
    found = [cell for cell in cells(document) if cell.language == "yaml"]
    if found:
        assert run(["new", "block", "my_gate"]) == 0
        for file in (*Path("examples").glob("my_*.py"), Path("my_gate.py")):
            blocklab.load_plugin(file)
    for cell in found:
        read_yaml(cell.text, here)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_are_taken(
    document: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stop_before(monkeypatch, *HEAVY.values())
    write_files(document)
    for cell in cells(document):
        for words in cell.commands():
            follow(words, cell.why is None, capsys)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("exports", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "document", [name for name in DOCUMENTS if any(c.language == "python" for c in cells(name))]
)
def test_python_cells_run(
    document: str, exports: bool, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exports:  # what takes ten seconds
        monkeypatch.setattr(export, "export_model", but_for_onnx(export.export_model))
    results = read_study_folder(here / "runs/my_study")
    for name, given in (("run_study", results), ("run_collection", (results,))):
        monkeypatch.setattr(blocklab, name, has_run(getattr(blocklab, name), given), raising=False)
    for module in (blocklab, timm):
        monkeypatch.setattr(module, "create_model", narrowed(module.create_model))
    names: dict[str, Any] = {"blocklab": blocklab, "timm": timm}
    for number, cell in enumerate(cell for cell in cells(document) if cell.language == "python"):
        if cell.why is None:
            text = BEFORE.get((document, number), "") + cell.text
            for ours, theirs in INSTEAD.get(document, {}).items():
                text = text.replace(ours, theirs)
            exec(compile(text, f"{document}, cell {number}", "exec"), names)
        else:
            compile(cell.text, document, "exec")


# Files that a document's cells read, made before the cell.
BEFORE = {
    ("README.md", 0): (
        "import torch\n"
        "torch.save(blocklab.create_model('res2net50_26w_4s').state_dict(), "
        "'res2net50_26w_4s.pth')\n"
    ),
    ("docs/weights.md", 0): (
        "import torch\n"
        "for name, file, classes in (('res2net50_v1b_26w_4s', 'res2net50_v1b_26w_4s', 1000),"
        " ('resnet50', 'resnet50', 100), ('resnet50_se', 'seresnet50', 1000)):\n"
        "    saved = blocklab.create_model(name, num_classes=classes)\n"
        "    torch.save(saved.state_dict(), f'{file}.pth')\n"
    ),
    ("docs/weights.md", 2): (
        "from blocklab.models.export import export_model\n"
        "model = blocklab.create_model('resnet18', depths=[1, 1, 1, 1])\n"
        "export_model(model, 'model.safetensors', 'safetensors', input_size=32)\n"
    ),
}
INSTEAD = {
    "docs/weights.md": {
        "https://example.org/resnet50-0123abcd.pth": "resnet50.pth",
        "runs/1f2e3d4c": "resnet50.pth",
    }
}


def narrowed(create: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Make the networks that cells name with few channels, which takes milliseconds."""

    def made(model: Any, **options: Any) -> nn.Module:
        given = options.get("spec") or {}  # of timm's registry, whose options lie in it
        (given or options).setdefault("widths", [8, 8, 16, 16])
        return create(model, **options)

    return made


def but_for_onnx(write: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(write)

    def written(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        return None if "onnx" in given.values() else write(*args, **kwargs)

    return written


def has_run(function: Callable[..., Any], given: object) -> Any:
    """Take what the function takes, and return what it would."""
    signature = inspect.signature(function)

    def ran(*args: Any, **kwargs: Any) -> Any:
        signature.bind(*args, **kwargs)
        return given

    return ran


def follow(words: list[str], runs: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Do what a command says, as far as it can be done here."""
    program, *given = words
    if program == "blocklab" and runs:
        given = [stood_in(word) for word in given]
        given += ["--yes"] if "--delete" in given and "--yes" not in given else []
        forget_plugins()
        try:
            status = run(given)
        except Reached:
            status = 0
        said = capsys.readouterr()
        assert status == 0, f"{shlex.join(words)}\n{said.err}\n{said.out}"
    elif program == "python":
        reads_its_options(given)
    elif program == "pip":
        extras = re.findall(r"blocklab\[(.+)\]", " ".join(given))
        about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        assert extras and set(extras) <= set(about["project"]["optional-dependencies"])
    elif program == "make":
        assert f"\n{given[0]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
    elif program == "pytest":
        files = [word for word in given if word.endswith(".py")]
        assert all((ROOT / file).is_file() or Path(file).is_file() for file in files), words
    else:  # a launcher, and what it launches
        parts = [shlex.split(word) if word.startswith("blocklab ") else [word] for word in words]
        inner = [word for part in parts for word in part]
        if "blocklab" in inner[:-1]:
            is_taken(inner[inner.index("blocklab") + 1 :])


def stood_in(word: str) -> str:
    """What lies here under a name that stands for anybody's own."""
    hashes = sorted(path.parent.name for path in Path("runs").glob("*/result.json"))
    if word.startswith("hf:"):  # the hub's
        return "resnet18.safetensors"
    return {"STUDY": "my_study.yaml", "runs/HASH": f"runs/{hashes[0]}"}.get(word, word)


def forget_plugins() -> None:
    """Begin as another process would: with what comes with blocklab."""
    for key, info in list(registry._REGISTRY.items()):
        if info.digest is not None:
            del registry._REGISTRY[key]
    plugins._LOADED.clear()


def commands_of(verb: str) -> Any:
    for module in dict.fromkeys(COMMANDS.values()):
        importlib.import_module(f"blocklab.cli.{module}")
    return typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]


def options_of(verb: str) -> set[str]:
    command = commands_of(verb)
    parts = [command, *getattr(command, "commands", {}).values()]
    return {name for part in parts for parameter in part.params for name in parameter.opts}


def is_taken(given: list[str]) -> None:
    """Parse a command that cannot be run here: its name and its options are there."""
    command = commands_of(given[0])
    command.make_context(given[0], list(given[1:]))


def reads_its_options(given: list[str]) -> None:
    """Begin a script of the repository, until it has read its options."""

    def parsed(self: ArgumentParser, *_: Any, **__: Any) -> Namespace:
        parse(self, given[1:])
        raise Reached

    parse = ArgumentParser.parse_args
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Reached):
        patch.setattr(ArgumentParser, "parse_args", parsed)
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        runpy.run_path(str(ROOT / given[0]), run_name="__main__")


def write_files(document: str) -> None:
    """Write the document's first study, and its table, under the names that its commands use."""
    found = cells(document)
    named = [word for cell in found for words in cell.commands() for word in words]
    for cell in found:
        if cell.language == "yaml" and {"title", "rows"} <= set(parse_yaml(cell.text, document)):
            own = re.findall(r"^# (\w+\.yaml)", cell.text)
            files = [*own, *(word for word in named if re.fullmatch(r"\w+\.yaml", word))]
            Path(files[0] if files else "my_study.yaml").write_text(cell.text)
            break
    for cell in found:
        if cell.language == "text" and cell.text.startswith("model,seed"):
            Path("results.csv").write_text(cell.text)


def read_yaml(text: str, here: Path) -> None:
    """Read a study, a part of one, a recipe, or rows, by what reads them in a study's file."""
    value = parse_yaml(text, "a cell")
    assert isinstance(value, dict)
    fields = set(value)
    if "datasets" in fields or "studies" in fields:
        path = here / "collection.yaml"
        path.write_text(text)
        if (here / "my_study.yaml").is_file():
            StudyCollection.load(path)
        return
    if fields <= set(Recipe.model_fields) | {"base"}:
        Recipe.parse(recipe_fields({"base": "quick", **value})[1])
        return
    if not fields & set(StudyFile.model_fields):  # rows by name; of a catalogue with their counts
        rows = {name: without_counts(row) for name, row in value.items()}
        value = {"rows": rows}
    whole = {"title": "A part", "data": "digits", "recipe": "quick", "varies": VARIED, **value}
    if "errata: [13]" in text:
        whole["errata"] = {"13": "what it says"}
    if "in zeros" in text:  # the cell says that diagnose counts them
        whole.setdefault("diagnose", {})
    if "rows" not in whole and "ablate" not in whole:
        whole["rows"] = rows_for(value.get("claims", []))
    assert Study.parse(whole, "a cell").rows


def without_counts(row: Any) -> Any:
    return {k: v for k, v in row.items() if k != "params"} if isinstance(row, dict) else row


def rows_for(claims: list[Any]) -> dict[str, Any]:
    """Rows of the names that claims use, as unlike one another as rows may be."""
    said = [one if isinstance(one, str) else one["claim"] for one in claims]
    words = {"in", "top1", "top5", "by", "within", "best", "worst", "of", "all", "gain", "macs"}
    words |= {"zeros", "on", "average", "at", "least"}
    names = dict.fromkeys(
        (quoted or word)
        for claim in said
        for quoted, word in re.findall(r'"([^"]+)"|([A-Za-z_][\w]*)', claim)
        if quoted or word not in words
    )
    rows = {
        name: {"model": "resnet20", "recipe": {"lr": 0.01 * (n + 2)}}
        for n, name in enumerate(names)
    }
    return {"first": "resnet20", **rows}


def test_every_command_is_told_of() -> None:
    told = (ROOT / "docs/command_line.md").read_text(encoding="utf-8")
    assert [verb for verb in COMMANDS if f"`blocklab {verb}" not in told] == []


def test_trackers_named_are_extras() -> None:
    about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(MODULES) <= set(about["project"]["optional-dependencies"])
