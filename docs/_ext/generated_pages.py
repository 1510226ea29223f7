"""Writes the pages that are made from code, before Sphinx reads the documents."""

from pathlib import Path

from block_pages import block_pages
from catalogue_page import catalogue_page
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

import blocklab


def write_pages(app: Sphinx) -> None:
    """Write blocks/ and catalogue.md into the documents' folder, where they are not committed."""
    documents = Path(app.srcdir)
    for path, text in block_pages():
        _write(documents / path, text)
    catalogue = documents / "catalogue.md"
    if not _newer_than_code(catalogue):  # counting every network takes a minute
        catalogue.write_text(catalogue_page(), encoding="utf-8")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _newer_than_code(page: Path) -> bool:
    code = [*Path(blocklab.__file__).parent.rglob("*.py"), *Path(__file__).parent.glob("*.py")]
    code += Path(blocklab.__file__).parent.rglob("models/catalogue/*.yaml")
    written = page.stat().st_mtime if page.is_file() else 0.0
    return all(file.stat().st_mtime < written for file in code)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Write the pages as a build begins."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
