"""Privacy accounting of Poisson-sampled Gaussian releases: PLD by dp-accounting, cross-checked by RDP.

Unit: whatever enters a draw independently (an example, a user). Adjacency: add or remove one unit.

    PLD        privacy loss distributions, rounded pessimistically: every figure here is an upper bound
               (Koskela et al. 2020, arXiv 1906.03049; Doroshenko et al. 2022, arXiv 2207.04380)
    RDP        Renyi accountant, looser and computed in another way (Mironov et al. 2019, arXiv 1908.10530)
    truncated  Poisson draws of which at most B units are kept, at random (arXiv 2508.15089). Let A be "B or more of
               the others were drawn", which does not depend on the unit. Without A the unit is one more, with rate q
               and sensitivity 1; with A it takes another's place, with rate r = P(it is kept | A) and sensitivity 2.

This is the only module that imports dp_accounting.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import dp_accounting
import numpy as np
from dp_accounting import pld, rdp
from scipy.special import gammaln, logsumexp, xlogy
from scipy.stats import binom

from trustnlp import checks
from trustnlp.errors import GuaranteeError

# Whole orders only: fractional ones may fail to converge, and a cross-check can afford a slightly looser bound.
_ORDERS = (*range(2, 65), 80, 96, 128, 256, 512, 1024)
# Grid of the privacy loss. The coarse one adds some 1% to epsilon where it is small and steps are many, and less than
# 0.1% where noise is low; there losses are large and the fine one takes ten times as long for every kind of event.
_FINE, _COARSE, _LOUD, _LOUD_IN_SEARCH = 1e-4, 1e-3, 0.5, 2.0
# What pessimistic rounding may add to a PLD epsilon: at most 0.03 was seen up to 30,000 steps.
_SLACK = 0.05
LEAST_NOISE, MOST_NOISE = 0.1, 2.0**14
_TRUNCATED_PIECES = 64  # a truncated event is as slow as several, the more the finer the grid
_RESOLUTION = 1.001  # between two noise multipliers that are tried: below 0.5% of epsilon
_STRIDE, _ENOUGH = 64, 0.995
_ROUGH_ORDERS = (2, 3, 5, 9, 17, 33, 65, 129, 257, 513)
_POINTS = 128


@dataclass(frozen=True, order=True)
class Event:
    """`count` releases, each a Poisson-sampled sum of sensitivity 1 plus Gaussian noise.

    Args:
        sample_rate: q in (0, 1], the probability that a unit enters.
        noise_multiplier: sigma > 0, the noise's standard deviation per unit of sensitivity.
        count: how many such releases.
        examples: N, how many units there are; matters where draws are truncated, and is 0 elsewhere.
        largest_batch: B, how many units of a draw are kept, chosen at random; 0 where all are.

    Raises:
        ArgumentError: a field breaks its rule.
    """

    sample_rate: float
    noise_multiplier: float
    count: int = 1
    examples: int = 0
    largest_batch: int = 0

    def __post_init__(self) -> None:
        checks.positive("sample_rate", self.sample_rate)
        checks.within("sample_rate", self.sample_rate, 0, 1)
        checks.positive("noise_multiplier", self.noise_multiplier)
        checks.at_least("count", self.count, 1)
        checks.at_least("largest_batch", self.largest_batch, 0)
        checks.at_least("examples", self.examples, self.largest_batch)


def epsilon(events: Iterable[Event], delta: float) -> float:
    """The epsilon that all events together spend at `delta`: an upper bound by PLD; 0 for no event.

    Guarantee: (epsilon, delta)-DP for adding or removing one unit. Cached.

    Raises:
        GuaranteeError: PLD and RDP contradict each other.
    """
    checks.inside("delta", delta, 0, 1)
    return _epsilon(merged(events), delta)


def quick_epsilon(events: Iterable[Event], delta: float) -> float:
    """An upper bound of `epsilon`, some 1% looser at most, for searches: without cross-check."""
    events = merged(events)
    return _spent(events, delta, _grid(events, _LOUD_IN_SEARCH))


def rdp_epsilon(events: Iterable[Event], delta: float) -> float:
    """The same by the Renyi accountant: an independent and looser upper bound."""
    return max(_rdp_epsilon(variant, delta) for variant in _neighbours(merged(events)))


def attack_ceiling(events: Iterable[Event], fpr: float) -> float:
    """The largest true positive rate that any membership attack can reach at false positive rate `fpr`.

    By hypothesis testing on the whole curve delta(epsilon) of the PLD, which is tighter than any single
    (epsilon, delta) pair: TPR <= min over epsilon of e^epsilon fpr + delta and 1 - e^-epsilon (1 - delta - fpr)
    (Dong, Roth and Su 2019, arXiv 1905.02383, propositions 2.4 and 2.12). Lower is more private; `fpr` is ideal.
    """
    checks.inside("fpr", fpr, 0, 1)
    return _ceiling(merged(events), fpr)


@lru_cache(maxsize=512)
def calibrate(epsilon: float, delta: float, events: tuple[Event, ...]) -> float:
    """The factor of all events' noise with which they spend at most `epsilon` at `delta`, and at least 99% of it.

    Args:
        epsilon: the budget, > 0.
        delta: in (0, 1).
        events: with the noise of each relative to the others.

    Raises:
        GuaranteeError: no factor does that with every noise multiplier between 0.1 and 16384.
    """
    events = merged(events)
    least, most = (pick(event.noise_multiplier for event in events) for pick in (min, max))
    highest = MOST_NOISE / most
    length = max(1, round(math.log(highest / (LEAST_NOISE / least)) / math.log(_RESOLUTION)))

    def with_noise(rank: int) -> tuple[Event, ...]:
        factor = highest / _RESOLUTION**rank
        return tuple(replace(event, noise_multiplier=event.noise_multiplier * factor) for event in events)

    def search(spent: Callable[[tuple[Event, ...], float], float], start: int) -> int:
        return largest(lambda rank: spent(with_noise(rank), delta), epsilon, length, 0, start, _STRIDE, _ENOUGH)

    rank = search(quick_epsilon, largest(lambda rank: _rough(with_noise(rank), delta), epsilon, length, 0))
    # A finer grid only lowers epsilon, so the quick answer stands unless the grid wasted some of the budget.
    if 0 <= rank < length and _spent(with_noise(rank), delta) < 0.99 * epsilon:
        rank = search(_spent, rank)
    if rank < 0:
        raise GuaranteeError(
            f"no noise reaches epsilon {epsilon:g} at delta {delta:g} with q = {events[0].sample_rate:.4g} and "
            f"{sum(event.count for event in events)} steps",
            "raise epsilon or delta, or train for fewer epochs",
        )
    if rank == length:
        raise GuaranteeError(
            f"epsilon {epsilon:g} asks for a noise multiplier below {LEAST_NOISE}, which protects nobody",
            "lower epsilon, or train without privacy and say so",
        )
    return highest / _RESOLUTION**rank


def largest(
    spent: Callable[[int], float],
    budget: float,
    high: int,
    low: int = 1,
    start: int | None = None,
    stride: int = 1,
    enough: float = 1.0,
) -> int:
    """The largest whole number from `low` to `high` that spends at most `budget`; `low` - 1 if none does.

    Args:
        spent: what a number spends, never less than a smaller number; asked as rarely as possible.
        budget: > 0.
        high: where numbers end.
        low: where they begin.
        start: which number is asked first; `low` if None.
        stride: how far from it the second lies; then twice as far, and so on.
        enough: a number that spends this share of the budget will do, even if a larger one could be found.
    """
    good, at_good, bad, at_bad = low - 1, 0.0, high + 1, math.inf
    guess = low if start is None else min(max(start, low), high)
    while bad - good > 1 and at_good < enough * budget:
        found = spent(guess)
        if found <= budget:
            good, at_good = guess, found
        else:
            bad, at_bad = guess, found
        if good >= low and bad <= high:
            guess = _between(good, at_good, bad, at_bad, budget)
        else:
            guess, stride = (good + stride if found <= budget else bad - stride), 2 * stride
        guess = min(max(guess, good + 1), bad - 1)
    return good


def kept_at_cap(event: Event) -> tuple[float, float]:
    """P(A) and r of a truncated event, as at the top of this module; (0, 0) for one that is not truncated."""
    if not event.largest_batch:
        return 0.0, 0.0
    cap, others = event.largest_batch, event.examples - 1
    crowded = float(binom.sf(cap - 1, others, event.sample_rate))
    if crowded == 0:
        return 0.0, 0.0
    kept = float(binom.sf(cap, event.examples, event.sample_rate)) * cap / event.examples
    return crowded, kept / crowded


def least_cap(examples: int, sample_rate: float, share: float) -> int:
    """The least B for which P(A) is at most `share`, whether the larger data set has `examples` units or one more."""
    return int(binom.isf(share, examples, sample_rate)) + 1


def merged(events: Iterable[Event]) -> tuple[Event, ...]:
    """Equal events added up, in a fixed order: the same releases are always the same cache key."""
    counts: Counter[Event] = Counter()
    for event, times in Counter(events).items():
        counts[replace(event, count=1)] += event.count * times
    return tuple(replace(event, count=count) for event, count in sorted(counts.items()))


def _neighbours(events: tuple[Event, ...]) -> list[tuple[Event, ...]]:
    """The larger of the two data sets may have N units (one removed) or N + 1 (one added); truncation sees which."""
    if not any(event.largest_batch for event in events):
        return [events]
    return [events, tuple(replace(event, examples=event.examples + 1) for event in events)]


@lru_cache(maxsize=512)
def _epsilon(events: tuple[Event, ...], delta: float) -> float:
    if not events:
        return 0.0
    spent = _spent(events, delta)
    _cross_check(spent, rdp_epsilon(events, delta), events)
    return spent


def _spent(events: tuple[Event, ...], delta: float, grid: float | None = None) -> float:
    """Epsilon by PLD alone."""
    return max(float(_accountant(variant, grid).get_epsilon(delta)) for variant in _neighbours(events))


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
    delta = np.max([_accountant(variant).get_delta(grid) for variant in _neighbours(events)], axis=0)
    bounds = np.minimum(np.exp(grid) * fpr + delta, 1 - np.exp(-grid) * (1 - delta - fpr))
    return min(1.0, float(bounds.min()))


@lru_cache(maxsize=8)
def _accountant(events: tuple[Event, ...], grid: float | None = None) -> pld.PLDAccountant:
    accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, grid or _grid(events))
    for event in events:
        accountant.compose(_dp_event(event))
    return accountant


def _grid(events: tuple[Event, ...], loud: float = _LOUD) -> float:
    """Fine for noise that is the higher, the more distributions there are to be composed."""
    pieces = sum(_TRUNCATED_PIECES if event.largest_batch else 1 for event in events)
    least = min((event.noise_multiplier for event in events), default=math.inf)
    return _FINE if least >= loud * math.sqrt(pieces) else _COARSE


def _dp_event(event: Event) -> dp_accounting.DpEvent:
    if event.largest_batch:
        once: dp_accounting.DpEvent = dp_accounting.TruncatedSubsampledGaussianDpEvent(
            event.examples, event.sample_rate, event.largest_batch, event.noise_multiplier
        )
    else:
        gaussian = dp_accounting.GaussianDpEvent(event.noise_multiplier)
        once = dp_accounting.PoissonSampledDpEvent(event.sample_rate, gaussian)
    return dp_accounting.SelfComposedDpEvent(once, event.count)


def _rdp_epsilon(events: tuple[Event, ...], delta: float) -> float:
    if not any(event.largest_batch for event in events):
        accountant = rdp.RdpAccountant(_ORDERS)
        for event in events:
            accountant.compose(_dp_event(event))
        return float(accountant.get_epsilon(delta))
    divergences = [sum(event.count * _divergence(event, order) for event in events) for order in _ORDERS]
    return float(rdp.compute_epsilon(_ORDERS, divergences, delta)[0])


def _rough(events: tuple[Event, ...], delta: float) -> float:
    """Epsilon by a few orders and as if nothing were truncated: quick, and good enough to begin a search."""
    divergences = [
        sum(event.count * _sampled_gaussian(event.sample_rate, event.noise_multiplier, order) for event in events)
        for order in _ROUGH_ORDERS
    ]
    return float(rdp.compute_epsilon(_ROUGH_ORDERS, divergences, delta)[0])


def _divergence(event: Event, order: int) -> float:
    """Renyi divergence of one release: of the mixture of the two cases of truncation, the case being told.

    A unit that takes another's place is a Poisson-sampled one of rate r and sensitivity 2. dp_accounting bounds this
    case more carefully, by N(-2) against N(2), so RDP is the looser bound only while truncation is rare.
    """
    alone = (order - 1) * _sampled_gaussian(event.sample_rate, event.noise_multiplier, order)
    crowded, kept = kept_at_cap(event)
    if not crowded:
        return alone / (order - 1)
    replacing = (order - 1) * _sampled_gaussian(kept, event.noise_multiplier / 2, order)
    return float(logsumexp([alone, replacing], b=[1 - crowded, crowded])) / (order - 1)


@lru_cache(maxsize=4096)
def _sampled_gaussian(q: float, sigma: float, order: int) -> float:
    """Renyi divergence of a whole order of the Poisson-sampled Gaussian (Mironov et al. 2019, section 3.3)."""
    k = np.arange(order + 1)
    binomials = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
    terms = binomials + xlogy(order - k, 1 - q) + xlogy(k, q) + (k * k - k) / (2 * sigma**2)
    return float(logsumexp(terms)) / (order - 1)


def _between(low: int, at_low: float, high: int, at_high: float, budget: float) -> int:
    """Where a power law through two points meets the budget, kept away from the ends so that both close in."""
    if at_low <= 0 or math.isinf(at_high):
        return (low + high) // 2
    share = (math.log(budget) - math.log(at_low)) / (math.log(at_high) - math.log(at_low))
    return low + round(min(max(share, 0.1), 0.9) * (high - low))
