"""Privacy accounting of Poisson-sampled Gaussian releases: PLD by dp-accounting, cross-checked by RDP.

Unit: whatever enters a draw independently (an example). Adjacency: add or remove one unit.

    PLD   privacy loss distributions, rounded pessimistically: every figure here is an upper bound
          (Koskela et al. 2020, arXiv 1906.03049; Doroshenko et al. 2022, arXiv 2207.04380)
    RDP   Renyi accountant, looser and computed in another way (Mironov et al. 2019, arXiv 1908.10530)

This is the only module that imports dp_accounting.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import dp_accounting
import numpy as np
from dp_accounting import pld, rdp

from trustnlp import checks
from trustnlp.errors import GuaranteeError

# Whole orders only: fractional ones may fail to converge, and a cross-check can afford a slightly looser bound.
_ORDERS = (*range(2, 65), 80, 96, 128, 256, 512, 1024)
# Grid of the privacy loss. Below a noise multiplier of 0.5 losses are so large that the coarse grid changes epsilon
# by less than one part in 100,000 and takes a tenth of the time.
_FINE, _COARSE, _LOUD = 1e-4, 1e-3, 0.5
# What pessimistic rounding may add to a PLD epsilon: at most 0.0085 was seen up to 30,000 steps.
_SLACK = 0.02
_LEAST_NOISE, _MOST_NOISE = 0.1, 2.0**14
_POINTS = 128


@dataclass(frozen=True)
class Event:
    """`count` releases, each a Poisson-sampled sum of sensitivity 1 plus Gaussian noise.

    Args:
        sample_rate: q in (0, 1], the probability that a unit enters.
        noise_multiplier: sigma > 0, the noise's standard deviation per unit of sensitivity.
        count: how many such releases.
    """

    sample_rate: float
    noise_multiplier: float
    count: int = 1

    def __post_init__(self) -> None:
        checks.positive("sample_rate", self.sample_rate)
        checks.within("sample_rate", self.sample_rate, 0, 1)
        checks.positive("noise_multiplier", self.noise_multiplier)
        checks.at_least("count", self.count, 1)


def epsilon(events: Iterable[Event], delta: float) -> float:
    """The epsilon that all events together spend at `delta`: an upper bound by PLD; 0 for no event.

    Guarantee: (epsilon, delta)-DP for adding or removing one unit. Cached.

    Raises:
        GuaranteeError: PLD and RDP contradict each other.
    """
    checks.inside("delta", delta, 0, 1)
    return _epsilon(_merged(events), delta)


def rdp_epsilon(events: Iterable[Event], delta: float) -> float:
    """The same by the Renyi accountant: an independent and looser upper bound."""
    accountant = rdp.RdpAccountant(_ORDERS)
    for event in _merged(events):
        accountant.compose(_dp_event(event))
    return float(accountant.get_epsilon(delta))


def attack_ceiling(events: Iterable[Event], fpr: float) -> float:
    """The largest true positive rate that any membership attack can reach at false positive rate `fpr`.

    By hypothesis testing on the whole curve delta(epsilon) of the PLD, which is tighter than any single
    (epsilon, delta) pair: TPR <= min over epsilon of e^epsilon fpr + delta and 1 - e^-epsilon (1 - delta - fpr)
    (Dong, Roth and Su 2019, arXiv 1905.02383, propositions 2.4 and 2.12). Lower is more private; `fpr` is ideal.
    """
    checks.inside("fpr", fpr, 0, 1)
    return _ceiling(_merged(events), fpr)


@lru_cache(maxsize=512)
def calibrate(epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """The noise multiplier with which `steps` releases spend at most `epsilon` at `delta`, and at least 99% of it.

    Raises:
        GuaranteeError: no noise multiplier between 0.1 and 16384 does that.
    """
    sigma = _search(epsilon, delta, sample_rate, steps, _COARSE)
    # A finer grid only lowers epsilon, so the coarse answer stands unless the grid wasted some of the budget.
    if _grid(sigma) < _COARSE and _spent(sigma, delta, sample_rate, steps, _grid(sigma)) < 0.99 * epsilon:
        sigma = _search(epsilon, delta, sample_rate, steps, _FINE)
    return sigma


def _merged(events: Iterable[Event]) -> tuple[Event, ...]:
    """Equal events added up, in a fixed order: the same releases are always the same cache key."""
    counts: Counter[tuple[float, float]] = Counter()
    for event in events:
        counts[event.sample_rate, event.noise_multiplier] += event.count
    return tuple(Event(q, sigma, count) for (q, sigma), count in sorted(counts.items()))


@lru_cache(maxsize=512)
def _epsilon(events: tuple[Event, ...], delta: float) -> float:
    if not events:
        return 0.0
    spent = float(_accountant(events).get_epsilon(delta))
    _cross_check(spent, rdp_epsilon(events, delta), events)
    return spent


def _cross_check(by_pld: float, by_rdp: float, events: tuple[Event, ...]) -> None:
    """RDP is the looser of two upper bounds: when it comes out lower, one of them is wrong."""
    if math.isfinite(by_pld) and by_rdp >= by_pld - _SLACK:
        return
    raise GuaranteeError(
        f"the accountants disagree on {events}: PLD says epsilon {by_pld:.6g}, RDP says {by_rdp:.6g}",
        "use less extreme parameters, or report this as a bug",
    )


@lru_cache(maxsize=512)
def _ceiling(events: tuple[Event, ...], fpr: float) -> float:
    if not events:
        return fpr
    # The curve's slope at fpr is at most 1/fpr, so a larger epsilon cannot be the minimum.
    grid = np.linspace(0.0, -math.log(fpr), _POINTS)
    delta = np.asarray(_accountant(events).get_delta(grid))
    bounds = np.minimum(np.exp(grid) * fpr + delta, 1 - np.exp(-grid) * (1 - delta - fpr))
    return min(1.0, float(bounds.min()))


@lru_cache(maxsize=4)
def _accountant(events: tuple[Event, ...], grid: float | None = None) -> pld.PLDAccountant:
    grid = grid or _grid(min(event.noise_multiplier for event in events))
    accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, grid)
    for event in events:
        accountant.compose(_dp_event(event))
    return accountant


def _grid(sigma: float) -> float:
    return _FINE if sigma >= _LOUD else _COARSE


def _dp_event(event: Event) -> dp_accounting.DpEvent:
    gaussian = dp_accounting.GaussianDpEvent(event.noise_multiplier)
    sampled = dp_accounting.PoissonSampledDpEvent(event.sample_rate, gaussian)
    return dp_accounting.SelfComposedDpEvent(sampled, event.count)


def _spent(sigma: float, delta: float, sample_rate: float, steps: int, grid: float) -> float:
    return float(_accountant((Event(sample_rate, sigma, steps),), grid).get_epsilon(delta))


def _search(epsilon: float, delta: float, sample_rate: float, steps: int, grid: float) -> float:
    low, high = _bracket(epsilon, delta, sample_rate, steps, grid)
    found = dp_accounting.calibrate_dp_mechanism(
        lambda: pld.PLDAccountant(value_discretization_interval=grid),
        lambda sigma: _dp_event(Event(sample_rate, float(sigma), steps)),
        epsilon,
        delta,
        dp_accounting.ExplicitBracketInterval(low, high),
        tol=1e-4 * low,
    )
    return float(found)


def _bracket(epsilon: float, delta: float, sample_rate: float, steps: int, grid: float) -> tuple[float, float]:
    """Noise multipliers, a factor of 2 apart, that spend more and at most `epsilon`."""
    sigma = 1.0
    while _spent(sigma, delta, sample_rate, steps, grid) > epsilon:
        sigma *= 2
        if sigma > _MOST_NOISE:
            raise GuaranteeError(
                f"no noise reaches epsilon {epsilon:g} at delta {delta:g} with q = {sample_rate:.4g} and {steps} steps",
                "raise epsilon or delta, or train for fewer epochs",
            )
    while _spent(sigma / 2, delta, sample_rate, steps, grid) <= epsilon:
        sigma /= 2
        if sigma < _LEAST_NOISE:
            raise GuaranteeError(
                f"epsilon {epsilon:g} asks for a noise multiplier below {_LEAST_NOISE}, which protects nobody",
                "lower epsilon, or train without privacy and say so",
            )
    return sigma / 2, sigma
