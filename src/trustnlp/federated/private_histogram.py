"""Private histograms: how many devices have something in each bucket, by one noised sum.

Buckets are public: the answers of a list, intervals of a number, hashes. A device counts in `most` buckets at most,
once in each, so that its vector has norm sqrt(most) at most.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trustnlp import checks
from trustnlp.errors import ArgumentError
from trustnlp.federated.private_sum import Guarantee, PrivateSum
from trustnlp.randomness import Streams

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Histogram:
    """Released counts.

    Args:
        counts: (d,) devices in each bucket, with noise; may be negative.
        margin: half the width of intervals that cover all d counts at once with probability `level`.
        level: in (0, 1).
        guarantee: what it costs.
    """

    counts: Array = field(repr=False)
    margin: float
    level: float
    guarantee: Guarantee

    def intervals(self) -> Array:
        """(d, 2) of each count: without noise, it is at least 0."""
        ends = np.stack([self.counts - self.margin, self.counts + self.margin], axis=1)
        return np.maximum(ends, 0.0)


@dataclass(frozen=True)
class PrivateHistogram:
    """How a histogram is made.

    Guarantee: that of `PrivateSum` for one device, under adding or removing it.

    Args:
        buckets: d.
        summing: with a bound of sqrt(most) or less.
        most: in how many buckets a device may count.

    Raises:
        ArgumentError: a field breaks its rule, or a bound that would cut off what a device may count.
    """

    buckets: int
    summing: PrivateSum
    most: int = 1

    def __post_init__(self) -> None:
        checks.at_least("buckets", self.buckets, 1)
        checks.at_least("most", self.most, 1)
        if self.summing.bound != math.sqrt(self.most):
            rule = f"with a bound of sqrt(most) = {math.sqrt(self.most):.6g}"
            raise ArgumentError("summing", rule, self.summing.bound)

    @classmethod
    def for_budget(
        cls, epsilon: float, delta: float, buckets: int, most: int = 1, kind: str = "gaussian"
    ) -> PrivateHistogram:
        """The one with the least noise that spends at most `epsilon` at `delta`."""
        bound = math.sqrt(checks.at_least("most", most, 1))
        return cls(buckets, PrivateSum.for_budget(epsilon, delta, bound, kind=kind), most)

    def vector(self, items: Sequence[int], generator: np.random.Generator | None = None) -> Array:
        """(d,) what a device sends: 1 for each of its distinct buckets, or for `most` of them.

        Args:
            items: numbers of buckets, 0 to d - 1, as often as they come.
            generator: chooses among more than `most`, all as likely; the lowest ones without it.

        Raises:
            ArgumentError: a number of no bucket.
        """
        chosen = np.unique(np.asarray(items, dtype=np.int64))
        if len(chosen) and not 0 <= chosen[0] <= chosen[-1] < self.buckets:
            raise ArgumentError("items", f"numbers of buckets from 0 to {self.buckets - 1}", "another")
        if len(chosen) > self.most:
            chosen = chosen[: self.most] if generator is None else generator.choice(chosen, self.most, replace=False)
        found = np.zeros(self.buckets)
        found[chosen] = 1.0
        return found

    def release(self, vectors: Iterable[Array], streams: Streams, level: float = 0.95) -> Histogram:
        """The histogram of all devices' vectors, which are bounded once more, as no device is trusted."""
        noisy = self.summing.release(self.summing.total(vectors), streams.child("private histogram"))
        return Histogram(noisy.values, noisy.margin(level, self.buckets), level, self.summing.guarantee())
