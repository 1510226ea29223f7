"""Results in, one offline page, tables and figures out."""

from blocklab.report.index import write_index
from blocklab.report.page import write_report

__all__ = ["write_index", "write_report"]
