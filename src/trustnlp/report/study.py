"""The page of a study: its claim and verdict, then every figure as plots and tables of its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trustnlp.report import plots
from trustnlp.report.explanations import explain
from trustnlp.report.pivot import Pivot, pivots
from trustnlp.results import Finding, Results


@dataclass(frozen=True)
class Plot:
    """A plot with its title and caption."""

    title: str
    svg: str
    caption: str


@dataclass(frozen=True)
class Section:
    """One figure over all cells."""

    id: str
    title: str
    means: str
    source: str
    plots: tuple[Plot, ...]
    tables: tuple[Pivot, ...]


def is_study(results: Results) -> bool:
    """Whether these are a study's results."""
    return isinstance(results.run.get("study"), Mapping)


def claim(results: Results) -> Finding | None:
    """The verdict on the study's claim."""
    return next((finding for finding in results if finding.id == "claim"), None)


def sections(results: Results) -> list[Section]:
    """One section a figure, in order of appearance."""
    by_id: dict[str, list[Pivot]] = {}
    for pivot in pivots(results):
        by_id.setdefault(pivot.id, []).append(pivot)
    return [_section(id, tables) for id, tables in by_id.items()]


def _section(id: str, tables: Sequence[Pivot]) -> Section:
    entry = explain(id)
    means = entry.means if entry else ""
    source = next((finding.source for table in tables for finding in table.findings if finding.source), "")
    drawn = tuple(_plot(table, place) for place, table in enumerate(tables))
    return Section(id, tables[0].title, means, source, drawn, tuple(tables))


def _plot(table: Pivot, place: int) -> Plot:
    percent = table.findings[0].unit == "fraction"
    alternative = plots.Alternative(f"{table.id}-{place}", f"{table.title}: {table.panel}", _seen(table))
    if len(table.columns) == 1:
        rows = [_dot(name, findings[0]) for name, findings in table.rows]
        svg = plots.dots(rows, table.title, percent, alternative, _span(table))
    else:
        series = {
            name: [_dot(column, f) for column, f in zip(table.columns, row, strict=True)] for name, row in table.rows
        }
        svg = plots.lines(series, table.columns, table.title, percent, alternative)
    return Plot(table.panel or table.title, svg, "")


def _dot(label: str, finding: Finding | None) -> plots.Dot:
    return plots.Dot(label, *((finding.value, finding.low, finding.high) if finding else (None,)))


def _span(table: Pivot) -> tuple[float, float]:
    ends = [end for f in table.findings for end in (f.value, f.low, f.high, f.ideal) if end is not None]
    return min([0.0, *ends]), max(ends, default=1.0) * 1.06 or 1.0


def _seen(table: Pivot) -> str:
    parts = []
    for name, row in table.rows:
        for column, finding in zip(table.columns, row, strict=True):
            if finding:
                parts.append(f"{name} {column}: {finding.figure(finding.value)}".replace("  ", " "))
    return "; ".join(parts)
