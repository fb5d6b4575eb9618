"""A private quantile of one number per device, by binary search on noised votes.

    threshold t ─> every device votes [x <= t] - q ─> noised sum above 0: the quantile is at most t

A vote lies in [-q, 1 - q], so one device moves the sum by max(q, 1 - q) at most, and no device's number leaves it. Each
step halves the public range and spends a share of the budget; the search of Smith 2011 (STOC) needs one release but a
server that sees all numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from trustnlp import checks
from trustnlp.errors import ArgumentError
from trustnlp.federated.private_sum import Guarantee, PrivateSum
from trustnlp.randomness import Streams
from trustnlp.uncertainty import Interval


@dataclass(frozen=True)
class QuantileEstimate:
    """A released quantile.

    Args:
        value: the middle of what is left of the range.
        interval: covers the quantile of the devices that were asked; the range itself where votes could not tell.
        guarantee: what it costs.
    """

    value: float
    interval: Interval
    guarantee: Guarantee


@dataclass(frozen=True)
class PrivateQuantile:
    """How a quantile is found.

    Guarantee: that of `PrivateSum` with one release a step, for one device, under adding or removing it.

    Args:
        quantile: q in (0, 1): the least number that at least this share of the devices does not exceed.
        low, high: a public range; what lies outside counts as its end.
        summing: with a bound of max(q, 1 - q) and one release for each step.

    Raises:
        ArgumentError: a field breaks its rule.
    """

    quantile: float
    low: float
    high: float
    summing: PrivateSum

    def __post_init__(self) -> None:
        checks.inside("quantile", self.quantile, 0, 1)
        checks.positive("high - low", self.high - self.low)
        if self.summing.bound != max(self.quantile, 1 - self.quantile) or self.summing.kind != "gaussian":
            raise ArgumentError("summing", "Gaussian with a bound of max(q, 1 - q)", self.summing)

    @classmethod
    def for_budget(
        cls, epsilon: float, delta: float, quantile: float, low: float, high: float, steps: int = 10
    ) -> PrivateQuantile:
        """The one with the least noise that spends at most `epsilon` at `delta` in `steps` halvings of the range."""
        checks.inside("quantile", quantile, 0, 1)
        bound = max(quantile, 1 - quantile)
        return cls(quantile, low, high, PrivateSum.for_budget(epsilon, delta, bound, releases=steps))

    def vote(self, value: float, threshold: float) -> float:
        """What a device sends that has `value`: [value <= threshold] - q; a NaN counts as above."""
        return float(value <= threshold) - self.quantile

    def estimate(self, values: ArrayLike, streams: Streams, level: float = 0.95) -> QuantileEstimate:
        """The quantile of (n,) numbers, one from each device."""
        numbers = np.asarray(values, dtype=float)
        return self.search(
            lambda threshold: float((numbers <= threshold).sum() - self.quantile * len(numbers)), streams, level
        )

    def search(self, votes: Callable[[float], float], streams: Streams, level: float = 0.95) -> QuantileEstimate:
        """The quantile by sums of votes.

        Args:
            votes: threshold -> sum of the devices' votes, each device once; asked once a step.
            streams: of the noise; another one, or a child, for every query.
            level: coverage of the interval, of all steps at once.
        """
        own = streams.child("private quantile")
        left, right = self.low, self.high
        surely_above, surely_below = self.low, self.high
        for step in range(self.summing.releases):
            middle = (left + right) / 2
            noisy = self.summing.release([votes(middle)], own, step)
            total, margin = float(noisy.values[0]), noisy.margin(level, self.summing.releases)
            left, right = (left, middle) if total >= 0 else (middle, right)
            if total > margin:
                surely_below = min(surely_below, middle)
            elif total < -margin:
                surely_above = max(surely_above, middle)
        ends = sorted((surely_above, surely_below))
        value = min(max((left + right) / 2, ends[0]), ends[1])
        return QuantileEstimate(value, Interval(ends[0], ends[1], level), self.summing.guarantee())
