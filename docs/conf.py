"""Sphinx configuration: Markdown by MyST, the Furo theme, the Python interface from docstrings."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "blocklab"
author = "the blocklab authors"
copyright = author
version = release = version_of("blocklab")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",
    "generated_pages",
]
html_math_renderer = "mathml"
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
html_static_path = ["_static"]
html_css_files = ["formulas.css", "drawings.css"]
html_theme = "furo"
html_title = "blocklab"
exclude_patterns = ["_build", "_ext", "_static"]
autodoc_typehints = "description"
nitpicky = False
