"""Tables that more than one command prints."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from trustnlp.results import Finding, Results, Tone

_FIGURES = ("tpr-at-1pct-fpr", "tpr-at-0-1pct-fpr", "auc")
_ATTACK = re.compile(rf"membership-(?P<attack>.+?)-(?P<figure>{'|'.join(_FIGURES)})")
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


def attacks_table(results: Results) -> tuple[Table, tuple[Finding, ...]]:
    """One row for each membership attack on the one model of a run, and the findings that are of no attack."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", title_justify="left")
    for name in ("attack", "found at 1% false alarms", "at 0.1%", "AUC"):
        table.add_column(name)
    rows: dict[str, dict[str, Finding]] = {}
    others = []
    for finding in results:
        found = _ATTACK.fullmatch(finding.id)
        if found:
            rows.setdefault(found["attack"], {})[found["figure"]] = finding
        else:
            others.append(finding)
    for attack, figures in rows.items():
        cells = (figures.get(figure) for figure in _FIGURES)
        table.add_row(Text(attack), *(_attack_cell(finding) if finding else Text("–") for finding in cells))
    return table, tuple(others)


def _attack_cell(finding: Finding) -> Text:
    needed = finding.details.get("nonmembers_needed")
    return _cell(finding) if needed is None else Text(f"needs {needed:,} non-members", STYLES[Tone.UNKNOWN])


def tables(results: Results) -> Iterator[Table]:
    """The findings of a run: one table a figure for a study, one for all of any other run."""
    from trustnlp.report.pivot import pivots
    from trustnlp.report.study import claim, is_study

    if not is_study(results):
        yield findings_table(results)
        return
    by_id: dict[str, Table] = {}
    for pivot in pivots(results):
        if pivot.id not in by_id:
            by_id[pivot.id] = Table(
                title=Text(pivot.title, "bold"), box=None, padding=(0, 2, 0, 0), title_justify="left"
            )
            for name in ("", "", *pivot.columns):
                by_id[pivot.id].add_column(Text(name), header_style="dim")
        for name, row in pivot.rows:
            cells = (_cell(finding) if finding else Text("–") for finding in row)
            by_id[pivot.id].add_row(Text(pivot.panel), Text(name), *cells)
    yield from by_id.values()
    verdict = claim(results)
    if verdict is not None:
        summary = Table(title=Text("Verdict on the claim", "bold"), box=None, title_justify="left", show_header=False)
        summary.add_row(Text(verdict.title), _cell(verdict))
        yield summary


def _cell(finding: Finding) -> Text:
    interval = f" ({finding.interval()})" if finding.interval() else ""
    figure = "" if finding.value is None else f"{finding.figure(finding.value)}{interval}  "
    verdict = "" if finding.verdict.tone is Tone.NEUTRAL else finding.verdict.value
    return Text.assemble(figure, (verdict, STYLES[finding.verdict.tone]))
