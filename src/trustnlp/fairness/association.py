"""Differential association of two sets of targets with two sets of attributes: what WEAT, SEAT and CEAT share.

    s(w, A, B) = mean over a in A of cos(w, a) - mean over b in B of cos(w, b)                         association
    d          = (mean over X of s - mean over Y of s) / std over X and Y together of s, ddof = 1      effect size

d is 0 where X and Y are associated alike, above 0 where X is nearer to A. With n and m targets and N = n + m it is no
Cohen's d, whose divisor is the spread within the sets, but a correlation in disguise: r = d sqrt(n m / (N (N - 1))) is
the point-biserial correlation of association and set. So |d| < sqrt(N (N - 1) / (n m)), about 2 for equal sets, and

    g = r / sqrt(1 - r^2) sqrt(N (N - 2) / (n m)),    t = g sqrt(n m / N)                               Cohen's d and t

Targets are a sample of the words that could have stood for their sets; attributes define what is measured and are held
fixed, as the permutation test of the source does. A target may be measured several times (a word in many sentences):
targets are then the units, their repetitions never are.

Source: Caliskan, Bryson and Narayanan 2017, Science 356:183-186; ddof = 1 is what their published figures follow.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain, combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from trustnlp import checks
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.fairness.metric import Metric, Scope, minimum_detectable_effect
from trustnlp.results import Finding
from trustnlp.uncertainty import Interval, bonferroni, bootstrap, holm

Array = NDArray[np.float64]

FEWEST_TARGETS = 5
"""Below this many targets in a set no figure is judged: their spread is hardly known."""

_ENUMERATED = 200_000  # partitions: 10 against 10 targets are 184,756
_GRID = 4_000  # points of the chi distribution
_BLOCK = 2_000  # partitions at a time: bounds memory to a few dozen MB


@dataclass(frozen=True, eq=False)
class Scores:
    """Associations of the targets of two sets.

    Args:
        x, y: (n, R) and (m, R), a row for each target, a column for each of its repetitions (R = 1 for word vectors).
        variances: (R,) the square of what the difference of means is divided by; that of all values of each
            repetition without it.

    Raises:
        ArgumentError: a set without targets, or sets with different numbers of repetitions.
        GuaranteeError: a value that is NaN or infinite, or all associations of one repetition the same.
    """

    x: Array
    y: Array
    variances: Array = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        shapes = [np.shape(side) for side in (self.x, self.y)]
        if any(len(shape) != 2 or 0 in shape for shape in shapes) or shapes[0][1] != shapes[1][1]:
            raise ArgumentError("x", "of shape (n, R) beside y of shape (m, R)", shapes)
        if not np.isfinite(self.both).all():
            raise GuaranteeError("an association is NaN or infinite", "look for damaged vectors")
        if len(self.both) < 2 or (np.ptp(self.both, axis=0) <= 1e-12).any():
            raise GuaranteeError("all targets have the same association", "an effect size needs targets that differ")
        if not self.variances.size:
            object.__setattr__(self, "variances", self.both.var(axis=0, ddof=1))

    @property
    def both(self) -> Array:
        """(n + m, R), first the targets of x."""
        return np.concatenate([self.x, self.y])

    @property
    def sizes(self) -> tuple[int, int]:
        """n and m."""
        return len(self.x), len(self.y)


def unit_vectors(vectors: ArrayLike) -> Array:
    """(n, d) vectors of length 1 in the direction of `vectors`.

    Raises:
        GuaranteeError: a vector of length 0, NaN or infinite has no direction.
    """
    array = np.asarray(vectors, dtype=float)
    lengths = np.linalg.norm(array, axis=-1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise GuaranteeError("a vector has length 0, NaN or infinity, so it has no direction", "leave its word out")
    return np.asarray(array / lengths)


def associations(targets: ArrayLike, a: ArrayLike, b: ArrayLike) -> Array:
    """s(w, A, B) of each target, (n,), in (-2, 2); 0 is no preference, above 0 is nearer to A.

    Args:
        targets, a, b: (n, d), (k, d) and (l, d) vectors.

    Raises:
        GuaranteeError: a vector without direction.
    """
    axis = unit_vectors(a).mean(axis=0) - unit_vectors(b).mean(axis=0)
    return np.asarray(unit_vectors(targets) @ axis)


def effect_sizes(scores: Scores) -> Array:
    """d of each repetition, (R,)."""
    return np.asarray((scores.x.mean(axis=0) - scores.y.mean(axis=0)) / np.sqrt(scores.variances))


def sampling_variance(d: ArrayLike, n: int, m: int) -> Array:
    """The variance of effect sizes d over samples of n and m targets, of the shape of d.

    The large-sample variance of Cohen's d, N / (n m) + g^2 / (2 (N - 2)) (Hedges and Olkin 1985, Statistical Methods
    for Meta-Analysis, chapter 5), carried over to this d by the delta method. Normal associations are assumed.
    """
    d, total, within = np.asarray(d, dtype=float), n + m, n + m - 2
    g = _cohen(d, n, m)
    slope = math.sqrt(total - 1) * within / (within + n * m / total * g**2) ** 1.5
    return np.asarray(slope**2 * (total / (n * m) + g**2 / (2 * within)))


def effect_interval(scores: Scores, level: float = 0.95) -> Interval:
    """The interval of the effect size, meaned over repetitions, over targets.

    For one repetition it is the exact interval of Cohen's d by the noncentral t distribution (Hedges and Olkin 1985,
    chapter 5; Steiger and Fouladi 1997), with its ends on the scale of this d: exact for normal associations of
    equal spread. With repetitions it is of the means of the targets, and the spread within targets, which widens the
    divisor of d, is taken as known; so the repetitions of one target, and whatever they have in common, count once.

    Args:
        scores: what was measured.
        level: coverage, in (0, 1).

    Raises:
        GuaranteeError: fewer than 3 targets, or means that do not differ within either set.
    """
    checks.inside("level", level, 0, 1)
    n, m = scores.sizes
    x, y = scores.x.mean(axis=1), scores.y.mean(axis=1)
    within = np.sqrt((((x - x.mean()) ** 2).sum() + ((y - y.mean()) ** 2).sum()) / max(n + m - 2, 1))
    if n + m < 3 or not within > 1e-12:
        raise GuaranteeError("targets of one set that do not differ tell nothing of others", "measure more targets")
    g = float((x.mean() - y.mean()) / within)

    def on_scale(other: float) -> float:
        moved = n * m / ((n + m) * (n + m - 1)) * (other**2 - g**2) * within**2
        return float(other * within / math.sqrt(scores.variances.mean() + moved))

    root, freedom = math.sqrt(n * m / (n + m)), n + m - 2
    besides = scores.variances.mean() - n * m / ((n + m) * (n + m - 1)) * (g * within) ** 2
    share = min(1.0, float(freedom / (freedom + 1) * within**2 / besides))
    tails = (0.5 + level / 2, 0.5 - level / 2)
    low, high = (on_scale(_noncentrality(g * root, freedom, tail, share) / root) for tail in tails)
    value = float(effect_sizes(scores).mean())
    shift = value - on_scale(g)  # the mean of d differs a little from the d of means
    return Interval(min(low + shift, value), max(high + shift, value), level)


@dataclass(frozen=True)
class Permutation:
    """What a permutation test found.

    Args:
        two_sided, one_sided: p-values in (0, 1]; one-sided against X nearer to A than Y.
        partitions: how many were looked at.
        exact: whether these are all there are.
    """

    two_sided: float
    one_sided: float
    partitions: int
    exact: bool


def permutation_test(scores: Scores, generator: np.random.Generator, *, samples: int = 9_999) -> Permutation:
    """Whether so large an effect size, meaned over repetitions, comes from assigning targets to X and Y at random.

    Valid at any n under the null hypothesis that targets of X and Y are exchangeable. All partitions into sets of n
    and m are enumerated where there are at most 200,000 of them; otherwise `samples` are drawn and p = (b + 1) /
    (samples + 1) (Phipson and Smyth 2010), never 0. A target goes with all its repetitions.

    Args:
        scores: what was measured.
        generator: drawn from, unless all partitions are enumerated.
        samples: at least 99.
    """
    checks.at_least("samples", samples, 99)
    n, m = scores.sizes
    exact = math.comb(n + m, n) <= _ENUMERATED
    values = (scores.both / np.sqrt(scores.variances)).mean(axis=1)
    observed = float(effect_sizes(scores).mean())
    seen = above = beyond = 0
    for chosen in _all_partitions(n, m) if exact else _drawn_partitions(n, m, samples, generator):
        first = chosen @ values
        found = first / n - (values.sum() - first) / m
        seen += len(found)
        # Rounding must not lose the observed partition and its mirror image.
        above += int((found >= observed - 1e-9).sum())
        beyond += int((np.abs(found) >= abs(observed) - 1e-9).sum())
    one, two = (above / seen, beyond / seen) if exact else ((above + 1) / (seen + 1), (beyond + 1) / (seen + 1))
    return Permutation(two, one, seen, exact)


@dataclass(frozen=True, eq=False)
class Measured:
    """What one test measured, before it is judged.

    Args:
        name: of the test.
        scores: None where a set has nothing that could be measured.
        details: what the finding says besides.
    """

    name: str
    scores: Scores | None
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """What scores amount to: the arguments of `Metric.finding`."""

    value: float
    interval: Interval
    minimum_detectable_effect: float | None
    details: Mapping[str, Any]


def judged(
    metric: Metric,
    tests: Sequence[Measured],
    scope: Scope,
    generator: np.random.Generator,
    level: float,
    samples: int,
    figure: Callable[[Scores, float, np.random.Generator], Figure] | None = None,
) -> tuple[Finding, ...]:
    """A finding `<metric>-<name>` for each test: with several, intervals hold at once and p-values are Holm's.

    Args:
        metric, tests, scope: what was measured.
        generator: drawn from.
        level: coverage of all intervals at once, in (0, 1).
        samples: as for `permutation_test`.
        figure: what the finding tells of the scores; their effect size without it.

    Raises:
        ArgumentError: no test, or two whose names become the same id.
    """
    checks.not_empty("tests", tests)
    metrics = [
        replace(metric, id=f"{metric.id}-{_slug(test.name)}", title=f"{metric.title}: {test.name}") for test in tests
    ]
    if len({each.id for each in metrics}) < len(metrics):
        names = [test.name for test in tests]
        raise ArgumentError("tests", "of different names (letters and digits count)", names, "rename one")
    found = [test.scores if _is_enough(test.scores) else None for test in tests]
    permuted = [None if scores is None else permutation_test(scores, generator, samples=samples) for scores in found]
    p_values = [permutation.two_sided for permutation in permuted if permutation is not None]
    adjusted = iter(holm(p_values) if p_values else ())
    each = bonferroni(level, max(len(p_values), 1))
    findings = []
    for own, test, scores, permutation in zip(metrics, tests, found, permuted, strict=True):
        if scores is None or permutation is None:
            sizes = (0, 0) if test.scores is None else test.scores.sizes
            reason = f"{sizes[0]} and {sizes[1]} words could be measured; {FEWEST_TARGETS} are needed of either set"
            findings.append(own.unmeasured(scope, reason, n=sum(sizes), details=test.details))
            continue
        told = {
            "p_two_sided": permutation.two_sided,
            "p_one_sided": permutation.one_sided,
            "p_holm": float(next(adjusted)),
            "partitions": permutation.partitions,
            "exact": permutation.exact,
            "tests": len(p_values),
        }
        found_figure = (figure or effect_figure)(scores, each, generator)
        findings.append(
            own.finding(
                scope,
                found_figure.value,
                found_figure.interval,
                n=sum(scores.sizes),
                minimum_detectable_effect=found_figure.minimum_detectable_effect,
                details={**told, **test.details, **found_figure.details},
            )
        )
    return tuple(findings)


def effect_figure(scores: Scores, level: float, generator: np.random.Generator) -> Figure:
    """The effect size, meaned over repetitions, with its interval; in the details, the BCa interval over targets."""
    beside = scores.variances - scores.both.var(axis=0, ddof=1)  # what the divisor holds besides the targets' spread

    def resampled(x: Array, y: Array) -> Array:
        variances = np.concatenate([x, y], axis=1).var(axis=1, ddof=1) + beside
        return np.asarray(((x.mean(axis=1) - y.mean(axis=1)) / np.sqrt(variances)).mean(axis=1))

    rival = bootstrap(resampled, scores.x, scores.y, generator=generator, level=level, replicates=1000)
    return Figure(
        float(effect_sizes(scores).mean()),
        effect_interval(scores, level),
        _detectable(scores, level),
        {"bootstrap": {"low": rival.low, "high": rival.high}},
    )


def _is_enough(scores: Scores | None) -> bool:
    return scores is not None and min(scores.sizes) >= FEWEST_TARGETS


def _detectable(scores: Scores, level: float) -> float | None:
    """The minimum detectable effect of such targets without any effect; None if it is more than an effect can be."""
    n, m = scores.sizes
    gap = scores.x.mean(axis=0) - scores.y.mean(axis=0)
    variances = scores.variances - n * m / ((n + m) * (n + m - 1)) * gap**2
    none = Scores(scores.x - gap, scores.y, variances)
    found = minimum_detectable_effect(effect_interval(none, level))
    return found if found < math.sqrt((n + m) * (n + m - 1) / (n * m)) else None


def _slug(name: str) -> str:
    spoken = re.sub(r"-$", " minus", name.lower().replace("+", " plus "))  # some tests differ in these alone
    return re.sub("[^a-z0-9]+", "-", spoken).strip("-")


def _all_partitions(n: int, m: int) -> Iterator[Array]:
    """Blocks of (P, n + m), 1 where a target is in the first set."""
    places = np.fromiter(chain.from_iterable(combinations(range(n + m), n)), dtype=np.int64).reshape(-1, n)
    for start in range(0, len(places), _BLOCK):
        block = places[start : start + _BLOCK]
        chosen = np.zeros((len(block), n + m))
        np.put_along_axis(chosen, block, 1.0, axis=1)
        yield chosen


def _drawn_partitions(n: int, m: int, samples: int, generator: np.random.Generator) -> Iterator[Array]:
    row = np.concatenate([np.ones(n), np.zeros(m)])
    for start in range(0, samples, _BLOCK):
        yield generator.permuted(np.tile(row, (min(_BLOCK, samples - start), 1)), axis=1)


def _cohen(d: Array, n: int, m: int) -> Array:
    """Cohen's d (spread within the sets) of an effect size d (spread of all)."""
    squared = np.minimum(d**2 * n * m / ((n + m) * (n + m - 1)), 1 - 1e-12)
    return np.asarray(np.sign(d) * np.sqrt(squared / (1 - squared) * (n + m) * (n + m - 2) / (n * m)))


def _noncentrality(t: float, freedom: int, probability: float, share: float = 1.0) -> float:
    """The noncentrality at which a noncentral t variable stays below `t` with this probability.

    Such a variable is (z + noncentrality) / w, with z normal and w^2 chi-square over its degrees of freedom. Where only
    a `share` of the variance in the divisor of an effect size is estimated and the rest is known, what is told is not
    the noncentrality but noncentrality * sqrt(1 + share (w^2 - 1)) / w, the effect in units of what was estimated. At
    share 1 the two are the same; at 0 the variable less what is told is Student's.

    The mean over a grid of w is right to about 1e-5 at any t; SciPy's distribution function is NaN in its far tails.
    """
    chi = _chi(freedom)
    slope = chi / np.sqrt(1 + share * (chi**2 - 1))

    def excess(effect: float) -> float:
        return float(special.ndtr(t * chi - effect * slope).mean()) - probability

    ends, reach = t * chi / slope, 10 / slope.min()
    return float(optimize.brentq(excess, ends.min() - reach, ends.max() + reach, xtol=1e-9))


@lru_cache(maxsize=16)
def _chi(freedom: int) -> Array:
    """The chi distribution over the root of its degrees of freedom, in points of equal probability."""
    return np.asarray(np.sqrt(stats.chi2.ppf((np.arange(_GRID) + 0.5) / _GRID, freedom) / freedom))
