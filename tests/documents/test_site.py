"""The site is built as `make docs` builds it: no warning, no page without its parts."""

import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sphinx.cmd.build import main as build

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole site, but for models of the catalogue, of which only one file is counted."""
    folder = tmp_path_factory.mktemp("site")
    made = shutil.ignore_patterns("_build", "blocks", "catalogue.md", "__pycache__")
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=made)
    shutil.copytree(ROOT / "examples", folder / "examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder / "docs" / "_ext"))
        from catalogue_page import catalogue_page

        (folder / "docs" / "catalogue.md").write_text(catalogue_page("metaformer.yaml"))
        asked = ["--quiet", "--fail-on-warning", str(folder / "docs"), str(folder / "built")]
        status = build(asked)
    for name in ("block_pages", "catalogue_page", "generated_pages", "mathml", "measured"):
        sys.modules.pop(name, None)
    assert status == 0
    return folder / "built"


class Links(HTMLParser):
    """The pictures and the files beside it that a page asks for, and the ends of its own links."""

    def __init__(self) -> None:
        super().__init__()
        self.files = list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what an element names."""
        for key, value in attrs:
            if key in ("src", "href") and value and not value.startswith("#"):
                self.files.append(value)


def test_pages_are_there_with_what_they_name(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if "_static" not in page.parts]
    assert len(pages) > 60
    for page in pages:
        links = Links()
        links.feed(page.read_text(encoding="utf-8"))
        inside = [one.partition("#")[0].partition("?")[0] for one in links.files if ":" not in one]
        missing = [one for one in inside if one and not (page.parent / one).exists()]
        assert not missing, page.name


def test_a_block_has_its_drawing_and_a_formula_is_a_formula(site: Path) -> None:
    block = (site / "blocks" / "attention-triplet.html").read_text(encoding="utf-8")
    assert '<svg class="block-drawing"' in block and 'class="gate"' in block
    assert "<math" in (site / "statistics.html").read_text(encoding="utf-8")
    catalogue = (site / "catalogue.html").read_text(encoding="utf-8")
    assert "poolformer_s12" in catalogue
