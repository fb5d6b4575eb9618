"""Findings of a set of items and of each bias type in it, with and without the items that are flagged as invalid."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from trustnlp import checks
from trustnlp.errors import ArgumentError
from trustnlp.fairness.metric import Metric, Scope, judge, minimum_detectable_effect
from trustnlp.results import Finding
from trustnlp.uncertainty import Interval, bonferroni


class Typed(Protocol):
    """A scored item: its id, and the bias type that it is of."""

    @property
    def id(self) -> str:
        """Of the item."""
        ...

    @property
    def bias_type(self) -> str:
        """Such as "gender"."""
        ...


Row = TypeVar("Row", bound=Typed)


@dataclass(frozen=True)
class Estimate:
    """A figure of some items with its interval, how many independent units it rests on, and what explains it."""

    value: float
    interval: Interval
    n: int
    details: Mapping[str, Any] = field(default_factory=dict)


def by_bias_type(
    metric: Metric,
    rows: Sequence[Row],
    estimate: Callable[[Sequence[Row], float], Estimate | None],
    *,
    dataset: str,
    margin: float,
    level: float,
    flagged: Collection[str] = (),
    enough: str,
) -> tuple[Finding, ...]:
    """A finding `<metric>` of all items, and `<metric>-<bias type>` of each type if there are several.

    Args:
        metric: what is measured.
        rows: scored items.
        estimate: of items and a level; None for too few.
        dataset, margin: as in `Scope`.
        level: coverage of the figure of all items, and of those of all types at once (Bonferroni).
        flagged: ids of invalid items; the figure without them is in the details as `without_flagged`.
        enough: how many items are needed, in words.

    Raises:
        ArgumentError: no rows, two of one id, a flagged id that no row has, or level or margin out of range.
    """
    checks.not_empty("rows", rows)
    ids = {row.id for row in rows}
    if len(ids) < len(rows):
        raise ArgumentError("rows", "of different ids", f"{len(rows)} rows of {len(ids)} ids")
    unknown = sorted(set(flagged) - ids)
    if unknown:
        raise ArgumentError("flagged", "ids of items that were scored", unknown[0])
    types = sorted({row.bias_type for row in rows})
    families = {"all bias types" if len(types) > 1 else types[0]: (metric, rows, level)}
    if len(types) > 1:
        for name in types:
            own = replace(metric, id=f"{metric.id}-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}")
            own_rows = [row for row in rows if row.bias_type == name]
            families[name] = (own, own_rows, bonferroni(level, len(types)))
    return tuple(
        _finding(own, Scope(name, dataset, margin), own_rows, estimate, each, flagged, enough)
        for name, (own, own_rows, each) in families.items()
    )


def _finding(
    metric: Metric,
    scope: Scope,
    rows: Sequence[Row],
    estimate: Callable[[Sequence[Row], float], Estimate | None],
    level: float,
    flagged: Collection[str],
    enough: str,
) -> Finding:
    kept = [row for row in rows if row.id not in flagged]
    details: dict[str, Any] = {"items": len(rows), "flagged": len(rows) - len(kept)}
    if len(kept) < len(rows):
        details["without_flagged"] = _without(metric, scope, estimate(kept, level) if kept else None)
    found = estimate(rows, level)
    if found is None:
        return metric.unmeasured(scope, f"{len(rows)} items; {enough} are needed", n=len(rows), details=details)
    return metric.finding(
        scope,
        found.value,
        found.interval,
        n=found.n,
        minimum_detectable_effect=minimum_detectable_effect(found.interval),
        details={**details, **found.details},
    )


def _without(metric: Metric, scope: Scope, found: Estimate | None) -> dict[str, Any] | None:
    if found is None:
        return None
    verdict = judge(found.interval, metric.ideal, scope.margin)
    ends = {"low": found.interval.low, "high": found.interval.high}
    return {"value": found.value, **ends, "n": found.n, "verdict": verdict.value, **found.details}
