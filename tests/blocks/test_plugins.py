"""A user's own blocks: loading a file, refusing one in one line, and what identifies its blocks."""

import multiprocessing
import pickle
import sys
from pathlib import Path

import pytest
import torch

from blocklab.blocks import plugins
from blocklab.blocks.plugins import load_plugin, plugin_errors
from blocklab.blocks.registry import create_block, parse_block, registered_blocks
from blocklab.cli.app import run
from blocklab.errors import InputError
from blocklab.models.spec import ModelSpec, model_spec

PLUGIN = """\
from torch import nn

from blocklab import register_block


@register_block("halve")
class Halve(nn.Module):
    def __init__(self, channels: int, *, factor: float = 0.5) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor
"""


MIXER = """\
from torch import nn

from blocklab import register_block


@register_block("halve", kind="mixer")
class Halve(nn.Conv2d):
    width_options = {}

    def __init__(self, in_channels: int, out_channels: int, *, factor: float = 0.5) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)
"""


pytestmark = pytest.mark.usefixtures("registry_as_it_was")


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "my_block.py"
    path.write_text(PLUGIN)
    return path


def test_a_file_registers_its_blocks(plugin: Path) -> None:
    (info,) = load_plugin(plugin)
    assert (info.kind, info.name) == ("attention", "halve")
    x = torch.randn(2, 4, 3, 5)
    assert torch.equal(create_block("attention", "halve", channels=4)(x), x * 0.5)
    block = create_block("attention", {"type": "halve", "factor": 3}, channels=4)
    assert torch.equal(block(x), x * 3)
    assert pickle.loads(pickle.dumps(block)).factor == 3  # its class can be found again


def test_an_unchanged_file_is_run_once(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_plugin(plugin)
    monkeypatch.chdir(plugin.parent)
    assert load_plugin("my_block.py")[0] is first[0]  # by another way to the same file
    assert plugins.loaded_plugins() == (str(plugin),)


def test_a_changed_file_takes_the_place_of_the_old(plugin: Path) -> None:
    before = load_plugin(plugin)
    spec = parse_block("attention", "halve")
    plugin.write_text(PLUGIN.replace('"halve"', '"third"').replace("0.5", "1 / 3"))
    after = load_plugin(plugin)
    assert [info.name for info in after] == ["third"]
    names = {info.name for info in registered_blocks()}
    assert "third" in names and "halve" not in names
    assert before[0].digest != after[0].digest
    with pytest.raises(InputError, match=r"no attention 'halve'.*--plugin"):
        create_block("attention", spec, channels=4)


def test_a_specification_names_the_content_of_the_file(plugin: Path) -> None:
    load_plugin(plugin)
    spec = parse_block("attention", "halve")
    name, _, digest = spec["type"].partition("@")
    assert name == "halve" and len(digest) == 12
    assert parse_block("attention", spec) == spec
    plugin.write_text(PLUGIN + "# a remark\n")
    load_plugin(plugin)
    assert parse_block("attention", "halve") != spec
    with pytest.raises(InputError, match=f"'halve' is not the one that was meant \\(@{digest}\\)"):
        create_block("attention", spec, channels=4)


def test_a_models_definition_names_it_too(plugin: Path) -> None:
    load_plugin(plugin)
    one = model_spec("resnet20", attention="halve").to_dict()
    plugin.write_text(PLUGIN.replace("* self.factor", "* self.factor + 0"))
    load_plugin(plugin)
    two = model_spec("resnet20", attention="halve").to_dict()
    assert one != two
    assert ModelSpec.from_dict(two).to_dict() == two
    with pytest.raises(InputError, match="its file has changed"):
        ModelSpec.from_dict(one)


def test_the_packages_own_blocks_carry_no_digest() -> None:
    assert parse_block("attention", "se") == {"type": "se", "reduction": 16}
    assert all(info.digest is None for info in registered_blocks())


def test_two_files_of_one_name_are_two_modules(plugin: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "my_block.py"
    other.parent.mkdir()
    other.write_text(PLUGIN.replace('"halve"', '"other"').replace("Halve", "Other"))
    classes = [load_plugin(path)[0].cls for path in (plugin, other)]
    assert classes[0].__module__ != classes[1].__module__
    assert all(cls.__module__ in sys.modules for cls in classes)


def test_annotations_may_be_postponed(plugin: Path) -> None:
    text = PLUGIN.replace("factor: float", "factor: PositiveFloat")
    head = "from __future__ import annotations\nfrom pydantic import PositiveFloat\n"
    plugin.write_text(head + text)
    load_plugin(plugin)
    with pytest.raises(InputError, match="factor"):
        parse_block("attention", {"type": "halve", "factor": -1})


def _spec_of(path: str, connection: object) -> None:
    load_plugin(path)
    connection.send(parse_block("attention", "halve"))  # type: ignore[attr-defined]


def test_another_process_gives_it_the_same_name(plugin: Path) -> None:
    load_plugin(plugin)
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    process = multiprocessing.get_context("fork").Process(
        target=_spec_of, args=(str(plugin), theirs)
    )
    process.start()
    assert ours.recv() == parse_block("attention", "halve")
    process.join()


def test_what_a_shell_is_given_is_quoted(tmp_path: Path) -> None:
    path = tmp_path / "my blocks" / "mine.py"
    path.parent.mkdir()
    path.write_text("1 / 0\n")
    with pytest.raises(InputError, match=f"`python '{path}'` shows more"):
        load_plugin(path)
    path.write_text(PLUGIN)
    load_plugin(path)
    with pytest.raises(InputError, match=f"`blocklab check '{path}'` tells"), plugin_errors():
        raise ValueError("a fault")


HEAD = "import torch\nfrom torch import nn\nfrom blocklab import register_block\n"


def test_options_of_the_width_may_be_those_of_a_class_that_has_more(tmp_path: Path) -> None:
    inherits = MIXER.replace("(nn.Conv2d)", "(GroupedConv3x3)").replace(
        "    width_options = {}\n", ""
    )
    head = "from blocklab.blocks.grouped_convolution import GroupedConv3x3\n"
    (tmp_path / "mine.py").write_text(
        head + inherits.partition("        super()")[0] + "        pass\n"
    )
    (block,) = load_plugin(tmp_path / "mine.py")
    assert block.cls.width_options == ("group_width",) and block.width_options == ()
    (tmp_path / "own.py").write_text(MIXER.format("('factor',)").replace("halve", "own"))
    (block,) = load_plugin(tmp_path / "own.py")
    assert block.width_options == ("factor",)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("x = (1,\n", 1, "was never closed"),
        ("import torch\n\ndef f(:\n    pass\n", 3, "invalid syntax"),
        ("import torch\nimport no_such_package\n", 2, "ModuleNotFoundError: .*no_such_package"),
        ("import torch\n1 / 0\n", 2, "ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit()\n", 2, "SystemExit"),
        ("raise ValueError('one\\ntwo')\n", 1, "ValueError: one two"),
        ("import torch\n", None, "registers no block"),
        ("", None, "registers no block"),
        ("x = '\0'\n", None, "null bytes"),
        (PLUGIN.replace("halve", "se"), 6, "'se' is already blocklab.blocks"),
        (PLUGIN.replace("halve", "a@b"), 6, "name it by a word of letters"),
        *(
            (PLUGIN.replace("halve", name), 6, f"cannot be called '{name}', which a study's file")
            for name in ("none", "yes", "1e3", "a b", "a,b", "null", "-a", "a=b", "")
        ),
        (PLUGIN.replace('("halve")', ""), 6, r"takes a name; write @register_block\('my_block'\)"),
        *(
            (PLUGIN.replace("factor", name), 6, f"cannot have an option '{name}'")
            for name in ("type", "stages", "copy", "model_fields")
        ),
        (PLUGIN.replace("float = 0.5", "set[int] = {1}"), 6, "is a set, which has no order"),
        (PLUGIN.replace("= 0.5", "= float('inf')"), 6, "factor: Input should be a finite number"),
        (PLUGIN.replace('"halve"', '"halve", kind="attention_"'), 6, "did you mean 'attention'"),
        (PLUGIN.replace("channels: int", "planes: int"), 6, "'planes', which no attention slot"),
        (PLUGIN.replace("factor: float =", "factor="), 6, "'factor' of block 'halve' needs a type"),
        (PLUGIN.replace(", *, factor: float = 0.5", ", **options"), 6, r"\*args or \*\*kwargs"),
        (PLUGIN.replace("float = 0.5", "float = 'x'"), 6, "defaults of block 'halve': factor"),
        (PLUGIN.replace("float = 0.5", "type = nn.ReLU"), 6, "numbers, words or lists"),
        (PLUGIN.replace("float = 0.5", "Missing = 1"), 8, "NameError"),
        (MIXER.format("('factr',)"), 6, "'factr', which is no option of it; did you mean 'factor'"),
        (
            MIXER.format("'factor'"),
            6,
            r"width_options of Halve is 'factor'; write a tuple",
        ),
        (MIXER.format("None"), 6, "width_options of Halve is None; write a tuple of names"),
        (PLUGIN + PLUGIN.replace("Halve", "Other"), 19, "'halve' is already"),
    ],
)
def test_a_faulty_file_is_one_line_with_its_place(
    tmp_path: Path, text: str, line: int | None, said: str
) -> None:
    path = tmp_path / "faulty.py"
    path.write_text(text)
    before = list(registered_blocks())
    with pytest.raises(InputError, match=said) as caught:
        load_plugin(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    assert (f", line {line}:" in message) == (line is not None)
    assert list(registered_blocks()) == before  # nothing of it stays
    assert plugins.loaded_plugins() == ()


@pytest.mark.parametrize("name", ["absent.py", "folder.py", "notes.txt", "no_suffix"])
def test_what_is_no_python_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "notes.txt").write_text(PLUGIN)
    with pytest.raises(InputError, match=name) as caught:
        load_plugin(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_fault_in_a_users_code_is_theirs_in_any_command(
    plugin: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = load_plugin(plugin)
    made = block.cls(3)
    monkeypatch.setattr("blocklab.study.named_rows.shipped_studies", lambda: made.forward(None))
    assert run(["studies"]) == 1
    said = capsys.readouterr().err
    line = PLUGIN.splitlines().index("        return x * self.factor") + 1
    assert "TypeError" in said and f"({plugin.name}, line {line})" in said
    assert "fault of blocklab's" not in said and said.count("\n") == 1


def test_a_change_that_fails_leaves_what_was_there(plugin: Path) -> None:
    (info,) = load_plugin(plugin)
    plugin.write_text("1 / 0\n")
    with pytest.raises(InputError, match="line 1: ZeroDivisionError"):
        load_plugin(plugin)
    assert info in list(registered_blocks())
    block = create_block("attention", "halve", channels=4)
    assert pickle.loads(pickle.dumps(block)).factor == 0.5
