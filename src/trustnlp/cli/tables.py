"""Tables that more than one command prints."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from trustnlp.results import Finding, Results, Tone

STYLES = {Tone.GOOD: "green", Tone.BAD: "bold red", Tone.UNKNOWN: "yellow", Tone.NEUTRAL: ""}


def findings_table(results: Results) -> Table:
    """One row a figure, one column a regime; what is said of no regime stands in the first column.

    Text from data is never read as markup.
    """
    regimes = list(dict.fromkeys(finding.regime for finding in results if finding.regime)) or [""]
    cells = {(finding.id, finding.regime): _cell(finding) for finding in results}
    rows = {(finding.id, bool(finding.regime)): finding.title for finding in results}
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", title_justify="left")
    table.add_column("", max_width=44)
    for regime in regimes:
        table.add_column(Text(regime))
    for (id, of_regimes), title in rows.items():
        places = regimes if of_regimes else [""]
        table.add_row(Text(title), *(cells.get((id, place), Text()) for place in places))
    return table


def _cell(finding: Finding) -> Text:
    interval = f" ({finding.interval()})" if finding.interval() else ""
    figure = "" if finding.value is None else f"{finding.figure(finding.value)}{interval}  "
    verdict = "" if finding.verdict.tone is Tone.NEUTRAL else finding.verdict.value
    return Text.assemble(figure, (verdict, STYLES[finding.verdict.tone]))
