"""Filling the templates of this folder: all text escaped, nothing fetched, no script but ours."""

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from blocklab.errors import printable
from blocklab.report.drawing import ON_PAGE, Figure, svg

HERE = Path(__file__).parent
VIEW_BOX = re.compile(r'viewBox="0 0 ([\d.]+) ')
# A stretch of Hebrew, Arabic and their kin, with what stands between its words.
_LETTERS = "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]"
RIGHT_TO_LEFT = re.compile(f"{_LETTERS}+(?:[^\\w<>&]+{_LETTERS}+)*")


@dataclass(frozen=True)
class Drawn:
    """A figure as a page has it."""

    name: str
    title: str
    caption: str
    drawn: Markup

    @property
    def wide(self) -> str:
        """How many of its own units it is wide, by which a narrow screen sizes its text."""
        found = VIEW_BOX.search(self.drawn)
        assert found is not None, "it has a viewBox"
        return found[1]


def render(template: str, **fields: Any) -> str:
    """Fill a template; its scripts are known by their hash, so that no other one runs."""
    script = (HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    styles = (HERE / "page.css").read_text(encoding="utf-8")
    policy = Markup(f"'sha256-{digest}'")
    return (
        environment()
        .get_template(template)
        .render(script=Markup(script), styles=Markup(styles), policy=policy, **fields)
    )


@cache
def environment() -> Environment:
    """The templates of this folder, with everything escaped."""
    made = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        finalize=page_text,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["breakable"] = breakable
    return made


def breakable(name: str) -> Markup:
    """Return a name that a narrow column may break after an underscore, a slash or a dot."""
    parts = re.split(r"(?<=[_/.])(?=.)", str(page_text(name)))
    return Markup("<wbr>").join(parts)


def page_text(value: object) -> object:
    """Return text as a page may show it, and anything else as it is.

    Control characters are written as escapes; letters that run from right to left are isolated
    (as by `<bdi>`), so that no name turns the figures beside it around.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    shown = "".join(c if c in "\n\t" else printable(c) for c in value)
    return RIGHT_TO_LEFT.sub("\u2068\\g<0>\u2069", shown)


def on_page(figure: Figure) -> Drawn:
    """Draw a figure in the page's own ink."""
    return Drawn(figure.name, figure.title, figure.caption, Markup(svg(figure, ON_PAGE)))
