"""A study's page within a notebook."""

from dataclasses import dataclass
from html import escape
from pathlib import Path
from shlex import quote

from blocklab.errors import InputError

PAGE = "report.html"


@dataclass(frozen=True)
class Page:
    """The page in a study's folder, shown as it is by the notebook that ends a cell with it.

    ``Page("runs/my_study")``; `height` is in pixels. The notebook holds a copy of the page.
    """

    folder: str | Path
    height: int = 700

    def _repr_html_(self) -> str:
        path = Path(self.folder) / PAGE
        if not path.is_file():
            command = f"blocklab report {quote(str(self.folder))}"
            raise InputError(f"there is no {path}; `{command}` writes it")
        held = escape(path.read_text("utf-8"))
        style = f"width:100%;height:{self.height}px;border:0"
        return f'<iframe srcdoc="{held}" style="{style}"></iframe>'
