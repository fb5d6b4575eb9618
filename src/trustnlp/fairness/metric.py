"""The contract of every fairness metric: what it declares, and the one rule by which it is judged.

A metric is a figure with an ideal value. It is judged by the **confidence-interval inclusion rule** (Westlake 1972; as
two one-sided tests: Schuirmann 1987, J. Pharmacokinetics and Biopharmaceutics 15:657-680), with a margin m set
beforehand, below which a deviation is of no consequence:

    interval inside [ideal - m, ideal + m]        fair within margin       wrong in at most (1 - level)/2 of the cases
                                                                           in which the deviation is m or more
    else, interval excludes the ideal             disparity                wrong in at most 1 - level of the cases
                                                                           in which there is none
    else                                          insufficient evidence    too few data to tell

So a proven but negligible gap is fair, a gap that was merely not seen is not, and one whose size is in doubt but whose
existence is not counts as a disparity. Both error rates hold as far as the interval covers: always for exact
intervals, nearly for approximate ones.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trustnlp import checks
from trustnlp.errors import ArgumentError
from trustnlp.results import Direction, Finding, Verdict
from trustnlp.uncertainty import Interval, effective_units

RULE = "confidence-interval inclusion"
# Below these a group or a set of texts is not judged: its interval would be too wide to say anything.
MINIMUM_TEXTS = 30
MINIMUM_USERS = 5
ENOUGH = f"{MINIMUM_TEXTS} texts that weigh as much as {MINIMUM_USERS} users"


class Notion(StrEnum):
    """What a metric takes fairness to be; figures of two notions are not comparable."""

    ASSOCIATION = "association"
    STEREOTYPE = "stereotype"
    SENTIMENT = "sentiment"
    TOXICITY = "toxicity"
    POLARITY = "polarity"
    REGARD = "regard"
    GROUP_PERFORMANCE = "group performance"
    SENSITIVITY = "sensitivity"


@dataclass(frozen=True)
class Scope:
    """What one measurement is about.

    Args:
        protected_group: whose treatment is compared, such as "gender".
        dataset: what it is measured on.
        margin: the deviation from the ideal that is of no consequence, > 0, in the metric's unit.

    Raises:
        ArgumentError: margin <= 0.
    """

    protected_group: str
    dataset: str
    margin: float

    def __post_init__(self) -> None:
        checks.positive("margin", self.margin, "a margin of 0 could never be met")


@dataclass(frozen=True)
class Metric:
    """What is the same in every measurement of one fairness metric.

    Args:
        id, title, direction, ideal, source, unit: as in `Finding`.
        notion: what the metric takes fairness to be.
    """

    id: str
    title: str
    notion: Notion
    ideal: float
    direction: Direction
    source: str
    unit: str = "fraction"

    def finding(
        self,
        scope: Scope,
        value: float,
        interval: Interval,
        *,
        n: int,
        minimum_detectable_effect: float | None,
        excess: Interval | None = None,
        details: Mapping[str, Any],
    ) -> Finding:
        """The finding of a measured figure, with its verdict.

        Args:
            scope: what was measured.
            value, interval: the estimate and its interval, in this metric's unit.
            n: how many independent units it rests on.
            minimum_detectable_effect: see the function of that name; None if no effect could have been detected.
            excess: see `judge`.
            details: whatever else explains the figure.
        """
        return self._finding(
            scope,
            {"minimum_detectable_effect": minimum_detectable_effect, **details},
            value=value,
            low=interval.low,
            high=interval.high,
            level=interval.level,
            n=n,
            verdict=judge(interval, self.ideal, scope.margin, excess),
        )

    def unmeasured(self, scope: Scope, reason: str, *, n: int, details: Mapping[str, Any]) -> Finding:
        """The finding of a figure for which there are too few data; the reason is in its details."""
        told = {"minimum_detectable_effect": None, "reason": reason, **details}
        return self._finding(scope, told, value=None, n=n, verdict=Verdict.INSUFFICIENT_EVIDENCE)

    def _finding(self, scope: Scope, details: Mapping[str, Any], **measured: Any) -> Finding:
        declared = {"notion": self.notion.value, "rule": RULE, **asdict(scope)}
        return Finding(
            id=self.id,
            title=f"{self.title} ({scope.protected_group})",
            unit=self.unit,
            direction=self.direction,
            ideal=self.ideal,
            source=self.source,
            details={**declared, **details},
            **measured,
        )


def judge(interval: Interval, ideal: float, margin: float, excess: Interval | None = None) -> Verdict:
    """The verdict of the confidence-interval inclusion rule, see the head of this module.

    Args:
        interval: of the metric.
        ideal: its best value.
        margin: as in `Scope`.
        excess: for metrics that exceed their ideal without any unfairness (a share of changed answers is never below
            0): the interval of what exceeds an unfairness-free control. It then decides on disparity, by lying above 0.
    """
    if ideal - margin <= interval.low and interval.high <= ideal + margin:
        return Verdict.FAIR_WITHIN_MARGIN
    unfair = ideal not in interval if excess is None else excess.low > 0
    return Verdict.DISPARITY if unfair else Verdict.INSUFFICIENT_EVIDENCE


def minimum_detectable_effect(interval: Interval, power: float = 0.8) -> float:
    """The true deviation that data like these would have shown (interval excludes the ideal) with probability `power`.

    From the half width h of the interval: h (1 + z_power / z_level). Normal approximation, and the variance is taken
    to be the same at the deviation as it was observed. Lower is better.
    """
    checks.inside("power", power, 0, 1)
    half = (interval.high - interval.low) / 2
    return float(half * (1 + stats.norm.ppf(power) / stats.norm.ppf(0.5 + interval.level / 2)))


def units(n: int, clusters: Sequence[Hashable | None] | None) -> list[Hashable]:
    """The independent unit that each of `n` texts belongs to: its user, or the text itself where that is unknown.

    Raises:
        ArgumentError: not one user (or None) per text.
    """
    users = [None] * n if clusters is None else clusters
    if len(users) != n:
        raise ArgumentError("clusters", f"one user or None per text ({n})", len(users))
    return [("text", row) if user is None else ("user", user) for row, user in enumerate(users)]


def is_enough(sizes: NDArray[np.float64], users: Sequence[Hashable]) -> bool:
    """Whether texts of these sizes and units are enough to be judged: `ENOUGH`."""
    weight: dict[Hashable, float] = {}
    for user, size in zip(users, sizes, strict=True):
        weight[user] = weight.get(user, 0.0) + size
    return len(sizes) >= MINIMUM_TEXTS and effective_units(list(weight.values())) >= MINIMUM_USERS
