"""Trade-off curves: how well any test may tell "was in the training data" from "was not" under a privacy claim.

A claim of strength s bounds every test's true-positive rate by a curve of its false-positive rate, `power(fpr, s)`,
which grows with s. An audit looks for the largest s that its data reject.

    ApproximateDP   any (epsilon, delta)-private mechanism; s is epsilon; assumes nothing
    GaussianDP      mechanisms as hard to attack as N(0, 1) against N(mu, 1); s is mu

The second is the sharper one where it holds: full-batch noise, and DP-SGD of many steps approximately. A mechanism of
another shape can be (epsilon, delta)-private and yet not mu-Gaussian for the mu of that epsilon, so a bound by it is a
bound on epsilon only under that assumption, which goes with it as `assumes`.

Source: Dong, Roth and Su 2019, "Gaussian Differential Privacy", arXiv:1905.02383, equations 4 and 6, corollary 2.13.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from trustnlp import checks

Array = NDArray[Any]


class Curve(Protocol):
    """A family of symmetric trade-off curves, one a strength >= 0, at a fixed delta."""

    assumes: ClassVar[str]  # what it takes for granted of the mechanism; empty where nothing

    def power(self, fpr: Array, strength: float) -> Array:
        """The largest true-positive rate at these false-positive rates, each in [0, 1]."""

    def inverse(self, tpr: float, strength: float) -> float:
        """The smallest false-positive rate at a true-positive rate in [0, 1]."""

    def epsilon(self, strength: float) -> float:
        """The epsilon that the strength stands for, at the family's delta."""


@dataclass(frozen=True)
class ApproximateDP:
    """All (epsilon, delta)-private mechanisms: TPR <= min(e^eps FPR + delta, 1 - e^-eps (1 - delta - FPR)).

    Args:
        delta: in [0, 1).
    """

    delta: float
    assumes: ClassVar[str] = ""

    def power(self, fpr: Array, strength: float) -> Array:
        """See `Curve`."""
        up, down = math.exp(min(strength, 700)), math.exp(-strength)
        return np.clip(np.minimum(self.delta + up * fpr, 1 - down * (1 - self.delta - fpr)), 0, 1)

    def inverse(self, tpr: float, strength: float) -> float:
        """See `Curve`."""
        up, down = math.exp(min(strength, 700)), math.exp(-strength)
        return max(down * (tpr - self.delta), 1 - self.delta - up * (1 - tpr), 0.0)

    def epsilon(self, strength: float) -> float:
        """The strength itself."""
        return strength


@dataclass(frozen=True)
class GaussianDP:
    """Gaussian mechanisms: TPR <= Phi(Phi^-1(FPR) + mu).

    Args:
        delta: in (0, 1); without one, no such mechanism has a finite epsilon.
    """

    delta: float
    assumes: ClassVar[str] = "a Gaussian trade-off curve"

    def __post_init__(self) -> None:
        checks.inside("delta", self.delta, 0, 1, "a Gaussian curve has no finite epsilon at delta = 0")

    def power(self, fpr: Array, strength: float) -> Array:
        """See `Curve`."""
        return np.asarray(special.ndtr(special.ndtri(fpr) + strength))

    def inverse(self, tpr: float, strength: float) -> float:
        """See `Curve`."""
        return float(special.ndtr(special.ndtri(tpr) - strength))

    def epsilon(self, strength: float) -> float:
        """The smallest epsilon at which a mu-Gaussian mechanism is (epsilon, delta)-private."""
        return gaussian_epsilon(strength, self.delta)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The epsilon of a mu-Gaussian mechanism at `delta`: the root of delta(eps), below.

    delta(eps) = Phi(-eps / mu + mu / 2) - e^eps Phi(-eps / mu - mu / 2), in logs, so that tiny deltas keep their
    digits.

    Raises:
        ArgumentError: mu < 0, delta outside (0, 1).
    """
    checks.non_negative("mu", mu)
    checks.inside("delta", delta, 0, 1)

    def excess(epsilon: float) -> float:
        first = special.log_ndtr(-epsilon / mu + mu / 2)
        second = epsilon + special.log_ndtr(-epsilon / mu - mu / 2)
        return float(first + np.log(-np.expm1(min(second - first, -1e-300)))) - math.log(delta)

    if mu == 0 or excess(0.0) <= 0:
        return 0.0
    high = 1.0
    while excess(high) > 0:
        high *= 2
    return float(optimize.brentq(excess, 0.0, high, xtol=1e-10))
