"""Runs as an HTML page, one or several side by side, and as a few lines of text."""

from reskill_jax.report.compare import write_comparison
from reskill_jax.report.page import write_report
from reskill_jax.report.reading import ReportError, read_run
from reskill_jax.report.summary import summary_lines

__all__ = ["ReportError", "read_run", "summary_lines", "write_comparison", "write_report"]
