"""`trustnlp gate`: hold a run against a policy, for a build to fail on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from trustnlp.report.gate import GateReport

_OTHER_COLUMNS = 76  # characters that all columns but the first need to be read well
_COLOURS = {"passed": "green", "broken": "bold red", "missing": "bold red", "insufficient evidence": "yellow"}


def gate(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="A run folder, or its results.json.")],
    policy: Annotated[Path, typer.Option(help="A TOML file of ceilings and floors on findings.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Hold a run's findings against a policy of ceilings and floors.

    Exit status: 0 every rule passed, 1 a rule is broken or no finding answers it, 2 a file cannot be used,
    3 nothing is broken but the evidence is insufficient (unless the policy says: insufficient = "pass").
    There is no default policy: what may be released is a decision of those who answer for it.
    """
    from trustnlp.report.gate import Policy
    from trustnlp.report.gate import gate as hold
    from trustnlp.results import Results

    outcome = hold(Results.load(run), Policy.load(policy))
    if as_json:
        record = {"status": outcome.status, "rows": [row.record() for row in outcome.rows]}
        typer.echo(json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        from rich.console import Console

        # A build log has no width of its own; a table squeezed into 80 columns is hard to read there.
        console = Console(width=None if sys.stdout.isatty() else 120)
        console.print(_table(outcome, console.width))
        typer.echo(outcome.conclusion())
    raise typer.Exit(outcome.status)


def _table(outcome: GateReport, width: int) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table("finding", "measured", "limit", "state", "why", box=SIMPLE_HEAD, pad_edge=False)
    table.columns[0].overflow = "fold"  # a name cut short could be another's
    longest = max(len(row.finding.id if row.finding else row.rule.finding) for row in outcome.rows)
    table.columns[0].no_wrap = longest <= width - _OTHER_COLUMNS
    reasons = [None, *(row.rule for row in outcome.rows)]
    for row, before in zip(outcome.rows, reasons, strict=False):
        finding = row.finding
        measured = f"{finding.figure(finding.value)}\n{finding.interval()}".strip() if finding else "–"
        name, regime = (finding.id, finding.regime) if finding else (row.rule.finding, row.rule.regime)
        state = Text(row.state.value, style=_COLOURS[row.state])
        # Text, never a string: rich would read markup into what a file says.
        texts = map(Text, (f"{name}\n{regime}".strip(), measured, row.limit()))
        # One rule may be about many findings: its reason stands beside the first.
        table.add_row(*texts, state, Text("" if row.rule is before else row.rule.why))
    return table
