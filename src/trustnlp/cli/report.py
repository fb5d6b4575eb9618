"""`trustnlp report`: render the report of finished runs again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Run folders, each with a results.json.")],
) -> None:
    """Write report.html into each run folder from its results.json; nothing is measured again."""
    from trustnlp.report import write
    from trustnlp.results import Results

    for run in runs:
        typer.echo(write(run if run.is_dir() else run.parent, Results.load(run)))
