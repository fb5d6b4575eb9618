"""Poisson sampling of devices by activity, for user-level privacy: each takes part by itself, at a known rate.

An accountant needs exactly this: q_k of every device, draws that are independent of each other, weights that do not
depend on who else was drawn (a fixed denominator), so that one device more or less moves the sum by one update.

Devices are drawn in stretches whose rates differ by less than two: a binomial number of them at the highest rate of the
stretch, each kept with the ratio of its own rate to that. It is exact, and costs O(m) for any number of devices and of
distinct sizes.

Shape legend: K devices, D distinct sizes, m of an expected cohort.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from trustnlp import checks
from trustnlp.federated.cohort import Cohort, PlainSelector, Request
from trustnlp.federated.size_classes import Floats, SizeClasses, activity


@dataclass(frozen=True)
class PoissonActivity:
    """Each device takes part independently with probability q_k = min(1, m p_k), p_k as for `Activity`; weights 1/m.

    The size of a cohort is random, with mean m where no rate is capped at 1, and 0 now and then: an empty round is a
    round like any other. Weights are 1/m however many were drawn, and must stay so whoever drops out.

    With gamma 1 and no mixture the mean step is that of the FedAvg objective as long as no rate is capped, which the
    rule cannot promise for every population; `rates(...).unbiased` of its selector tells for one.

    Args:
        gamma: >= 0; 0 gives every device the rate m / K.
        mix: in [0, 1], the share of uniform rates.
    """

    gamma: float = 1.0
    mix: float = 0.0

    def __post_init__(self) -> None:
        checks.non_negative("gamma", self.gamma)
        checks.within("mix", self.mix, 0, 1)

    @property
    def unbiased(self) -> bool:
        """Not for every population, see above."""
        return False

    def begin(self, sizes: NDArray[np.int64]) -> PoissonSelector:
        """See `Selection`; what it gives also tells the `rates`."""
        return PoissonSelector(self, sizes)


@dataclass(frozen=True, eq=False)
class Rates:
    """With which probability devices take part in a round, by their number of texts.

    Args:
        sizes: (D,) distinct numbers of texts, ascending.
        devices: (D,) how many devices have so many.
        rates: (D,) q in [0, 1] of each of these; not falling.
        cohort: m, the fixed denominator.
    """

    sizes: NDArray[np.int64]
    devices: NDArray[np.int64]
    rates: Floats
    cohort: int

    @property
    def expected(self) -> float:
        """How many devices a round has on average: m, less what the cap at 1 takes away."""
        return float((self.devices * self.rates).sum())

    @property
    def largest(self) -> float:
        """The rate that an accountant must assume if it speaks for all devices."""
        return float(self.rates[-1])

    @property
    def unbiased(self) -> bool:
        """Whether q_k / m = n_k / n of every device, up to rounding: the mean step is that of the FedAvg objective."""
        target = self.sizes / (self.sizes * self.devices).sum()
        return bool(np.allclose(self.rates / self.cohort, target, rtol=1e-9, atol=0))

    def of(self, sizes: NDArray[np.int64]) -> Floats:
        """The rates of devices of these sizes, in their shape; 0 of those without texts, which never take part.

        Of all sizes of the population it is (K,), as an accountant of single devices takes it.
        """
        place = np.minimum(np.searchsorted(self.sizes, sizes), len(self.sizes) - 1)
        return np.asarray(np.where(self.sizes[place] == sizes, self.rates[place], 0.0))


class PoissonSelector(PlainSelector):
    """`PoissonActivity` at work on one population."""

    def __init__(self, rule: PoissonActivity, sizes: NDArray[np.int64]) -> None:
        self._classes = SizeClasses.of(sizes)
        self._probabilities = activity(self._classes, rule.gamma, rule.mix)
        self._last: tuple[Rates, NDArray[np.int64]] | None = None

    def rates(self, cohort: int) -> Rates:
        """What an accountant needs to know of rounds with an expected cohort of `cohort`."""
        return self._prepared(cohort)[0]

    def choose(self, request: Request) -> Cohort:
        """A draw; devices that are not available are left out of it, so that nobody's rate goes up."""
        (known, edges), starts, generator = self._prepared(request.cohort), self._classes.starts, request.generator
        drawn = []
        for first, beyond in pairwise(edges):
            members, highest = int(starts[beyond] - starts[first]), known.rates[beyond - 1]
            count = generator.binomial(members, highest)
            places = starts[first] + generator.choice(members, count, replace=False, shuffle=False)
            own = known.rates[np.searchsorted(starts, places, side="right") - 1]
            drawn.append(places[generator.random(count) * highest < own])
        devices = np.sort(self._classes.devices(np.concatenate(drawn)))
        devices = devices[request.there(devices)]
        return Cohort(devices, np.full(len(devices), 1 / request.cohort))

    def _prepared(self, cohort: int) -> tuple[Rates, NDArray[np.int64]]:
        """Rates, and where the stretches of classes of one binary exponent begin; kept for next time."""
        if self._last is None or self._last[0].cohort != cohort:
            rates = np.minimum(1.0, checks.at_least("cohort", cohort, 1) * self._probabilities)
            exponents = np.frexp(rates)[1]  # rates do not fall with size, so those of one exponent lie side by side
            edges = np.flatnonzero(np.diff(exponents, prepend=exponents[0] - 1, append=exponents[-1] + 1))
            self._last = Rates(self._classes.sizes, self._classes.counts, rates, cohort), edges
        return self._last
