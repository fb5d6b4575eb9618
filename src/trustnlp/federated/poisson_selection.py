"""Poisson selection: every device enters a round independently, with a probability of its own.

The one way of drawing cohorts whose privacy amplification is known for unequal probabilities (`user_privacy`).

Shape legend: K devices.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustnlp import checks
from trustnlp.errors import ArgumentError
from trustnlp.randomness import Streams


class PoissonSelection:
    """Draws of devices, each entering a round independently with its own probability.

    A rate is a function of public constants and of the device's own data: rates that are scaled so that they sum to a
    given cohort depend on all devices, and that sum is then treated as public. Devices are kept in classes of rates
    within a factor of 2, in which candidates are drawn at the class's largest rate and kept with q_k / that rate; so
    a draw takes time in proportion to the cohort and not to K.

    Args:
        rates: (K,) q_k in [0, 1], not all 0.

    Raises:
        ArgumentError: a rate is out of range.
    """

    def __init__(self, rates: ArrayLike) -> None:
        self.rates: NDArray[np.float64] = np.array(rates, dtype=np.float64)
        if self.rates.ndim != 1 or not ((self.rates >= 0) & (self.rates <= 1)).all() or not self.rates.any():
            raise ArgumentError("rates", "(K,) probabilities from 0 to 1, not all 0", self.rates.shape)
        able = np.flatnonzero(self.rates)
        exponents = np.frexp(self.rates[able])[1]  # 2^(e - 1) <= q < 2^e
        order = np.argsort(exponents, kind="stable")
        self._classes = np.split(able[order], np.flatnonzero(np.diff(exponents[order])) + 1)
        self._tops = [float(self.rates[members].max()) for members in self._classes]

    def draw(self, round: int, streams: Streams) -> NDArray[np.int64]:
        """The devices of `round`, in ascending order; may be none. Uses the stream `selection`."""
        generator = streams.numpy("selection", checks.at_least("round", round, 0))
        drawn = []
        for members, top in zip(self._classes, self._tops, strict=True):
            count = int(generator.binomial(len(members), top))
            candidates = members[generator.choice(len(members), count, replace=False, shuffle=False)]
            drawn.append(candidates[generator.random(count) * top < self.rates[candidates]])
        return np.sort(np.concatenate(drawn))
