"""Device selection by activity, the number n_k of a device's texts, each rule with the weights that belong to it.

    rule                            draws                                    weights             unbiased
    Uniform                         m distinct devices, evenly               n_k in the cohort   no: a ratio of sums
    Uniform(equal)                  the same                                 1 / m               no: every device equal
    Uniform(importance)             the same                                 K n_k / (n m)       yes
    Activity(gamma)                 m draws, p_k ~ n_k^gamma                 1 / m a draw        gamma = 1, mix = 0
    Activity(gamma, importance)     the same                                 n_k / (n m p_k)     yes
    Activity(gamma, samples)        the same                                 n_k in the cohort   no: n_k^(1 + gamma)
    Log                             m draws, p_k ~ log(1 + n_k)              as Activity         importance only
    TopK                            the m with the most texts                1 / m or n_k        no: always the same
    PoissonActivity                 each with min(1, m p_k)                  1 / m               see there
    Oort, PowerOfChoice             by loss and speed; by loss               1 / m or n_k; 1/m   no

`unbiased` is exact, for every population (`cohort`). FedAvg's own weights, n_k over the sum of the cohort, are a ratio
of two random sums and unbiased only in the limit of a large cohort.

With p_k ~ n_k and equal weights a device's probability already counts its texts (multinomial sampling: Fraboni et al.,
arXiv 2107.12211); weights by n_k on top count them twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from trustnlp import checks
from trustnlp.federated import options
from trustnlp.federated.cohort import Cohort, PlainSelector, Request, Selection, Selector, shares
from trustnlp.federated.oort import Oort
from trustnlp.federated.poisson_activity import PoissonActivity
from trustnlp.federated.power_of_choice import PowerOfChoice
from trustnlp.federated.size_classes import Draws, Floats, SizeClasses, activity, even

__all__ = [
    "Activity",
    "Cohort",
    "Log",
    "Oort",
    "PoissonActivity",
    "PowerOfChoice",
    "Selection",
    "Selector",
    "TopK",
    "Uniform",
    "parse",
]

WEIGHTINGS = ("equal", "samples", "importance")


@dataclass(frozen=True)
class Uniform:
    """`cohort` distinct devices, all as likely; fewer where fewer are available.

    Args:
        weighting: `samples`, n_k over the cohort's texts, as FedAvg has it (arXiv 1602.05629, algorithm 1); `equal`,
            1/m, which aims at the mean over devices instead of texts; `importance`, K n_k / (n m), which is unbiased
            and whose sum varies from round to round (arXiv 2107.12211, uniform sampling).
    """

    weighting: str = "samples"

    def __post_init__(self) -> None:
        checks.one_of("weighting", self.weighting, WEIGHTINGS)

    @property
    def unbiased(self) -> bool:
        """With importance weights."""
        return self.weighting == "importance"

    def begin(self, sizes: NDArray[np.int64]) -> Selector:
        """See `Selection`."""
        return _Drawn(sizes, even, self.weighting, distinct=True)


@dataclass(frozen=True)
class Activity:
    """`cohort` independent draws with p_k proportional to n_k^gamma; a device drawn twice has both shares.

    Args:
        gamma: >= 0; 0 is uniform with replacement, 1 proportional to activity.
        weighting: `equal`, 1/m a draw, which with gamma 1 is exactly unbiased (arXiv 2107.12211, multinomial sampling);
            `importance`, n_k / (n m p_k), which always is, and whose sum varies from round to round; `samples`, n_k
            over the cohort's texts, which counts a device's texts as n_k^(1 + gamma): n_k^2 with gamma 1. That is for
            studies of what it does to light users, and no rule to train by.
        mix: in [0, 1], the share of draws that is uniform instead.
    """

    gamma: float = 1.0
    weighting: str = "equal"
    mix: float = 0.0

    def __post_init__(self) -> None:
        checks.non_negative("gamma", self.gamma)
        checks.one_of("weighting", self.weighting, WEIGHTINGS)
        checks.within("mix", self.mix, 0, 1)

    @property
    def unbiased(self) -> bool:
        """With importance weights, or with equal ones at gamma 1 and no mixture."""
        return self.weighting == "importance" or (self.weighting, self.gamma, self.mix) == ("equal", 1, 0)

    def begin(self, sizes: NDArray[np.int64]) -> Selector:
        """See `Selection`."""
        return _Drawn(sizes, partial(activity, gamma=self.gamma, mix=self.mix), self.weighting)


@dataclass(frozen=True)
class Log:
    """`cohort` independent draws with p_k proportional to log(1 + n_k), between uniform and `Activity`.

    Args:
        weighting: as for `Activity`; unbiased with `importance` alone.
    """

    weighting: str = "equal"

    def __post_init__(self) -> None:
        checks.one_of("weighting", self.weighting, WEIGHTINGS)

    @property
    def unbiased(self) -> bool:
        """With importance weights."""
        return self.weighting == "importance"

    def begin(self, sizes: NDArray[np.int64]) -> Selector:
        """See `Selection`."""
        return _Drawn(sizes, lambda classes: np.log1p(classes.sizes), self.weighting)


@dataclass(frozen=True)
class TopK:
    """The `cohort` available devices with the most texts; of equals, those with the lower numbers.

    Biased by design: as long as they are available, nobody else is ever heard.

    Args:
        weighting: `equal` or `samples`. There are no importance weights, as devices that are never chosen have none.
    """

    weighting: str = "equal"

    def __post_init__(self) -> None:
        checks.one_of("weighting", self.weighting, ("equal", "samples"))

    @property
    def unbiased(self) -> bool:
        """Never."""
        return False

    def begin(self, sizes: NDArray[np.int64]) -> Selector:
        """See `Selection`."""
        return _Top(sizes, self.weighting)


RULES: dict[str, type[Selection]] = {
    "uniform": Uniform,
    "activity": Activity,
    "log": Log,
    "top-k": TopK,
    "poisson-activity": PoissonActivity,
    "oort": Oort,
    "power-of-choice": PowerOfChoice,
}


def parse(text: str) -> Selection:
    """The rule that a command line writes, such as `activity:gamma=1,weighting=equal` or `power-of-choice:d=100`.

    Raises:
        ArgumentError: no such rule or option, or a value that breaks its rule.
    """
    return options.named("selection", text, RULES)


class _Drawn(PlainSelector):
    """Draws by a measure of activity, independent or without replacement, and their weights."""

    def __init__(
        self,
        sizes: NDArray[np.int64],
        measure: Callable[[SizeClasses], Floats],
        weighting: str,
        distinct: bool = False,
    ) -> None:
        classes = SizeClasses.of(sizes)
        self._sizes, self._weighting, self._distinct = sizes, weighting, distinct
        self._draws = Draws(classes, measure(classes))

    def choose(self, request: Request) -> Cohort:
        draw = self._draws.distinct if self._distinct else self._draws.draw
        drawn = draw(request.cohort, request.generator, request.available)
        devices, times = np.unique(drawn, return_counts=True)
        sizes = self._sizes[devices]
        if self._weighting != "importance":
            return Cohort(devices, shares(self._weighting, times, sizes))
        importance = self._draws.importance(sizes, request.available)
        return Cohort(devices, shares("equal", times, sizes) * importance)


class _Top(PlainSelector):
    """The most active devices."""

    def __init__(self, sizes: NDArray[np.int64], weighting: str) -> None:
        classes = SizeClasses.of(sizes)
        self._sizes, self._weighting = sizes, weighting
        descending = np.argsort(np.repeat(-classes.sizes, classes.counts), kind="stable")
        self._order = classes.devices(descending)

    def choose(self, request: Request) -> Cohort:
        there, seen = np.empty(0, np.int64), 0
        while len(there) < request.cohort and seen < len(self._order):  # twice as far until there are enough
            seen = 2 * seen or request.cohort
            there = self._order[:seen][request.there(self._order[:seen])][: request.cohort]
        devices = np.sort(there)
        return Cohort(devices, shares(self._weighting, np.ones(len(devices)), self._sizes[devices]))
