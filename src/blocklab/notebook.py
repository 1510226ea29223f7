"""What a notebook shows of an object: short tables, in HTML, and what changes while it runs."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from blocklab.errors import printable


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which shows HTML."""
    shell = sys.modules.get("IPython")
    kernel = shell.get_ipython() if shell is not None else None
    return kernel is not None and hasattr(kernel, "kernel")


class Display:
    """A place in a notebook's output whose content is replaced."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, html: str) -> None:
        """Put HTML there, in place of what was."""
        from IPython.display import HTML, display  # pyright: ignore[reportMissingImports]

        if self._handle is None:
            self._handle = display(HTML(html), display_id=True)
        else:
            self._handle.update(HTML(html))


def table_html(headings: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, whose first column stands on the left."""
    head = "".join(f"<th>{text_html(one)}</th>" for one in headings)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="text-align: {"left" if number == 0 else "right"}">{text_html(cell)}</td>'
            for number, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def fields_html(title: str, fields: Mapping[str, Any]) -> str:
    """Return names and values below a title."""
    return f"<b>{text_html(title)}</b>" + table_html(
        ("", ""), [(name, str(value)) for name, value in fields.items()]
    )


def text_html(text: str) -> str:
    """Return text as HTML may hold it: what others wrote is never markup."""
    return escape(printable(text))
