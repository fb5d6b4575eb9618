"""Intervals, tests and their corrections, over SciPy: what a figure may claim from the data it rests on.

    a share                       proportion                      exact (Clopper-Pearson)
    a gap between two shares      difference_of_proportions       hybrid score (Newcombe)
    a share of dependent parts    ratio                           score on the effective sample size (Korn-Graubard)
    a gap between any two         difference                      from their intervals (MOVER)
    a mean of few bounded values  bounded_mean                    Hoeffding-Chernoff, whatever their shape
    a median                      median                          order statistics, whatever their shape
    any other statistic           bootstrap                       BCa, rows or whole clusters resampled
    what n could have shown       minimum_detectable_difference   two-sample z test
    many figures at once          holm, bonferroni                family-wise error

Every function raises on empty, NaN or impossible input: an interval is right or absent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from trustnlp import checks
from trustnlp.errors import ArgumentError, GuaranteeError

Array = NDArray[Any]
Statistic = Callable[..., Array]

_ELEMENTS = 1 << 21  # values resampled at a time: bounds memory to a few dozen MB
_BLOCKS = 400  # left-out blocks of the jackknife: its skewness is then known to about 0.65 / 400


@dataclass(frozen=True)
class Interval:
    """A two-sided interval that covers the truth with probability `level`.

    Args:
        low, high: its ends, finite, low <= high.
        level: coverage, in (0, 1).

    Raises:
        GuaranteeError: an end is NaN or infinite, or the ends are the wrong way round.
    """

    low: float
    high: float
    level: float = 0.95

    def __post_init__(self) -> None:
        checks.inside("level", self.level, 0, 1)
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low <= self.high):
            raise GuaranteeError(f"[{self.low}, {self.high}] is not an interval", "measure it on finite numbers")

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def proportion(successes: int, n: int, level: float = 0.95) -> Interval:
    """The exact interval of a share, `successes` of `n`: coverage is at least `level` at every n and truth.

    Source: Clopper and Pearson 1934, Biometrika 26(4).

    Raises:
        ArgumentError: n < 1, successes outside 0..n, level outside (0, 1).
    """
    successes, n = _share("successes", successes, "n", n)
    checks.inside("level", level, 0, 1)
    found = stats.binomtest(successes, n).proportion_ci(level, method="exact")
    return Interval(float(found.low), float(found.high), level)


def difference_of_proportions(k1: int, n1: int, k2: int, n2: int, level: float = 0.95) -> Interval:
    """The interval of k1/n1 - k2/n2 for two independent samples, in [-1, 1].

    Combines the two Wilson score intervals; unlike the Wald interval it keeps a width when a count is 0 or n.
    Source: Newcombe 1998, Statistics in Medicine 17:873-890, method 10 (hybrid score).

    Raises:
        ArgumentError: n1 or n2 < 1, a count outside 0..n, level outside (0, 1).
    """
    k1, n1 = _share("k1", k1, "n1", n1)
    k2, n2 = _share("k2", k2, "n2", n2)
    checks.inside("level", level, 0, 1)
    p1, p2 = k1 / n1, k2 / n2
    low1, high1 = stats.binomtest(k1, n1).proportion_ci(level, method="wilson")
    low2, high2 = stats.binomtest(k2, n2).proportion_ci(level, method="wilson")
    low = p1 - p2 - np.hypot(p1 - low1, high2 - p2)
    high = p1 - p2 + np.hypot(high1 - p1, p2 - low2)
    return Interval(max(float(low), -1.0), min(float(high), 1.0), level)


def ratio(
    numerators: ArrayLike,
    denominators: ArrayLike,
    level: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
) -> Interval:
    """The interval of sum(numerators) / sum(denominators), a share whose parts are not independent, such as F1.

    The jackknife over units gives the variance; the share is then treated as a binomial one of the sample size that
    has this variance (Korn and Graubard 1998, Survey Methodology 24:193-201) in Wilson's score interval, with
    Student's t of `effective_units` - 1 degrees of freedom. So it keeps a width when the share is 0 or 1, where every
    unit then counts as one observation, and a few units that hold most of the data widen it.

    Args:
        numerators, denominators: (n,) each, 0 <= numerator <= denominator row by row; rows of 0 / 0 say nothing.
        level: coverage, in (0, 1).
        clusters: the unit each row belongs to (a user); rows are units of their own without it.

    Raises:
        ArgumentError: lengths that differ, level outside (0, 1).
        GuaranteeError: NaN, a numerator outside 0..denominator, or fewer than 2 effective units.
    """
    checks.inside("level", level, 0, 1)
    parts, sizes = _totals(numerators, denominators, clusters)
    whole, units = sizes.sum(), effective_units(sizes)
    if units < 2 - 1e-9:
        raise GuaranteeError(f"an interval needs 2 units, these weigh as much as {units:.3g}", "collect more of them")
    share = parts.sum() / whole
    influences = (parts - share * sizes) / (whole - sizes)
    variance = (1 - 1 / len(sizes)) * (influences**2).sum()
    observations = share * (1 - share) / variance if variance > 1e-18 else units
    reach = stats.t.ppf(0.5 + level / 2, max(units - 1, 1)) ** 2 / observations
    centre = (share + reach / 2) / (1 + reach)
    half = np.sqrt(reach * (share * (1 - share) + reach / 4)) / (1 + reach)
    return Interval(float(max(0.0, min(centre - half, share))), float(min(1.0, max(centre + half, share))), level)


def effective_units(sizes: ArrayLike) -> float:
    """How many units of one size would weigh as much as units of these sizes, (sum s)^2 / sum s^2; 0 of nothing.

    Source: Kish 1965, Survey Sampling.
    """
    sizes = np.asarray(sizes, dtype=float)
    return float(sizes.sum() ** 2 / (sizes**2).sum()) if sizes.any() else 0.0


def difference(value1: float, interval1: Interval, value2: float, interval2: Interval) -> Interval:
    """The interval of value1 - value2, two independent estimates with an interval each.

    Of independent or positively correlated estimates it covers at least as often as they do, approximately.
    Source: Zou and Donner 2008, Statistics in Medicine 27:1693-1702 (MOVER); with Wilson intervals it is Newcombe's.

    Raises:
        GuaranteeError: a value outside its interval, or two levels.
    """
    if value1 not in interval1 or value2 not in interval2 or interval1.level != interval2.level:
        raise GuaranteeError(f"{value1} in {interval1} and {value2} in {interval2} are not two estimates of one level")
    low = value1 - value2 - np.hypot(value1 - interval1.low, interval2.high - value2)
    high = value1 - value2 + np.hypot(interval1.high - value1, value2 - interval2.low)
    return Interval(float(low), float(high), interval1.level)


def minimum_detectable_difference(n1: int, n2: int, baseline: float, level: float = 0.95, power: float = 0.8) -> float:
    """The smallest difference from `baseline` that samples of n1 and n2 would have shown, in (0, 1].

    A two-sided z test of two shares at 1 - level, `baseline` against `baseline` +/- the answer (towards one half,
    where shares vary more), rejects with probability `power`. A normal approximation: optimistic where n times
    the smaller share is below about 5. Source: Fleiss, Levin and Paik 2003, Statistical Methods for Rates and
    Proportions, section 4.2, unequal samples, without continuity correction.

    Raises:
        ArgumentError: n1 or n2 < 1, baseline outside [0, 1], level or power outside (0, 1).
        GuaranteeError: samples so small that no difference at all would show.
    """
    n1, n2 = checks.at_least("n1", _whole(n1), 1), checks.at_least("n2", _whole(n2), 1)
    checks.within("baseline", baseline, 0, 1)
    checks.inside("level", level, 0, 1)
    checks.inside("power", power, 0, 1)
    direction = 1 if baseline <= 0.5 else -1
    z_level, z_power = stats.norm.ppf(0.5 + level / 2), stats.norm.ppf(power)

    def excess(difference: float) -> float:
        other = baseline + direction * difference
        pooled = (n1 * baseline + n2 * other) / (n1 + n2)
        null = np.sqrt(pooled * (1 - pooled) * (1 / n1 + 1 / n2))
        alternative = np.sqrt(baseline * (1 - baseline) / n1 + other * (1 - other) / n2)
        return float(difference - z_level * null - z_power * alternative)

    largest = max(baseline, 1 - baseline)
    if excess(largest) < 0:
        raise GuaranteeError(f"samples of {n1} and {n2} can show no difference from {baseline:g}", "collect more")
    return float(optimize.brentq(excess, 1e-12, largest))  # convex and negative at first, so it crosses 0 once


def bootstrap(
    statistic: Statistic,
    *samples: ArrayLike,
    generator: np.random.Generator,
    level: float = 0.95,
    replicates: int = 2000,
    clusters: Sequence[Hashable] | Sequence[Sequence[Hashable]] | None = None,
) -> Interval:
    """The bias-corrected and accelerated (BCa) bootstrap interval of any smooth statistic.

    Good for gaps, ratios, F1 and correlations of some 20 or more units, skewed ones included. Resamples of few units
    vary too little; the ends are moved out by Student's factor of the smallest sample to make up for it. Not for
    extremes (a maximum, a far quantile), nor for shares, which have exact intervals above.

    Args:
        statistic: called with one array per sample, each with a leading axis of R resamples, (R, n) or (R, n, k);
            answers (R,). For instance `lambda a, b: a.mean(axis=1) - b.mean(axis=1)`.
        samples: each (n,) or (n, k). Samples are resampled separately, the rows of one sample as wholes: values
            measured on the same unit belong in one sample of shape (n, k).
        generator: drawn from.
        level: coverage, in (0, 1).
        replicates: resamples, at least 100; 2,000 keep the ends of a 95% interval steady to a few percent of its width.
        clusters: the unit each row belongs to (a user), for one sample; or a sequence of these, one per sample. Whole
            units are then resampled, R is 1 in each call, and n varies.

    Raises:
        ArgumentError: no sample, fewer than two units in one, ragged or non-numeric values, wrong lengths.
        GuaranteeError: a NaN or infinite value; a cluster that lies in two samples; a statistic that is not finite on
            some resample, or the same on all of them (no variation seen is no proof that there is none).

    Source: Efron 1987, JASA 82:171-185; several samples and clusters: Davison and Hinkley 1997, sections 5.3, 3.8;
    expanded ends: Hesterberg 2015, The American Statistician 69:371-386, section 5.
    """
    checks.inside("level", level, 0, 1)
    checks.at_least("replicates", replicates, 100)
    arrays = [_sample(index, sample) for index, sample in enumerate(samples)]
    checks.not_empty("samples", arrays)
    units = _units(arrays, clusters)
    measure = partial(_measure, statistic, arrays, units)

    estimate = measure([np.arange(len(unit))[None] for unit in units])[0]
    step = max(1, _ELEMENTS // sum(array.size for array in arrays))
    batches = [min(step, replicates - start) for start in range(0, replicates, step)]
    copies = np.concatenate(
        [measure([generator.integers(0, len(unit), (batch, len(unit))) for unit in units]) for batch in batches]
    )
    if np.ptp(copies) <= 1e-12 * max(1.0, abs(estimate)):
        raise GuaranteeError(
            f"the statistic is {estimate:g} on every resample, so its interval cannot be told",
            "use an exact interval (proportion, difference_of_proportions) or more data",
        )
    acceleration = _acceleration(measure, [generator.permutation(len(unit)) for unit in units])
    levels = _bca_levels(estimate, copies, acceleration, level, min(map(len, units)))
    low, high = np.quantile(copies, levels)
    # A strongly biased statistic can lie outside its BCa interval; widening to it only adds coverage.
    return Interval(float(min(low, estimate)), float(max(high, estimate)), level)


def bounded_mean(values: ArrayLike, lowest: float, highest: float, level: float = 0.95) -> Interval:
    """The interval of a mean of independent values in [lowest, highest]: coverage is at least `level` at every n.

    For values too few or too lumpy to bootstrap; wide, as it assumes nothing of their shape. They need not even have
    one distribution: the interval is then of the mean of their means.

    Raises:
        ArgumentError: no value, not one-dimensional, a value outside the range, lowest >= highest.
        GuaranteeError: a value is NaN or infinite.

    Source: Hoeffding 1963, JASA 58:13-30, theorem 1, inequality (2.1), at (1 - level) / 2 on either side.
    """
    checks.inside("level", level, 0, 1)
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or array.size == 0:
        raise ArgumentError("values", "a non-empty list of numbers", f"shape {array.shape}")
    if not np.isfinite(array).all():
        raise GuaranteeError(f"{int((~np.isfinite(array)).sum())} of {len(array)} values are NaN or infinite")
    if not lowest < highest or array.min() < lowest or array.max() > highest:
        raise ArgumentError("values", f"in [{lowest:g}, {highest:g}]", [array.min(), array.max()])
    mean, width = float(array.mean()), highest - lowest
    share = min(max((mean - lowest) / width, 0.0), 1.0)
    limit = np.log(2 / (1 - level)) / array.size

    def excess(truth: float) -> float:
        return float(special.rel_entr(share, truth) + special.rel_entr(1 - share, 1 - truth) - limit)

    edge = 1e-12
    low = optimize.brentq(excess, edge, share) if share > edge and excess(edge) > 0 else 0.0
    high = optimize.brentq(excess, share, 1 - edge) if share < 1 - edge and excess(1 - edge) > 0 else 1.0
    # Rounding may put the mean of equal values a last digit outside.
    return Interval(min(lowest + low * width, mean), max(lowest + high * width, mean), level)


def median(values: ArrayLike, level: float = 0.95) -> Interval:
    """The interval of a median, between two of the values themselves: coverage is at least `level`.

    Of n independent values, the number below the median is binomial with share 1/2, so the r-th smallest and the r-th
    largest enclose the median with probability 1 - 2 P(Binomial(n, 1/2) < r).
    Source: Thompson 1936, Annals of Mathematical Statistics 7(3).

    Raises:
        ArgumentError: level outside (0, 1).
        GuaranteeError: NaN, or too few values for the level (6 are needed for 95%).
    """
    checks.inside("level", level, 0, 1)
    ordered = np.sort(_sample(0, values))
    rank = int(stats.binom.ppf((1 - level) / 2, len(ordered), 0.5))
    if rank < 1:
        least = math.ceil(1 - math.log2(1 - level))
        reason = f"{len(ordered)} values give no {level:.0%} interval of a median"
        raise GuaranteeError(reason, f"measure {least} or more")
    return Interval(float(ordered[rank - 1]), float(ordered[-rank]), level)


def holm(p_values: ArrayLike) -> Array:
    """Holm's adjusted p-values, (m,) in the given order: rejecting those <= alpha errs at all in <= alpha of cases.

    Valid under any dependence. Source: Holm 1979, Scandinavian Journal of Statistics 6:65-70.

    Raises:
        ArgumentError: empty, not one-dimensional, or a value outside [0, 1] (NaN included).
    """
    p = np.asarray(p_values, dtype=float)
    if p.ndim != 1 or p.size == 0 or not np.all((p >= 0) & (p <= 1)):
        raise ArgumentError("p_values", "a non-empty list of numbers in [0, 1]", p.tolist())
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def bonferroni(level: float, m: int) -> float:
    """The level each of `m` intervals needs so that all cover at once with probability at least `level`.

    Raises:
        ArgumentError: level outside (0, 1), m < 1.
    """
    checks.inside("level", level, 0, 1)
    return 1 - (1 - level) / checks.at_least("m", m, 1)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, np.integer) else value


def _share(name: str, count: int, total_name: str, total: int) -> tuple[int, int]:
    count, total = _whole(count), checks.at_least(total_name, _whole(total), 1)
    if checks.at_least(name, count, 0) > total:
        raise ArgumentError(name, f"at most {total_name} ({total})", count)
    return count, total


def _totals(numerators: ArrayLike, denominators: ArrayLike, clusters: Sequence[Hashable] | None) -> tuple[Array, Array]:
    """Numerator and denominator of each unit that has any, (u,) each."""
    parts, sizes = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    if clusters is not None:
        checks.same_length(numerators=parts, denominators=sizes, clusters=clusters)
    checks.same_length(numerators=parts, denominators=sizes)
    if not (np.isfinite(sizes) & (parts >= 0) & (parts <= sizes)).all():
        raise GuaranteeError("a ratio needs 0 <= numerator <= denominator in every row", "look for NaN")
    if clusters is not None:
        numbers: dict[Hashable, int] = {}
        rows = [numbers.setdefault(unit, len(numbers)) for unit in clusters]
        parts, sizes = np.bincount(rows, parts), np.bincount(rows, sizes)
    return parts[sizes > 0], sizes[sizes > 0]


def _sample(index: int, sample: ArrayLike) -> Array:
    name = f"samples[{index}]"
    try:
        array = np.asarray(sample, dtype=float)
    except (TypeError, ValueError):
        raise ArgumentError(name, "numbers of shape (n,) or (n, k)", type(sample).__name__) from None
    if array.ndim not in (1, 2) or len(array) < 2 or array.size == 0:
        raise ArgumentError(name, "of shape (n,) or (n, k) with n >= 2", array.shape)
    if not np.isfinite(array).all():
        raise GuaranteeError(f"{name} holds {int((~np.isfinite(array)).sum())} NaN or infinite values")
    return array


def _units(arrays: list[Array], clusters: Any) -> list[list[Array]]:
    """Per sample, the rows of each unit: one row each without clusters."""
    if clusters is None:
        return [list(np.arange(len(array))[:, None]) for array in arrays]
    labels = [clusters] if len(arrays) == 1 else list(clusters)
    if [len(label) for label in labels] != [len(array) for array in arrays]:
        raise ArgumentError("clusters", "one label per row of each sample", [len(label) for label in labels])
    grouped = []
    for label in labels:
        rows: dict[Hashable, list[int]] = {}
        for row, unit in enumerate(label):
            rows.setdefault(unit, []).append(row)
        grouped.append(rows)
    shared = sum(len(rows) for rows in grouped) - len(set().union(*grouped))
    if shared:
        raise GuaranteeError(
            f"{shared} clusters lie in more than one sample, so the samples are not independent",
            "put values of the same units in one sample of shape (n, k), or give clusters distinct labels",
        )
    if min(map(len, grouped)) < 2:
        raise ArgumentError("clusters", "at least two different labels per sample", min(map(len, grouped)))
    return [[np.array(rows) for rows in found.values()] for found in grouped]


def _measure(statistic: Statistic, arrays: list[Array], units: list[list[Array]], chosen: list[Array]) -> Array:
    """The statistic, (R,), on the chosen units, one (R, u) array of unit numbers per sample."""
    replicates = len(chosen[0])
    calls: Iterator[list[Array]]
    if all(len(unit) == len(array) for unit, array in zip(units, arrays, strict=True)):
        calls = iter([[array[rows] for array, rows in zip(arrays, chosen, strict=True)]])
    else:  # units differ in size, so each resample has its own length
        calls = (
            [
                array[np.concatenate([unit[i] for i in pick[r]])][None]
                for array, unit, pick in zip(arrays, units, chosen, strict=True)
            ]
            for r in range(replicates)
        )
    values = np.concatenate([_answer(statistic, call) for call in calls])
    if not np.isfinite(values).all():
        missing = int((~np.isfinite(values)).sum())
        raise GuaranteeError(
            f"the statistic is not finite on {missing} of {replicates} resamples", "define it on every resample"
        )
    return values


def _answer(statistic: Statistic, resamples: list[Array]) -> Array:
    values = np.asarray(statistic(*resamples), dtype=float)
    if values.shape != (len(resamples[0]),):
        raise ArgumentError("statistic", f"a function that answers shape ({len(resamples[0])},)", values.shape)
    return values


def _acceleration(measure: Callable[[list[Array]], Array], orders: list[Array]) -> float:
    """One sixth of the skewness of the jackknife influences; blocks of units are left out where there are many."""
    influences = []
    for index, order in enumerate(orders):
        blocks = np.array_split(order, min(len(order), _BLOCKS))
        without = [
            [np.delete(np.arange(len(other)), block if at == index else [])[None] for at, other in enumerate(orders)]
            for block in blocks
        ]
        left = np.concatenate([measure(chosen) for chosen in without])
        influences.append((left.mean() - left) * (1 - 1 / len(blocks)))
    every = np.concatenate(influences)
    spread = float((every**2).sum())
    return float((every**3).sum() / (6 * spread**1.5)) if spread > 0 else 0.0


def _bca_levels(estimate: float, copies: Array, acceleration: float, level: float, n: int) -> Array:
    """Which two quantiles of the resamples are the ends, where the smallest sample has `n` units."""
    below = float((copies < estimate).mean() + (copies == estimate).mean() / 2)
    if not 0 < below < 1:
        raise GuaranteeError(
            "every resample lies on one side of the estimate, so its interval cannot be told",
            "bootstrap a smooth statistic, not an extreme",
        )
    bias = stats.norm.ppf(below)
    tails = stats.t.ppf([0.5 - level / 2, 0.5 + level / 2], n - 1) * np.sqrt(n / (n - 1))
    shifted = bias + tails
    return np.asarray(stats.norm.cdf(bias + shifted / (1 - acceleration * shifted)))
