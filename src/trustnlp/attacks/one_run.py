"""One-run lower bound on epsilon: one training, many canaries, each included by the toss of a fair coin.

The auditor sees what training gave out, guesses of some canaries whether they were in, and abstains on the rest. Of
guesses on (epsilon, delta)-private training, few more can be right than an e^epsilon-biased coin would get. Three
analyses say how many:

    binomial     any training: P[right >= v] <= beta + 2 m delta alpha, below (Steinke et al. 2023)
    approximate  any training, by the recursion of Mahloujifar et al. 2024 on the curve of (epsilon, delta): sharper
                 than `binomial` where m delta counts (10,000 canaries at 1e-5), else about the same
    f-dp         the same recursion on a Gaussian curve: sharper, and needs training to be a Gaussian mechanism

m canaries can show at most about ln(m / 3) at 95% and delta 0 by the first two, which is the bound's `cap`.

How many guesses to make (`from_scores`) is fixed in advance, or the best of several numbers, each tested at its share
of the error.

Source: Steinke, Nasr and Jagielski 2023, "Privacy Auditing with One (1) Training Run", arXiv:2305.08846,
appendix D; Mahloujifar, Melis and Chaudhuri 2024, "Auditing f-Differential Privacy in One Run", arXiv:2410.22235,
algorithm 3.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from trustnlp import checks
from trustnlp.attacks.lower_bound import Array, LowerBound, checked_delta, finite_scores, largest_rejected, untied
from trustnlp.attacks.trade_off import ApproximateDP, Curve, GaussianDP
from trustnlp.errors import ArgumentError, GuaranteeError

Analysis = Literal["f-dp", "binomial", "approximate"]
Sides = Literal["both", "top"]

SOURCES = {
    "binomial": "Steinke et al. 2023, arXiv:2305.08846, appendix D",
    "approximate": "Mahloujifar et al. 2024, arXiv:2410.22235, algorithm 3",
    "f-dp": "Mahloujifar et al. 2024, arXiv:2410.22235, algorithm 3",
}
_FEWEST = 16  # guesses of the smallest number that is tried: fewer could not show an epsilon of 2
_IMPOSSIBLE = 1e-9


def lower_bound(
    correct: int, guesses: int, canaries: int, *, delta: float, level: float = 0.95, analysis: Analysis = "f-dp"
) -> LowerBound:
    """The largest epsilon that `correct` right guesses refute with confidence `level`.

    The number of guesses must have been fixed without looking at which canaries were included.

    Args:
        correct, guesses, canaries: 0 <= correct <= guesses <= canaries, guesses >= 1; canaries that were not guessed
            count as well.
        delta: in [0, 1); above 0 for `f-dp`.
        level: in (0, 1).
        analysis: see above.

    Raises:
        ArgumentError: an argument breaks its rule.
    """
    _check(delta, level, analysis)
    checks.at_least("correct", correct, 0)
    if checks.at_least("guesses", guesses, 1) < correct:
        raise ArgumentError("correct", f"at most the {guesses} guesses", correct)
    if checks.at_least("canaries", canaries, 1) < guesses:
        raise ArgumentError("guesses", f"at most the {canaries} canaries", guesses)
    return _best({guesses: correct}, canaries, delta, level, analysis)


def from_scores(
    scores: ArrayLike,
    included: ArrayLike,
    *,
    delta: float,
    level: float = 0.95,
    analysis: Analysis = "f-dp",
    guesses: int | None = None,
    sides: Sides = "both",
    generator: np.random.Generator,
) -> LowerBound:
    """The largest epsilon that the scores of canaries refute with confidence `level`.

    The canaries of the highest scores are guessed to have been in and, unless `sides` is `top`, as many of the lowest
    to have been out.

    Args:
        scores: (m,), higher = more like "was in"; any function of what training gave out, but not of `included`.
        included: (m,) bool, m independent fair coins tossed before training. Exactly half by design is not that.
        delta, level, analysis: as for `lower_bound`.
        guesses: how many, fixed in advance; None tries m, m/2, m/4, ... down to 16, each at its share of the error.
        sides: guess at both ends of the scores or at the top only.
        generator: orders tied scores.

    Raises:
        ArgumentError: an argument breaks its rule.
        GuaranteeError: a score is NaN or infinite, or the coins cannot have been fair.
    """
    _check(delta, level, analysis)
    checks.one_of("sides", sides, ("both", "top"))
    found, coins = finite_scores("scores", scores), _coins(included)
    canaries = checks.same_length(scores=found, included=coins)
    if guesses is not None and checks.at_least("guesses", guesses, 1) > canaries:
        raise ArgumentError("guesses", f"at most the {canaries} canaries", guesses)
    ordered = coins[np.argsort(-untied(found, generator))]
    numbers = numbers_of_guesses(canaries) if guesses is None else [guesses]
    return _best({number: _right(ordered, number, sides) for number in numbers}, canaries, delta, level, analysis)


def numbers_of_guesses(canaries: int) -> list[int]:
    """m, m/2, m/4, ... down to 16: the numbers of guesses that are tried where none is given."""
    numbers = [canaries]
    while numbers[-1] // 2 >= _FEWEST:
        numbers.append(numbers[-1] // 2)
    return numbers


def p_value(correct: int, guesses: int, canaries: int, epsilon: float, delta: float) -> float:
    """The probability of at least `correct` right guesses, at most, under (epsilon, delta)-privacy; in [0, 1].

    beta + 2 m delta alpha with W ~ Bin(guesses, e^eps / (1 + e^eps)), beta = P[W >= v] and
    alpha = max over 1 <= i <= v of P[v > W >= v - i] / i. Steinke et al. 2023, appendix D.
    """
    accuracy = float(special.expit(epsilon))
    beta = float(stats.binom.sf(correct - 1, guesses, accuracy))
    if delta == 0 or correct == 0:
        return min(beta, 1.0)
    below = stats.binom.pmf(np.arange(correct - 1, -1, -1), guesses, accuracy)
    alpha = float((np.cumsum(below) / np.arange(1, correct + 1)).max())
    return min(beta + 2 * canaries * delta * alpha, 1.0)


def curve_rejected(correct: int, guesses: int, canaries: int, curve: Curve, strength: float, error: float) -> bool:
    """Is P[right >= correct] below `error` for every mechanism of the curve?

    Suppose it were `error`. With p_i the probability of i right guesses of c, let r_k = sum over i >= k of (i / m) p_i
    and h_k = sum over i >= k of ((c - i) / m) p_i. A canary's flip turns its right guess into a wrong one, so the curve
    limits r_k by the power at h_(k-1). At least, r and h start with all of `error` on v right guesses; going down,
    each h must be large enough for the r above it, and the p_i that this takes makes r larger in turn. Where the p_i
    come to more than 1 (r + h above c / m), no mechanism of the curve is so good. Mahloujifar et al. 2024, algorithm 3.
    """
    right, wrong = error * correct / canaries, error * (guesses - correct) / canaries
    room = guesses / canaries
    for i in range(correct - 1, -1, -1):
        more = curve.inverse(right, strength) - wrong
        if more <= 0:
            return False  # nothing changes from here on
        wrong += more
        right += more * i / (guesses - i)
        if right + wrong > room:
            return True
    return False


def _best(found: dict[int, int], canaries: int, delta: float, level: float, analysis: Analysis) -> LowerBound:
    """The best of several numbers of guesses (guesses -> right ones), each at its share of the error."""
    error = (1 - level) / len(found)
    bounds = {number: _bound(right, number, canaries, error, delta, analysis) for number, right in found.items()}
    best = max(bounds, key=lambda number: bounds[number])
    details = {"guesses": best, "correct": found[best], "canaries": canaries, "numbers_tried": len(found)}
    return LowerBound(
        epsilon=bounds[best],
        cap=max(_bound(number, number, canaries, error, delta, analysis) for number in found),
        level=level,
        delta=delta,
        n=canaries,
        method=f"one-run-{analysis}",
        details=details,
        assumes=_curve(analysis, delta).assumes,
        source=SOURCES[analysis],
    )


@lru_cache(maxsize=65536)
def _bound(correct: int, guesses: int, canaries: int, error: float, delta: float, analysis: Analysis) -> float:
    if analysis == "binomial":
        return largest_rejected(lambda epsilon: p_value(correct, guesses, canaries, epsilon, delta) <= error)
    curve = _curve(analysis, delta)
    return curve.epsilon(
        largest_rejected(lambda strength: curve_rejected(correct, guesses, canaries, curve, strength, error))
    )


def _curve(analysis: Analysis, delta: float) -> Curve:
    return GaussianDP(delta) if analysis == "f-dp" else ApproximateDP(delta)


def _right(ordered: Array, guesses: int, sides: Sides) -> int:
    """Right guesses of `guesses`, where `ordered` says of each canary, highest score first, whether it was in."""
    low = guesses // 2 if sides == "both" else 0
    top, bottom = ordered[: guesses - low], ordered[len(ordered) - low :]
    return int(top.sum() + (~bottom).sum())


def _coins(included: ArrayLike) -> Array:
    coins = np.asarray(included)
    if coins.dtype != bool or coins.ndim != 1:
        raise ArgumentError("included", "a list of booleans", f"{coins.dtype} of shape {coins.shape}")
    heads = int(coins.sum())
    if len(coins) and stats.binomtest(heads, len(coins)).pvalue < _IMPOSSIBLE:
        raise GuaranteeError(
            f"{heads} of {len(coins)} canaries were included, which fair coins do not give",
            "toss a fair coin for each canary, and give the scores of those left out as well",
        )
    return coins


def _check(delta: float, level: float, analysis: Analysis) -> None:
    checked_delta(delta)
    checks.inside("level", level, 0, 1)
    checks.one_of("analysis", analysis, tuple(SOURCES))
    _curve(analysis, delta)
