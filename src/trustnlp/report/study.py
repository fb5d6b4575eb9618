"""The page of a study: its claim and verdict, then every figure as plots and tables of its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trustnlp.report import heat_map, plots
from trustnlp.report.explanations import explain
from trustnlp.report.pivot import Pivot, pivots
from trustnlp.results import Finding, Results

_MOST_LINES = 4


@dataclass(frozen=True)
class Plot:
    """A plot with its title and caption."""

    title: str
    svg: str
    caption: str


@dataclass(frozen=True)
class Section:
    """One figure over all cells; `heat` are heat maps of texts that may be shown, each with its title."""

    id: str
    title: str
    means: str
    source: str
    plots: tuple[Plot, ...]
    tables: tuple[Pivot, ...]
    heat: tuple[tuple[str, str], ...] = ()


def is_study(results: Results) -> bool:
    """Whether these are a study's results."""
    return isinstance(results.run.get("study"), Mapping)


def claim(results: Results) -> Finding | None:
    """The verdict on the study's claim."""
    return next((finding for finding in results if finding.id == "claim"), None)


def says(results: Results) -> list[str]:
    """What the study found, in sentences of its own; nothing where it has none."""
    found = claim(results)
    sentences = found.details.get("says", ()) if found else ()
    return [str(sentence) for sentence in sentences]


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
    drawn = tuple(plot for place, table in enumerate(tables) for plot in _plots(table, place))
    return Section(id, tables[0].title, means, source, drawn, tuple(tables), _heat(tables))


def _heat(tables: Sequence[Pivot]) -> tuple[tuple[str, str], ...]:
    """What tokens contribute, for findings that show it."""
    shown = [finding for table in tables for finding in table.findings if finding.details.get("attributions")]
    return tuple(
        (finding.regime, heat_map.html([heat_map.Row(**row) for row in finding.details["attributions"]]))
        for finding in shown
    )


def _plots(table: Pivot, place: int) -> tuple[Plot, ...]:
    """Lines over the columns, while they are few enough to be told apart; else a plot for each column."""
    if len(table.columns) > 1 and len(table.rows) <= _MOST_LINES:
        return (_over_columns(table, place),)
    return tuple(_of_column(table, place, number) for number in range(len(table.columns)))


def _over_columns(table: Pivot, place: int) -> Plot:
    alternative = plots.Alternative(f"{table.id}-{place}", f"{table.title}: {table.panel}", _seen(table))
    series = {name: [_dot(column, f) for column, f in zip(table.columns, row, strict=True)] for name, row in table.rows}
    svg = plots.lines(series, table.columns, table.title, _percent(table), alternative)
    return Plot(table.panel or table.title, svg, "")


def _of_column(table: Pivot, place: int, column: int) -> Plot:
    title = ", ".join(filter(None, [table.panel, table.columns[column]])) or table.title
    alternative = plots.Alternative(f"{table.id}-{place}-{column}", f"{table.title}: {title}", _seen(table))
    rows = [_dot(name, row[column]) for name, row in table.rows if row[column]]
    return Plot(title, plots.dots(rows, table.title, _percent(table), alternative, _span(table)), "")


def _percent(table: Pivot) -> bool:
    return table.findings[0].unit == "fraction"


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
