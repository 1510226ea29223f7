"""Results in, one offline page, tables and figures out."""

from blocklab.report.page import write_report

__all__ = ["write_report"]
