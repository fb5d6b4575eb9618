"""The report and the gate: they read results.json and nothing else."""

from trustnlp.report.page import render, write

__all__ = ["render", "write"]
