"""The report: one self-contained HTML page with the summary, every table and every picture of an analysis."""

from landscape.report.page import report_page

__all__ = ["report_page"]
