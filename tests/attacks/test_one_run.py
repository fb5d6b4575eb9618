from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from trustnlp.attacks import one_run
from trustnlp.attacks.one_run import curve_rejected, from_scores, lower_bound, numbers_of_guesses, p_value
from trustnlp.attacks.trade_off import ApproximateDP, GaussianDP, gaussian_epsilon
from trustnlp.errors import ArgumentError, GuaranteeError

ANALYSES = ["f-dp", "binomial", "approximate"]
DELTA = 1e-5


def bound(scores, included, *, delta=DELTA, seed=0, **options):
    return from_scores(scores, included, delta=delta, generator=np.random.default_rng(seed), **options)


def gaussian_canaries(seed, canaries, mu):
    """Scores of independent canaries, each seen through N(0, 1) noise."""
    generator = np.random.default_rng(seed)
    included = generator.random(canaries) < 0.5
    return mu * included + generator.normal(size=canaries), included


# The binomial analysis


def slow_p_value(correct, guesses, canaries, accuracy, delta):
    """Oracle: the definition in exact arithmetic."""
    weights = [
        math.comb(guesses, k) * accuracy**k * (1 - accuracy) ** (guesses - k) for k in range(guesses + 1)
    ]  # of Bin(guesses, accuracy)
    beta = sum(weights[correct:])
    alpha = max((sum(weights[correct - i : correct]) / i for i in range(1, correct + 1)), default=Fraction(0))
    return float(min(beta + 2 * canaries * delta * alpha, Fraction(1)))


@given(
    guesses=st.integers(1, 25),
    share=st.floats(0, 1),
    spared=st.integers(0, 30),
    odds=st.integers(1, 40),
    delta=st.sampled_from([Fraction(0), Fraction(1, 10**6), Fraction(1, 1000), Fraction(1, 10)]),
)
def test_the_p_value_is_that_of_its_definition(guesses, share, spared, odds, delta):
    correct, canaries, accuracy = round(share * guesses), guesses + spared, Fraction(odds, odds + 1)
    found = p_value(correct, guesses, canaries, math.log(odds), float(delta))
    assert found == pytest.approx(slow_p_value(correct, guesses, canaries, accuracy, delta), rel=1e-9)


@pytest.mark.parametrize(("correct", "guesses", "canaries"), [(75, 100, 1000), (90_000, 100_000, 100_000)])
@pytest.mark.parametrize("delta", [0.0, 1e-9, 1e-5, 1e-3])
def test_the_p_value_grows_with_epsilon(correct, guesses, canaries, delta):
    """So the first epsilon that is not rejected is the only crossing, and the bound is the largest that is."""
    found = [p_value(correct, guesses, canaries, epsilon, delta) for epsilon in np.linspace(0, 12, 40)]
    assert (np.diff(found) >= -1e-12).all()


@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "delta", "published"),
    [(1000, 100, 75, 1e-4, 0.673), (100_000, 1510, 1439, 1e-5, 2.675)],
)
def test_the_values_that_the_paper_prints(canaries, guesses, correct, delta, published):
    """Steinke et al. 2023, arXiv:2305.08846v1, appendix D (page 46) and section 7 (page 28), at 95%."""
    found = lower_bound(correct, guesses, canaries, delta=delta, analysis="binomial")
    assert found.epsilon == pytest.approx(published, abs=1e-3)


# The recursion on a trade-off curve


def most_likely(correct, guesses, canaries, curve, strength):
    """Oracle: the largest P[right >= correct] under all constraints at once, as a linear programme.

    The concave curve is the minimum of its tangents, here of 300 of them, so the answer is at most a little too large.
    """
    numbers = np.arange(guesses + 1)
    touching = stats.norm.cdf(np.linspace(-4.5, 4.5, 300))
    heights = curve.power(touching, strength)
    step = 1e-3 * np.minimum(touching, 1 - touching)
    slopes = (curve.power(touching + step, strength) - heights) / step
    heights = heights - slopes * touching
    rows, limits = [], []
    for k in range(1, correct + 1):
        right = np.where(numbers >= k, numbers / canaries, 0)
        wrong = np.where(numbers >= k - 1, (guesses - numbers) / canaries, 0)
        rows += [right - slope * wrong for slope in slopes]
        limits += list(heights)
    found = optimize.linprog(
        -(numbers >= correct).astype(float),
        A_ub=np.array(rows),
        b_ub=limits,
        A_eq=np.ones((1, guesses + 1)),
        b_eq=[1.0],
        method="highs",
    )
    return -found.fun


@pytest.mark.parametrize(
    ("correct", "guesses", "canaries", "curve", "strength"),
    [
        (9, 10, 10, GaussianDP(1e-5), 1.0),
        (14, 20, 30, GaussianDP(1e-5), 0.6),
        (10, 12, 12, ApproximateDP(0.0), 1.0),
        (17, 20, 40, ApproximateDP(0.01), 0.8),
        (24, 24, 24, GaussianDP(1e-5), 2.5),
    ],
)
def test_the_recursion_finds_the_best_mechanism(correct, guesses, canaries, curve, strength):
    most = most_likely(correct, guesses, canaries, curve, strength)
    assert 1e-4 < most < 0.99
    assert curve_rejected(correct, guesses, canaries, curve, strength, most * 1.02)
    assert not curve_rejected(correct, guesses, canaries, curve, strength, most * 0.98)


@pytest.mark.parametrize("curve", [ApproximateDP(0.0), ApproximateDP(1e-4), GaussianDP(1e-5)])
def test_a_weaker_claim_is_rejected_first(curve):
    strengths = np.linspace(0, 5, 60)
    for correct in (55, 70, 95):
        rejected = [curve_rejected(correct, 100, 200, curve, strength, 0.05) for strength in strengths]
        assert rejected == sorted(rejected, reverse=True)


# Both


@pytest.mark.parametrize("analysis", ["binomial", "approximate"])
@pytest.mark.parametrize(("canaries", "epsilon"), [(30, 1.0), (200, 0.5), (200, 3.0), (1000, 2.0)])
def test_randomised_response_is_never_accused_too_often(analysis, canaries, epsilon):
    """The false alarms of the most revealing epsilon-private mechanism, summed over all outcomes: no simulation."""
    right = np.arange(canaries + 1)
    weights = stats.binom.pmf(right, canaries, 1 / (1 + math.exp(-epsilon)))
    alarms = sum(
        weight
        for correct, weight in zip(right.tolist(), weights, strict=True)
        if weight > 1e-9 and lower_bound(correct, canaries, canaries, delta=0.0, analysis=analysis).epsilon > epsilon
    )
    assert alarms <= 0.05 + 1e-6
    if analysis == "binomial":
        assert alarms > 0.02  # exact, but for the steps of the count


@pytest.mark.parametrize("analysis", ANALYSES)
@pytest.mark.parametrize(("canaries", "mu"), [(30, 0.5), (200, 1.0), (500, 3.0)])
def test_gaussian_canaries_are_never_accused_too_often(analysis, canaries, mu):
    truth, right = gaussian_epsilon(mu, DELTA), np.arange(canaries + 1)
    weights = stats.binom.pmf(right, canaries, stats.norm.cdf(mu / 2))
    alarms = sum(
        weight
        for correct, weight in zip(right.tolist(), weights, strict=True)
        if weight > 1e-9 and lower_bound(correct, canaries, canaries, delta=DELTA, analysis=analysis).epsilon > truth
    )
    assert alarms <= 0.05 + 1e-6


@pytest.mark.parametrize("canaries", [100, 1000, 5000])
def test_the_cap_is_the_one_to_print(canaries):
    cap = lower_bound(canaries, canaries, canaries, delta=0.0, analysis="binomial").cap
    assert cap == pytest.approx(math.log(canaries / math.log(20)), abs=0.02)
    assert lower_bound(canaries // 2, canaries, canaries, delta=0.0, analysis="binomial").cap == cap


def test_a_hundred_thousand_canaries_are_no_trouble():
    for analysis in ANALYSES:
        found = lower_bound(85_000, 100_000, 100_000, delta=1e-9, analysis=analysis)
        assert math.log(0.85 / 0.15) - 0.05 < found.epsilon < found.cap


def test_bounds_approach_the_truth_from_below():
    """Canaries behind N(0, 1) noise, mu = 1: every analysis climbs with m, and the right family of curves highest."""
    truth = gaussian_epsilon(1.0, DELTA)
    table = {
        analysis: [
            np.mean([bound(*gaussian_canaries(seed, m, 1.0), analysis=analysis).epsilon for seed in range(6)])
            for m in (100, 1000, 10_000)
        ]
        for analysis in ANALYSES
    }
    for row in table.values():
        assert row[0] < row[1] < row[2] < truth
    assert table["f-dp"][2] > 0.55 * truth


PEER = [  # correct, guesses, canaries, delta, epsilon by the binomial and by the f-DP analysis
    (75, 100, 1000, 1e-4, 0.672985, 0.841724),
    (700, 1000, 1000, 1e-5, 0.731741, 1.371980),
    (470, 500, 1000, 1e-6, 2.435340, 4.766201),
    (48, 50, 200, 1e-5, 1.984032, 3.554188),
    (400, 400, 5000, 1e-6, 4.877088, 8.246288),
    (1439, 1510, 100_000, 1e-5, 2.675851, 3.309084),
    (40, 64, 64, 1e-5, 0.058938, 0.090980),
]


@pytest.mark.parametrize(("correct", "guesses", "canaries", "delta", "binomial", "f_dp"), PEER)
def test_bounds_are_those_of_jax_privacy(correct, guesses, canaries, delta, binomial, f_dp):
    """Golden values by jax_privacy 2.0.0 (PyPI), its `auditing.py` loaded by path, with NumPy 2 and dp-accounting 0.6:

    auditing._epsilon_one_run(0.0, canaries, guesses, correct, 0.05, delta)
    auditing._epsilon_one_run_fdp(0.0, canaries, guesses, correct, 0.05, delta)
    """
    for analysis, golden in (("binomial", binomial), ("f-dp", f_dp)):
        found = lower_bound(correct, guesses, canaries, delta=delta, analysis=analysis)
        assert found.epsilon == pytest.approx(golden, abs=6e-6)


@pytest.mark.parametrize(
    ("correct", "guesses", "canaries", "epsilon", "delta", "golden"),
    [
        (75, 100, 1000, 1.0, 1e-4, 0.40055451445360446),
        (940, 1000, 1000, 2.5, 1e-5, 0.030811764687665548),
        (30, 50, 200, 0.5, 1e-3, 0.7227971281207719),
    ],
)
def test_p_values_are_those_of_jax_privacy(correct, guesses, canaries, epsilon, delta, golden):
    """auditing._one_run_p_value(canaries, guesses, correct, epsilon, delta), made as above."""
    assert p_value(correct, guesses, canaries, epsilon, delta) == pytest.approx(golden, rel=1e-9)


# Scores


def test_guesses_are_made_at_both_ends_or_at_the_top():
    scores = np.arange(8.0)
    included = np.array([False, True, False, False, True, True, False, True])
    both = bound(scores, included, guesses=4, analysis="binomial").details
    assert (both["correct"], both["guesses"], both["canaries"]) == (2, 4, 8)  # 7 in, 6 out; 0 out, 1 in
    top = bound(scores, included, guesses=4, sides="top", analysis="binomial").details
    assert top["correct"] == 3
    every = bound(scores, included, guesses=8, analysis="binomial").details
    assert every["correct"] == 6


def test_the_best_number_of_guesses_is_paid_for():
    assert numbers_of_guesses(1000) == [1000, 500, 250, 125, 62, 31]
    assert numbers_of_guesses(10) == [10]
    scores, included = gaussian_canaries(0, 1000, 0.0)
    scores[included] += 4.0 * (np.random.default_rng(1).random(included.sum()) < 0.1)  # few leak, but much
    tried = bound(scores, included, sides="top", analysis="binomial")
    few = tried.details["guesses"]
    assert few < 1000
    assert tried.details["numbers_tried"] == 6
    paid = lower_bound(tried.details["correct"], few, 1000, delta=DELTA, level=1 - 0.05 / 6, analysis="binomial")
    assert tried.epsilon == paid.epsilon > bound(scores, included, guesses=1000, analysis="binomial").epsilon


def test_the_order_of_canaries_gives_nothing_away():
    """Constant scores, those included listed first: to keep ties in their order would be a perfect attack."""
    included = np.repeat([True, False], 100)
    alarms = [
        bound(np.zeros(200), included, seed=seed, analysis="binomial", delta=0.0).epsilon > 0 for seed in range(300)
    ]
    assert np.mean(alarms) <= 0.05


# Bad input


def test_bad_input_is_refused():
    scores, included = np.arange(4.0), np.array([True, False, True, False])
    with pytest.raises(GuaranteeError, match="scores"):
        bound([0.0, 1.0, 2.0, float("nan")], included)
    with pytest.raises(ArgumentError, match="one length"):
        bound(scores, included[:3])
    with pytest.raises(ArgumentError, match="booleans"):
        bound(scores, [0.2, 0.5, 1.0, 0.0])
    with pytest.raises(ArgumentError, match="guesses"):
        bound(scores, included, guesses=5)
    for bad in ({"analysis": "best"}, {"sides": "left"}, {"level": 0.0}, {"delta": -1e-9}, {"delta": 0.0}):
        with pytest.raises(ArgumentError):
            bound(scores, included, **bad)
    for counts in ((3, 2, 4), (1, 5, 4), (0, 0, 4), (-1, 2, 4)):
        with pytest.raises(ArgumentError):
            lower_bound(*counts, delta=DELTA)


def test_coins_that_cannot_have_been_fair_are_refused():
    with pytest.raises(GuaranteeError, match="fair coin"):
        bound(np.arange(100.0), np.ones(100, dtype=bool))
    assert one_run._coins(np.arange(100) % 2 == 0).sum() == 50
