"""A lower bound on epsilon: what an attack has shown, with the most that it could have shown.

A training algorithm that is (epsilon, delta)-private limits every attack. So an attack that does better than some
epsilon allows refutes it, at a stated level of confidence; the largest epsilon that is refuted is the lower bound. No
attack can refute more than its number of canaries allows: that resolution cap stands beside each bound, as a bound of 0
under a cap of 1 says nothing of a promise of 8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustnlp import checks
from trustnlp.attacks.membership import finite
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.results import Direction, Finding, Verdict

Array = NDArray[Any]

_PRECISION = 1e-6
_LARGEST = 600.0  # e^600 is a number, e^710 is none


@dataclass(frozen=True)
class LowerBound:
    """The training is not (epsilon', delta)-private for any epsilon' < `epsilon`, with confidence `level`.

    Args:
        epsilon: >= 0; 0 where nothing was shown.
        cap: the bound that a perfect attack would have given in the same design.
        level: in (0, 1): of trainings that keep their promise, at most 1 - level get a bound above it.
        delta: in [0, 1).
        n: canaries or scores that it rests on.
        method: kebab-case, such as `one-run-binomial`.
        details: what else explains it; JSON values.
        assumes: what it takes for granted beyond its design; empty where nothing.
        source: paper and equation.

    Raises:
        ArgumentError: a field breaks its rule.
        GuaranteeError: a bound above its cap.
    """

    epsilon: float
    cap: float
    level: float
    delta: float
    n: int
    method: str
    details: Mapping[str, Any] = field(default_factory=dict)
    assumes: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        checks.non_negative("epsilon", self.epsilon)
        checks.non_negative("cap", self.cap)
        checks.inside("level", self.level, 0, 1)
        checked_delta(self.delta)
        checks.at_least("n", self.n, 1)
        if self.epsilon > self.cap + 1e-3:
            raise GuaranteeError(f"a bound of {self.epsilon:g} is above its cap of {self.cap:g}")

    def finding(self, name: str = "") -> Finding:
        """Finding `epsilon-lower-bound-{name}`, by default named after the method; lower is better, ideal 0.

        It is `measured`: whether the bound is a concern depends on what was promised, which the ladder knows.

        Args:
            name: kebab-case; where one model has several bounds by one method.
        """
        details: dict[str, Any] = {"resolution_cap": self.cap, "delta": self.delta, **self.details}
        if self.assumes:
            details["assumes"] = self.assumes
        return Finding(
            f"epsilon-lower-bound-{name or self.method}",
            f"Lower bound on epsilon ({(name or self.method).replace('-', ' ')})",
            self.epsilon,
            level=self.level,
            n=self.n,
            unit="epsilon",
            direction=Direction.LOWER,
            ideal=0.0,
            verdict=Verdict.MEASURED,
            source=self.source,
            details=details,
        )


def largest_rejected(rejects: Callable[[float], bool]) -> float:
    """The largest strength >= 0 that is rejected, to 1e-6 from below; 0 where even 0 is not.

    Args:
        rejects: is a claim of this strength rejected? True up to some strength, False from there on.
    """
    if not rejects(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while rejects(high) and high < _LARGEST:
        low, high = high, 2 * high
    while high - low > _PRECISION:
        middle = (low + high) / 2
        low, high = (middle, high) if rejects(middle) else (low, middle)
    return low


def untied(scores: Array, generator: np.random.Generator) -> Array:
    """The places of the scores in ascending order, (n,), tied scores in random order.

    Random, as the order in which canaries are listed may tell which ones were included.
    """
    places = np.empty(len(scores), dtype=np.int64)
    places[np.lexsort((generator.random(len(scores)), scores))] = np.arange(len(scores))
    return places


def finite_scores(name: str, values: ArrayLike) -> Array:
    """`values` as an array, (n,) with n >= 2.

    Raises:
        ArgumentError: not a list of at least two numbers.
        GuaranteeError: a score is NaN or infinite.
    """
    array = finite(name, values)
    if len(array) < 2:
        raise ArgumentError(name, "at least two scores", len(array))
    return array


def checked_delta(delta: float) -> float:
    """`delta`, in [0, 1)."""
    if checks.within("delta", delta, 0, 1) == 1:
        raise ArgumentError("delta", "a number with 0 <= delta < 1", delta)
    return delta
