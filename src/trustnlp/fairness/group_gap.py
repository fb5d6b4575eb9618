"""Group gaps: how far the error rate, or the slot F1, of the worst-served group is from that of the best-served.

Estimand: the largest difference between any two groups, G = max |m_a - m_b|. Of k groups, the k (k - 1) / 2 pairs get
simultaneous intervals (Bonferroni), so that

    max over pairs of the nearest end  <=  G  <=  max over pairs of the farthest end

holds with probability `level` at least. The estimate itself is biased upwards where there are more than two groups or
few data, as every maximum is; its interval is not. For two groups, `details["pairs"]` has the signed difference.

Each group's figure is a ratio of sums over its texts, by user where users are known (`uncertainty.ratio`); the
interval of a pair follows from its two groups' (`uncertainty.difference`). Groups are taken to be independent: a user
who writes in two of them makes the interval wider than needed, not narrower, as long as texts of one user are alike.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustnlp import checks
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.fairness.metric import ENOUGH, Metric, Notion, Scope, is_enough, minimum_detectable_effect, units
from trustnlp.fairness.spans import span_counts
from trustnlp.results import Direction, Finding
from trustnlp.uncertainty import Interval, bonferroni, difference, ratio

LABEL_ERROR_GAP = Metric(
    id="label-error-gap",
    title="Largest difference in label error rate between groups",
    notion=Notion.GROUP_PERFORMANCE,
    ideal=0.0,
    direction=Direction.LOWER,
    source="overall accuracy equality (Berk et al. 2021, Sociological Methods & Research 50(1)), largest pair",
)
SLOT_F1_GAP = Metric(
    id="slot-f1-gap",
    title="Largest difference in slot F1 between groups",
    notion=Notion.GROUP_PERFORMANCE,
    ideal=0.0,
    direction=Direction.LOWER,
    source="micro F1 over spans (Tjong Kim Sang and Buchholz 2000), largest pair",
)


def label_error_gap(
    correct: ArrayLike,
    groups: Sequence[str | None],
    *,
    dataset: str,
    protected_group: str = "speaker group",
    clusters: Sequence[Hashable | None] | None = None,
    margin: float = 0.05,
    level: float = 0.95,
) -> Finding:
    """The largest difference in error rate between any two groups; lower is better, ideal 0.

    Args:
        correct: (n,) whether each text's label was predicted.
        groups: (n,) each text's group, None where it is unknown; such texts are left out and counted.
        dataset: what it was measured on, for the record.
        protected_group: what the groups are groups of, for the record.
        clusters: (n,) each text's user, where users are known; None for a text of unknown user.
        margin: the gap that is of no consequence, > 0; 0.05 is 5 points of error rate.
        level: coverage of the interval, in (0, 1).

    Returns:
        Finding `label-error-gap`; `details["groups"]` has n, error rate and interval of each group that is large
        enough, `details["pairs"]` all signed differences, `details["not_compared"]` the groups that are too small.
        The verdict speaks of the compared groups only; of fewer than two it is insufficient evidence.

    Raises:
        ArgumentError: no texts, lengths that differ, groups that are not strings, margin or level out of range.
        GuaranteeError: `correct` holds anything but 0 and 1 (NaN included).
    """
    right = np.asarray(correct, dtype=float)
    if not np.isin(right, (0.0, 1.0)).all():
        raise GuaranteeError(
            "'correct' must hold only true and false", "leave out texts without an answer, NaN included"
        )
    texts = _Texts(1 - right, np.ones_like(right), groups, clusters)
    return _gap(LABEL_ERROR_GAP, "error", texts, Scope(protected_group, dataset, margin), level)


def slot_f1_gap(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    groups: Sequence[str | None],
    *,
    dataset: str,
    protected_group: str = "speaker group",
    clusters: Sequence[Hashable | None] | None = None,
    margin: float = 0.05,
    level: float = 0.95,
) -> Finding:
    """The largest difference in entity-level micro F1 between any two groups; lower is better, ideal 0.

    Args:
        gold, predicted: n texts' BIO tags, text by text of one length.
        groups, dataset, protected_group, clusters, margin, level: as for `label_error_gap`.

    Returns:
        Finding `slot-f1-gap` with the same details, `f1` in place of `error`. Texts without any span, neither
        labelled nor predicted, say nothing about F1 and are not counted in n.

    Raises:
        ArgumentError: as for `label_error_gap`, or tags that are not BIO or not aligned.
    """
    hits, invented, missed = span_counts(gold, predicted).T.astype(float)
    texts = _Texts(2 * hits, 2 * hits + invented + missed, groups, clusters)
    return _gap(SLOT_F1_GAP, "f1", texts, Scope(protected_group, dataset, margin), level)


@dataclass(frozen=True, eq=False)
class _Texts:
    """A figure as a ratio of sums over texts: numerators and denominators (n,), groups and users."""

    parts: NDArray[np.float64]
    sizes: NDArray[np.float64]
    groups: Sequence[str | None]
    clusters: Sequence[Hashable | None] | None

    def __post_init__(self) -> None:
        checks.not_empty("groups", self.groups)
        checks.same_length(groups=self.groups, texts=self.sizes)
        for group in self.groups:
            if group is not None and not isinstance(group, str):
                raise ArgumentError("groups", "strings, or None where the group is unknown", group)


@dataclass(frozen=True, eq=False)
class _Group:
    """One group's sums over its texts that say something about the figure, with their users."""

    name: str
    parts: NDArray[np.float64]
    sizes: NDArray[np.float64]
    users: Sequence[Hashable]

    @property
    def n(self) -> int:
        return len(self.sizes)

    @property
    def value(self) -> float:
        return float(self.parts.sum() / self.sizes.sum())

    def interval(self, level: float) -> Interval:
        return ratio(self.parts, self.sizes, level, self.users)


def _groups(texts: _Texts) -> list[_Group]:
    users, groups = units(len(texts.groups), texts.clusters), np.array(texts.groups, dtype=object)
    found = []
    for name in sorted({group for group in texts.groups if group is not None}):
        rows = np.flatnonzero((groups == name) & (texts.sizes > 0))
        found.append(_Group(name, texts.parts[rows], texts.sizes[rows], [users[row] for row in rows]))
    return found


def _gap(metric: Metric, figure: str, texts: _Texts, scope: Scope, level: float) -> Finding:
    checks.inside("level", level, 0, 1)
    groups = _groups(texts)
    compared = [group for group in groups if is_enough(group.sizes, group.users)]
    small = [group for group in groups if group not in compared]
    details: dict[str, Any] = {
        "groups": [_record(group, figure, level) for group in compared],
        "not_compared": [{"group": group.name, "n": group.n} for group in small],
        "notes": [f"gap by {scope.protected_group}: insufficient evidence for {g.name!r} (n={g.n})" for g in small],
        "group_unknown": sum(group is None for group in texts.groups),
        "examples": sum(group.n for group in compared),
        "units": "texts" if texts.clusters is None else "users",
    }
    n = len({user for group in compared for user in group.users})
    if len(compared) < 2:
        reason = f"{len(compared)} of {len(groups)} groups have {ENOUGH} or more; a gap needs two"
        return metric.unmeasured(scope, reason, n=n, details=details)
    pairs = _pairs(compared, level)
    value, interval = _largest(pairs, level)
    return metric.finding(
        scope,
        value,
        interval,
        n=n,
        minimum_detectable_effect=max(minimum_detectable_effect(pair) for _, _, _, pair in pairs),
        details={**details, "pairs": [_pair_record(*pair) for pair in pairs]},
    )


_Pair = tuple[str, str, float, Interval]  # first, second, first minus second, its simultaneous interval


def _pairs(groups: list[_Group], level: float) -> list[_Pair]:
    each = bonferroni(level, len(groups) * (len(groups) - 1) // 2)
    known = [(group.name, group.value, group.interval(each)) for group in groups]
    return [
        (name, other, value - rival, difference(value, interval, rival, against))
        for (name, value, interval), (other, rival, against) in combinations(known, 2)
    ]


def _largest(pairs: list[_Pair], level: float) -> tuple[float, Interval]:
    """The largest absolute difference, and where it lies with probability `level` given simultaneous intervals."""
    low = max(max(pair.low, -pair.high, 0.0) for _, _, _, pair in pairs)
    high = min(1.0, max(max(pair.high, -pair.low) for _, _, _, pair in pairs))
    return max(abs(found) for _, _, found, _ in pairs), Interval(low, high, level)


def _record(group: _Group, figure: str, level: float) -> dict[str, Any]:
    interval = group.interval(level)
    return {"group": group.name, "n": group.n, figure: group.value, "low": interval.low, "high": interval.high}


def _pair_record(first: str, second: str, found: float, interval: Interval) -> dict[str, Any]:
    return {"first": first, "second": second, "difference": found, "low": interval.low, "high": interval.high}
