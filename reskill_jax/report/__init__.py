"""The run as one HTML page."""

from reskill_jax.report.page import write_report
from reskill_jax.report.reading import ReportError, read_run

__all__ = ["ReportError", "read_run", "write_report"]
