"""A finished search on one page."""

from optnas.reports.report import report

__all__ = ["report"]
