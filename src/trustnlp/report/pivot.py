"""The cells of a study as tables: for each figure and panel, rows by columns, as the study's axes say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trustnlp.results import Finding, Results


@dataclass(frozen=True)
class Pivot:
    """One figure in one panel.

    Args:
        id, title: of the figure.
        panel: which part of the study, in words; empty where there is one only.
        row_title: what rows differ by.
        columns: their names.
        rows: (name, a finding for each column or None).
    """

    id: str
    title: str
    panel: str
    row_title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Finding | None, ...]], ...]

    @property
    def findings(self) -> list[Finding]:
        """All of them."""
        return [finding for _, row in self.rows for finding in row if finding]


def pivots(results: Results) -> list[Pivot]:
    """The tables of a study, by figure and panel in order of appearance; findings without a cell are left out."""
    axes = _axes(results)
    placed: dict[tuple[str, str], list[Finding]] = {}
    for finding in results:
        cell = _cell(finding)
        if cell and finding.id != "claim":
            placed.setdefault((finding.id, _named(cell, axes.get("panel", ()))), []).append(finding)
    return [_pivot(id, panel, findings, axes) for (id, panel), findings in placed.items()]


def _pivot(id: str, panel: str, findings: Sequence[Finding], axes: Mapping[str, Sequence[str]]) -> Pivot:
    row_keys, column_keys = axes.get("rows", ()), axes.get("columns", ())
    at = {(_named(_cell(f), row_keys), _named(_cell(f), column_keys)): f for f in findings}
    rows, columns = (tuple(dict.fromkeys(place)) for place in zip(*at, strict=True))
    columns = tuple(sorted(columns, key=bool))  # what has no such key, such as no budget, comes first
    return Pivot(
        id,
        findings[0].title,
        panel,
        ", ".join(row_keys),
        tuple(_headed(column, column_keys, len(columns)) for column in columns),
        tuple((row, tuple(at.get((row, column)) for column in columns)) for row in rows),
    )


def _headed(column: str, keys: Sequence[str], count: int) -> str:
    name = ", ".join(keys)
    if column:
        return f"{name} {column}"
    return f"no {name}" if count > 1 else ""


def _named(cell: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(str(cell[key]) for key in keys if key in cell)


def _cell(finding: Finding) -> Mapping[str, Any]:
    cell = finding.details.get("cell")
    return cell if isinstance(cell, Mapping) else {}


def _axes(results: Results) -> Mapping[str, Sequence[str]]:
    study = results.run.get("study")
    axes = study.get("axes") if isinstance(study, Mapping) else None
    return axes if isinstance(axes, Mapping) else {}
