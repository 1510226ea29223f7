"""Sphinx configuration: Markdown by MyST, the Furo theme, the Python interface from docstrings."""

from importlib.metadata import version as version_of

project = "blocklab"
author = "the blocklab authors"
version = release = version_of("blocklab")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "blocklab"
exclude_patterns = ["_build"]
autodoc_typehints = "description"
nitpicky = False
