"""Runs as an HTML page, one or several side by side, and as a few lines of text."""

from reskill_jax.report.compare import write_comparison
from reskill_jax.report.lines import lacks_configuration
from reskill_jax.report.page import write_report
from reskill_jax.report.reading import ReportError, read_run
from reskill_jax.report.summary import summary_lines, summary_text

__all__ = [
    "ReportError",
    "lacks_configuration",
    "read_run",
    "summary_lines",
    "summary_text",
    "write_comparison",
    "write_report",
]
