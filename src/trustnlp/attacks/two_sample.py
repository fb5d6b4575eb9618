"""Two-sample lower bound on epsilon: scores of many trainings with a canary against many without.

Every score comes from a training of its own (or a release of its own), so scores are independent; canaries that share
one training are for `one_run`. For a threshold, (epsilon, delta)-privacy limits the true-positive rate (TPR) that goes
with a false-positive rate (FPR), and the true-negative rate that goes with a false-negative rate.

The threshold is the (k+1)-th highest score without canary: k of n are false positives. k is fixed before looking, which
makes the FPR's distribution known whatever that of the scores: Beta(k+1, n-k). Two analyses start from there:

    clopper-pearson   eps >= ln((TPR_low - delta) / FPR_high), half of the error for either end
    joint             the p-value of at least so many hits, averaged over the Beta: exact, so larger bounds. Also with
                      a Gaussian curve (`gaussian`)

A best k among several must be paid for: all tests at 1 / (number of tests) of the error (`bonferroni`), or the best of
one half of the scores, tested on the other (`split`). An unpaid choice raises false alarms in 9% and more of runs.

Source: Jagielski, Ullman and Oprea 2020, "Auditing Differentially Private Machine Learning", arXiv:2006.07709 (bound by
two intervals); Wilks 1941, Annals of Mathematical Statistics 12:91-96 (distribution of the FPR at a rank).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from trustnlp import checks
from trustnlp.attacks.lower_bound import Array, LowerBound, checked_delta, finite_scores, largest_rejected, untied
from trustnlp.attacks.trade_off import ApproximateDP, Curve, GaussianDP

Analysis = Literal["joint", "clopper-pearson", "gaussian"]
Correction = Literal["bonferroni", "split"]

SOURCE = "Jagielski et al. 2020, arXiv:2006.07709"
_NODES = 1000


@dataclass(frozen=True)
class Threshold:
    """A threshold that `false` of one side lie beyond, on the side where they should not.

    Args:
        false: k >= 0.
        mirrored: does the threshold come from the lowest scores inside (k false negatives)?
    """

    false: int
    mirrored: bool

    def sides(self, inside: Array, outside: Array) -> tuple[Array, Array]:
        """The side whose hits are counted, and the side that sets the threshold, both with hits upwards."""
        return (-outside, -inside) if self.mirrored else (inside, outside)

    def hits(self, inside: Array, outside: Array) -> int:
        """How many scores lie above the (k+1)-th highest of the other side."""
        counted, setting = self.sides(inside, outside)
        return int((counted > np.sort(setting)[-1 - self.false]).sum())


def lower_bound(
    inside: ArrayLike,
    outside: ArrayLike,
    *,
    delta: float,
    level: float = 0.95,
    correction: Correction = "bonferroni",
    analysis: Analysis = "joint",
    generator: np.random.Generator,
) -> LowerBound:
    """The largest epsilon that these scores refute with confidence `level`.

    Args:
        inside: scores with the canary, (M,), M >= 2, higher = more like "the canary was in"; independent.
        outside: scores without it, (N,), N >= 2; independent.
        delta: in [0, 1); above 0 for `gaussian`.
        level: in (0, 1).
        correction: how the choice of the threshold is paid for.
        analysis: see above.
        generator: orders tied scores and draws the halves.

    Raises:
        ArgumentError: an argument breaks its rule.
        GuaranteeError: a score is NaN or infinite.
    """
    _check(delta, level, correction, analysis)
    sides = finite_scores("inside", inside), finite_scores("outside", outside)
    ranks = untied(np.concatenate(sides), generator)
    members, others = ranks[: len(sides[0])], ranks[len(sides[0]) :]
    error = 1 - level
    if correction == "split":
        (first, members), (second, others) = (_halves(side, generator) for side in (members, others))
        tests = thresholds(len(first), len(second))
        tests = [max(tests, key=lambda test: _bound(test, first, second, error, analysis, delta))]
    else:
        tests = thresholds(len(members), len(others))
        error /= len(tests)
    best = max(tests, key=lambda test: _bound(test, members, others, error, analysis, delta))
    return LowerBound(
        epsilon=_bound(best, members, others, error, analysis, delta),
        cap=cap(len(members), len(others), error, analysis, delta),
        level=level,
        delta=delta,
        n=len(sides[0]) + len(sides[1]),
        method=f"two-sample-{analysis}",
        details=_details(best, members, others, correction, len(tests)),
        assumes=_curve(analysis, delta).assumes,
        source=SOURCE,
    )


def thresholds(inside: int, outside: int) -> list[Threshold]:
    """The tests that are made of so many scores: k = 0, 1, 2, 4, ... up to half of a side, either way round."""
    return [
        Threshold(false, mirrored)
        for mirrored, size in ((False, outside), (True, inside))
        for false in (0, *(2**power for power in range(size.bit_length()) if 2**power <= size // 2))
    ]


def cap(inside: int, outside: int, error: float, analysis: Analysis, delta: float) -> float:
    """The bound where every score inside lies above every score outside, by the better of the two tests with k = 0."""
    return max(
        _bound_of(0, setting, counted, counted, error, analysis, delta)
        for setting, counted in ((outside, inside), (inside, outside))
    )


def p_value(false: int, others: int, hits: int, counted: int, curve: Curve, strength: float) -> float:
    """The probability of at least `hits` of `counted` beyond the threshold, at most, under a claim of this strength.

    The FPR at the (k+1)-th highest of n others is Beta(k+1, n-k); given it, each hit has at most the curve's power.
    The average is a sum over the logit of the FPR, in which the density is a bell; the kink of an (epsilon, delta)
    curve costs up to 0.1% of it.

    Args:
        false, others: k and n.
        hits, counted: how many of how many.
        curve, strength: the claim.
    """
    if hits == 0:
        return 1.0
    rates, weights = _rates(false, others)
    return float(weights @ special.betainc(hits, counted - hits + 1, curve.power(rates, strength)))


@lru_cache(maxsize=1024)
def _rates(false: int, others: int) -> tuple[Array, Array]:
    """Nodes and weights of the false-positive rate, Beta(false + 1, others - false).

    Of the low end, which hardly adds to a p-value, 1e-9 is left out; of the high end, 1e-15.
    """
    a, b = false + 1, others - false
    low, high = special.logit(special.betaincinv(a, b, 1e-9)), -special.logit(special.betaincinv(b, a, 1e-15))
    logits = np.linspace(low, high, _NODES)
    logs = a * special.log_expit(logits) + b * special.log_expit(-logits)  # the density of the logit
    weights = np.exp(logs - logs.max())
    return special.expit(logits), weights / weights.sum()


def _bound(test: Threshold, inside: Array, outside: Array, error: float, analysis: Analysis, delta: float) -> float:
    counted, setting = test.sides(inside, outside)
    return _bound_of(test.false, len(setting), len(counted), test.hits(inside, outside), error, analysis, delta)


@lru_cache(maxsize=65536)
def _bound_of(
    false: int, others: int, counted: int, hits: int, error: float, analysis: Analysis, delta: float
) -> float:
    """The bound by one test at `error`."""
    if analysis == "clopper-pearson":
        return _by_two_intervals(false, others, hits, counted, error, delta)
    curve = _curve(analysis, delta)
    strength = largest_rejected(lambda s: p_value(false, others, hits, counted, curve, s) <= error)
    return curve.epsilon(strength)


def _by_two_intervals(false: int, others: int, hits: int, counted: int, error: float, delta: float) -> float:
    """ln((TPR_low - delta) / FPR_high), one-sided Clopper-Pearson ends at half the error each; 0 where it is negative.

    At a threshold between two scores, as here, the upper end of the FPR is exact.
    """
    tpr_low = special.betaincinv(hits, counted - hits + 1, error / 2) if hits else 0.0
    fpr_high = 1 - special.betaincinv(others - false, false + 1, error / 2)
    return max(0.0, math.log((tpr_low - delta) / fpr_high)) if tpr_low > delta else 0.0


def _curve(analysis: Analysis, delta: float) -> Curve:
    return GaussianDP(delta) if analysis == "gaussian" else ApproximateDP(delta)


def _halves(side: Array, generator: np.random.Generator) -> tuple[Array, Array]:
    order = generator.permutation(len(side))
    return side[order[: len(side) // 2]], side[order[len(side) // 2 :]]


def _details(
    best: Threshold, inside: Array, outside: Array, correction: Correction, tests: int
) -> dict[str, int | str | Sequence[int]]:
    counted, setting = best.sides(inside, outside)
    wrong, right = ("false negatives", "true negatives") if best.mirrored else ("false positives", "true positives")
    return {
        "threshold": f"{best.false} of {len(setting)} {wrong}, {best.hits(inside, outside)} of {len(counted)} {right}",
        "correction": correction,
        "tests": tests,
    }


def _check(delta: float, level: float, correction: Correction, analysis: Analysis) -> None:
    checked_delta(delta)
    checks.inside("level", level, 0, 1)
    checks.one_of("correction", correction, ("bonferroni", "split"))
    checks.one_of("analysis", analysis, ("joint", "clopper-pearson", "gaussian"))
    _curve(analysis, delta)
