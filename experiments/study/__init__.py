"""The household study: its runs, what they measure, and its tables and figures."""
