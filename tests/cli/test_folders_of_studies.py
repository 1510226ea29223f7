"""Whose a study's folder is: other studies of its name do not take its page."""

import html
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from blocklab.errors import InputError
from blocklab.execution.study_folder import check_folders, study_folder, write_study_folder
from blocklab.files import parse_checked_json, write_checked_json
from blocklab.results.named_run import find_run, load_run
from blocklab.results.study_file import read_study_file
from blocklab.study.collection import StudyCollection
from blocklab.study.study import Study

Blocklab = Any


def asked(study: Study, out: Path) -> Study:
    """Write what a study asks, as before its first run."""
    costs: Any = {row.name: (_Cost(), 32) for row in study.rows}
    check_folders([study], out)
    write_study_folder(study, out, costs, None)
    return study


class _Cost:
    macs = params = 1


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "tiny"),
        ({"seeds": 2}, "tiny"),  # as the file has it
        ({"rows": ["se"]}, "tiny"),  # with the baseline these are all
        ({"rows": ["plain"]}, "tiny+rows=plain"),
        ({"seeds": 3, "settings": {"lr": 0.02}}, "tiny+seeds=3+lr=0.02"),
        ({"settings": {"lr": 0.02, "data.image_size": 16}}, "tiny+data.image_size=16+lr=0.02"),
        ({"seeds": [4, 9], "recipe": "strong"}, "tiny+seeds=4,9+recipe=strong"),
    ],
)
def test_a_command_that_changes_a_study_has_its_own_folder(
    study_file: Path, changes: dict[str, Any], name: str
) -> None:
    assert Study.load(study_file, **changes).folder_name == name


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("my study", "my_study"),
        ("\u5b9e\u9a8c\u4e00", "\u5b9e\u9a8c\u4e8c"),
        ("a?b", "a*b"),
        ("a?b", "a_b"),
        ("x" * 200, "x" * 201),
        ("caf\u00e9", "cafe"),
        ("\udcff", "\udcfe"),
        ("..a", "a"),
    ],
)
def test_names_stay_apart(tmp_path: Path, one: str, other: str) -> None:
    rows = ["resnet20"]
    content = {"title": "t", "data": "digits", "recipe": "quick", "varies": [], "rows": rows}
    names = [Study.parse(content, name).folder_name for name in (one, other)]
    assert names[0].casefold() != names[1].casefold()
    for name in names:
        (tmp_path / name).mkdir()
        assert (tmp_path / name).parent == tmp_path
        name.encode()


def test_the_same_name_in_another_folder_takes_no_page(
    blocklab: Blocklab, study_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    text = study_file.read_text()
    changed = {
        "title: Two": "title: Other",
        "depths: [1, 1, 1]": "depths: [1, 1, 2]",
        "seeds: 2": "seeds: 3",
        "epochs: 2": "epochs: 3",
        "  se: resnet20_se\n": "",
        "se: resnet20_se": "se: resnet20_se\n  ca: resnet20_ca",
        "varies:": "baseline: se\nvaries:",
    }
    asked(Study.load(study_file), out)
    for number, (old, new) in enumerate(changed.items()):
        path = tmp_path / str(number) / "tiny.yaml"
        path.parent.mkdir()
        path.write_text(text.replace(old, new))
        assert path.read_text() != text
        for more in ((), ("--dry-run",)):
            said = blocklab("study", path, "--out", out, *more)
            assert (said.status, said.err.count("\n")) == (2, 1), (new, said)
            assert f"{out / 'tiny'} is another study's: " in said.err
    moved = tmp_path / "moved" / "tiny.yaml"
    moved.parent.mkdir()
    moved.write_text(text)
    asked(Study.load(moved), out)


def test_a_file_may_grow_and_be_worded_otherwise_but_nothing_is_lost(
    study_file: Path, tmp_path: Path
) -> None:
    text = study_file.read_text()
    asked(Study.load(study_file), tmp_path)
    for old, new in (
        ("title: Two", "title: A few"),
        ("seeds: 2", "seeds: 3"),
        ("rows:", "baseline: se\nrows:"),
        ("se: resnet20_se", "se: resnet20_se\n  ca: resnet20_ca"),
    ):
        text = text.replace(old, new)
        study_file.write_text(text)
        asked(Study.load(study_file), tmp_path)
    for old, new, says in (
        ("seeds: 3", "seeds: 1", "it has seed 1, which this one has not"),
        ("epochs: 2", "epochs: 3", "its row 'plain' has recipe.epochs 2, and this one's 3"),
        ("resnet20_ca", "resnet20_gc", "its row 'ca' has attention"),
    ):
        study_file.write_text(text.replace(old, new))
        with pytest.raises(ValueError, match=says) as refused:
            asked(Study.load(study_file), tmp_path)
        assert "remove" in str(refused.value)
    study_file.write_text(text.replace("baseline: se\n", "").replace("  se: resnet20_se\n", ""))
    with pytest.raises(ValueError, match="it has a row 'se', which this one has not"):
        asked(Study.load(study_file), tmp_path)  # its baseline
    study_file.write_text(text.replace("  ca: resnet20_ca\n", ""))
    asked(Study.load(study_file), tmp_path)  # any other stays on record


def test_a_folder_of_before_is_taken_over(study_file: Path, tmp_path: Path) -> None:
    study = asked(Study.load(study_file), tmp_path)
    path = study_folder(study, tmp_path) / "study.json"
    old = parse_checked_json(path.read_bytes())
    del old["file"], old["recipe"]["sync_batchnorm"]  # a field that came later
    old["rows"] = [
        row | {"runs": {seed: "0123456789abcdef"[int(seed) :].ljust(16, "0") for seed in "01"}}
        for row in old["rows"][:1]
    ]
    write_checked_json(path, old)
    asked(study, tmp_path)


def test_a_run_is_named_by_its_row_and_seed(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_file.write_text(study_file.read_text() + '  "SE/2: x": resnet20_ca\n')
    out = tmp_path / "runs"
    study = asked(Study.load(study_file), out)
    named = {"plain:1": (0, 1), "se:0": (1, 0), "SE/2: x:1": (2, 1)}
    folders = {name: study.rows[row].definition(seed).hash for name, (row, seed) in named.items()}
    for name, run_hash in folders.items():
        assert find_run(out / "tiny" / name) == out / run_hash
    monkeypatch.chdir(tmp_path)
    assert find_run("runs/tiny/se:0") == out / folders["se:0"]
    assert find_run("runs/0123") == Path("runs/0123")  # a folder, there or not
    monkeypatch.chdir(out / "tiny")
    for name, run_hash in folders.items():
        assert find_run(name) == out / run_hash
        assert find_run(f"../tiny/{name}") == out / run_hash
    for wrong, says in (
        ("see:0", "study 'tiny' has no row 'see'; did you mean 'se'"),
        ("se:2", "has no seed 2; its seeds: 0, 1"),
        ("se:", "has no seed "),
        ("../other/se:0", "study 'tiny' has no row '../other/se'"),
    ):
        with pytest.raises(ValueError, match=says):
            find_run(wrong)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="and this is no study's folder; name a run's folder, or"):
        find_run("se:0")
    with pytest.raises(ValueError, match="no run 'runs/se:0', and no study's folder is before it"):
        find_run("runs/se:0")


def test_a_study_narrowed_leaves_the_whole_ones_page(
    blocklab: Blocklab, study_file: Path, trained: Path, tmp_path: Path
) -> None:
    out = trained
    assert blocklab("study", study_file, "--out", out).status == 0
    page = (out / "tiny" / "report.html").read_bytes()
    said = blocklab("study", study_file, "--out", out, "--seeds", 1)
    assert said.status == 0
    assert f"page: {out / 'tiny+seeds=1' / 'report.html'}" in said.out
    assert (out / "tiny" / "report.html").read_bytes() == page
    assert len(list(out.glob("*/result.json"))) == 4
    folder = out / Study.load(study_file).rows[1].definition(1).hash
    assert load_run(out / "tiny" / "se:1").folder == folder
    image = tmp_path / "black.png"
    Image.new("RGB", (32, 32)).save(image)
    for command, *more in (
        ("evaluate", "--json"),
        ("predict", image),
        ("diagnose", "--first", 1, "--last", 1),
        ("export", "--format", "safetensors"),
        ("study", "--verify"),
    ):
        run = out / "tiny" / "se:1"
        said = blocklab(command, *((*more, run) if command == "study" else (run, *more)))
        assert said.status == 0, said.err
        if command == "evaluate":
            top1 = json.loads((folder / "result.json").read_text())["test_top1_percent"]
            assert json.loads(said.out)["test_top1_percent"] == top1


def test_a_part_of_a_collection_says_which_studies_are_not_in_it(
    blocklab: Blocklab, study_file: Path, tmp_path: Path
) -> None:
    text, out = study_file.read_text(), tmp_path / "runs"
    eca = text.replace("se: resnet20_se", "eca: {base: resnet20, attention: eca}")
    assert eca != text
    (tmp_path / "other.yaml").write_text(eca)
    (tmp_path / "copy.yaml").write_text(text)
    names = ["tiny.yaml", "copy.yaml", "other.yaml"]
    (tmp_path / "all.yaml").write_text(f"title: All\nstudies: [{', '.join(names)}]\n")
    asked = "study", tmp_path / "all.yaml", "--out", out, "--seeds", "1", "--rows"
    note = "a part of its file's collection, without the study other, which has none of these rows"
    part = blocklab(*asked, "se")
    assert part.status == 0, part.err
    assert part.out.count(note) == 1
    (folder,) = {path.parent for path in out.glob("all*/collection.json")}
    on_page = html.escape(note).replace("&#x27;", "&#39;")[1:]
    assert on_page in (folder / "index.html").read_text()
    (folder / "index.html").unlink()
    assert blocklab("report", folder).out == part.out
    assert on_page in (folder / "index.html").read_text()
    whole = blocklab(*asked, "se,eca")
    assert whole.status == 0 and "a part of its file's collection" not in whole.out


def test_a_collection_has_its_own_page_and_names_it(
    blocklab: Blocklab, study_file: Path, trained: Path, tmp_path: Path
) -> None:
    out, inner = trained, tmp_path / "more"
    inner.mkdir()
    (inner / "one.yaml").write_text(study_file.read_text().replace("seeds: 2", "seeds: 1"))
    all_of_them = tmp_path / "all.yaml"
    all_of_them.write_text("title: All\nstudies: [tiny.yaml, more/one.yaml]\n")
    said = blocklab("study", all_of_them, "--out", out)
    assert said.status == 0, said.err
    page = out / "all" / "index.html"
    assert said.out.splitlines()[-1] == f"page of all: {page}"
    assert 'href="../tiny/report.html"' in page.read_text()
    assert (page.parent / "../tiny/report.html").is_file()
    narrowed = blocklab("study", all_of_them, "--out", out, "--seeds", 1, "--json")
    assert f"page of all: {out / 'all+seeds=1' / 'index.html'}" in narrowed.err
    assert [Path(one["page"]).parent.name for one in json.loads(narrowed.out)] == [
        "tiny+seeds=1",
        "one",
    ]
    (inner / "all.yaml").write_text("title: Other\nstudies: [quickstart, one.yaml]\n")
    refused = blocklab("study", inner / "all.yaml", "--out", out)
    assert refused.status == 2
    assert f"{out / 'all'} is another collection's: it has 'tiny'" in refused.err


def test_relative_paths_in_a_file_are_seen_from_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of data and recipes, of the study and of a row, also where a collection names the study."""
    folder, elsewhere = tmp_path / "project" / "studies", tmp_path / "elsewhere"
    folder.mkdir(parents=True)
    elsewhere.mkdir()
    images = tmp_path / "project" / "images"
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (images / split / name).mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (8, 8), (number, 0, 0)).save(
                    images / split / name / f"{number}.png"
                )
    (tmp_path / "project" / "short.yaml").write_text("epochs: 3\n")
    (folder / "one.yaml").write_text(
        "title: t\ndata: folder:../images\nrecipe: ../short.yaml\nvaries: [data, recipe]\nrows:\n"
        "  a: resnet20\n"
        "  b: {model: resnet20, data: {source: 'folder:../images', image_size: 16},\n"
        "      recipe: ../short.yaml}\n"
        "  c: {model: resnet20, data: 'folder:../images/train'}\n"
    )
    (folder / "two.yaml").write_text(
        "title: t\ndata: {source: 'folder:../images'}\nrecipe: {base: ../short.yaml, lr: 0.3}\n"
        "varies: []\nrows: [resnet20]\n"
    )
    (tmp_path / "project" / "all.yaml").write_text(
        "title: t\nstudies: [studies/one.yaml, studies/two.yaml]\n"
    )
    monkeypatch.chdir(elsewhere)
    seen = StudyCollection.load("../project/all.yaml").studies
    monkeypatch.chdir(folder)
    assert (Study.load("one.yaml"), Study.load("two.yaml")) == seen
    assert [row.recipe.epochs for study in seen for row in study.rows] == [3] * 4
    assert [row.data.source for study in seen for row in study.rows] == [
        f"folder:{images}",
        f"folder:{images}",
        f"folder:{images / 'train'}",
        f"folder:{images}",
    ]
    # What is typed is seen from where it is typed.
    monkeypatch.chdir(images.parent)
    typed = Study.load("studies/two.yaml", data="folder:images")
    assert typed.rows[0].data.source == "folder:images"


def test_a_margin_is_kept_beside_the_page(study_file: Path, tmp_path: Path) -> None:
    study_file.write_text(f"{study_file.read_text()}\nmargin: 0.5\n")
    study = asked(Study.load(study_file), tmp_path / "runs")
    assert read_study_file(study_folder(study, tmp_path / "runs")).margin == 0.5


def test_a_folder_that_is_no_studys_names_the_studies_in_it_and_never_itself(
    tmp_path: Path,
) -> None:
    plain = tmp_path / "results"
    for name, file in (("one", "study.json"), ("several", "collection.json"), ("zzz", "a.txt")):
        (plain / name).mkdir(parents=True)
        (plain / name / file).write_text("{}")
    with pytest.raises(InputError, match=r"studies in it: one, several$"):
        read_study_file(plain)
    with pytest.raises(InputError, match=r"not a study's folder; run `blocklab study` first$"):
        read_study_file(plain / "zzz")
