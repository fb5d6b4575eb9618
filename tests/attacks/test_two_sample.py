from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from trustnlp.attacks import two_sample
from trustnlp.attacks.trade_off import ApproximateDP, GaussianDP, gaussian_epsilon
from trustnlp.attacks.two_sample import Threshold, cap, lower_bound, p_value, thresholds
from trustnlp.errors import ArgumentError, GuaranteeError

ANALYSES = ["joint", "clopper-pearson", "gaussian"]
CORRECTIONS = ["bonferroni", "split"]
DELTA = 1e-5


def normals(seed, inside=1000, outside=1000, shift=0.0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=inside) + shift, generator.normal(size=outside)


def bound(inside, outside, *, delta=DELTA, seed=0, **options):
    return lower_bound(inside, outside, delta=delta, generator=np.random.default_rng(seed), **options)


# The exact p-value


@pytest.mark.parametrize(("false", "others", "counted"), [(0, 5, 7), (2, 20, 30), (16, 500, 400), (0, 3000, 3000)])
def test_without_any_leak_the_p_value_counts_orders(false, others, counted):
    """Under exchangeability, the hits before the (k+1)-th other score are negative hypergeometric."""
    exact = stats.nhypergeom(counted + others, counted, false + 1)
    for hits in {1, counted // 50 + 1, counted // 10 + 1, counted // 3 + 1}:
        found = p_value(false, others, hits, counted, ApproximateDP(0.0), 0.0)
        assert found == pytest.approx(float(exact.sf(hits - 1)), rel=1e-6, abs=1e-11)


@pytest.mark.parametrize("curve", [ApproximateDP(0.0), ApproximateDP(0.01), GaussianDP(1e-5)])
@pytest.mark.parametrize("strength", [0.5, 2.0])
@pytest.mark.parametrize(("false", "others", "hits", "counted"), [(0, 50, 9, 40), (4, 200, 60, 150), (1, 30, 30, 30)])
def test_the_p_value_is_an_average_over_the_fpr(curve, strength, false, others, hits, counted):
    def part(fpr):
        power = float(curve.power(np.array([fpr]), strength)[0])
        return stats.binom.sf(hits - 1, counted, power) * stats.beta.pdf(fpr, false + 1, others - false)

    slow = integrate.quad(part, 0, 1, limit=500, points=[0.001, 0.01, 0.1], epsabs=1e-13)[0]
    assert p_value(false, others, hits, counted, curve, strength) == pytest.approx(slow, rel=1e-3, abs=1e-10)


def test_the_p_value_grows_with_the_claim_and_falls_with_the_hits():
    curve = ApproximateDP(1e-3)
    grid = np.array([[p_value(2, 100, hits, 80, curve, s) for s in np.linspace(0, 6, 30)] for hits in range(0, 81, 5)])
    assert (np.diff(grid, axis=1) >= -1e-12).all()
    assert (np.diff(grid, axis=0) <= 1e-12).all()
    assert p_value(2, 100, 0, 80, curve, 0.0) == 1


# Thresholds


def test_thresholds_double_up_to_half_a_side():
    found = thresholds(6, 20)
    assert [test.false for test in found if not test.mirrored] == [0, 1, 2, 4, 8]
    assert [test.false for test in found if test.mirrored] == [0, 1, 2]


def test_hits_lie_beyond_a_rank_of_the_other_side():
    inside, outside = np.array([5.0, 1.0, 9.0]), np.array([4.0, 2.0, 8.0, 0.0])
    assert Threshold(0, False).hits(inside, outside) == 1  # above 8
    assert Threshold(1, False).hits(inside, outside) == 2  # above 4
    assert Threshold(0, True).hits(inside, outside) == 1  # below 1
    assert Threshold(1, True).hits(inside, outside) == 3  # below 5


# The bound


def test_two_intervals_by_hand():
    """100 of 100 above all of 100 others: TPR_low and FPR_high are 0.025^(1/100) and 1 less that, uncorrected."""
    end = 0.025 ** (1 / 100)
    assert two_sample._bound_of(0, 100, 100, 100, 0.05, "clopper-pearson", 0.0) == pytest.approx(
        math.log(end / (1 - end))
    )
    found = stats.binomtest(40, 100).proportion_ci(0.95), stats.binomtest(3, 90).proportion_ci(0.95)
    by_hand = math.log((found[0].low - 0.01) / found[1].high)
    assert two_sample._bound_of(3, 90, 100, 40, 0.05, "clopper-pearson", 0.01) == pytest.approx(by_hand)


@pytest.mark.parametrize(("delta", "golden"), [(0.0, 1.7909448342766707), (1e-2, 1.740479168716051)])
def test_two_intervals_are_those_of_jax_privacy(delta, golden):
    """Golden values by jax_privacy 2.0.0 (PyPI), its `auditing.py` loaded by path, with dp-accounting 0.6:

    auditor = auditing.CanaryScoreAuditor([1] * 120 + [0] * 380, [1] * 9 + [0] * 491)
    auditor.epsilon_clopper_pearson(0.05, delta, threshold_strategy=auditing.Explicit(0.5))
    """
    found = two_sample._bound_of(9, 500, 500, 120, 0.05, "clopper-pearson", delta)
    assert found == pytest.approx(golden, rel=1e-9)
    assert two_sample._bound_of(9, 500, 500, 120, 0.05, "joint", delta) > golden


@pytest.mark.parametrize("analysis", ANALYSES)
@pytest.mark.parametrize("correction", CORRECTIONS)
def test_a_perfect_attack_reaches_the_cap_and_a_useless_one_shows_nothing(analysis, correction):
    inside, outside = normals(0, 300, 200)
    perfect = bound(inside + 100, outside, analysis=analysis, correction=correction)
    assert 2.5 < perfect.epsilon == perfect.cap
    assert bound(inside, outside, analysis=analysis, correction=correction).epsilon == 0
    assert bound(inside, outside, analysis=analysis, correction=correction).cap == perfect.cap
    assert perfect.method == f"two-sample-{analysis}"
    assert perfect.n == 500


def test_the_cap_grows_with_the_scores():
    caps = [cap(n, n, 0.05, "clopper-pearson", 0.0) for n in (100, 1000, 10_000)]
    assert caps == pytest.approx([math.log(end / (1 - end)) for end in (0.025 ** (1 / n) for n in (100, 1000, 10_000))])


@pytest.mark.parametrize("analysis", ANALYSES)
def test_a_leak_shows_at_either_end(analysis):
    inside, outside = normals(1, 500, 500)
    known, spared = inside.copy(), outside.copy()
    known[:100] += 20  # some that were in are recognised, so false positives are rare
    spared[:100] -= 20  # some that were out are recognised, so false negatives are rare
    for found in (bound(known, outside, analysis=analysis), bound(inside, spared, analysis=analysis)):
        assert found.epsilon > 1
    assert "false negatives" in bound(inside, spared, analysis=analysis).details["threshold"]
    assert "false positives" in bound(known, outside, analysis=analysis).details["threshold"]


@pytest.mark.parametrize("shift", [1.0, 2.0])
def test_the_joint_p_value_gives_the_larger_bounds(shift):
    joint, separate = (
        np.array([bound(*normals(seed, 400, 400, shift), analysis=name).epsilon for seed in range(15)])
        for name in ("joint", "clopper-pearson")
    )
    assert (joint > separate).mean() > 0.9
    assert (joint - separate).mean() > 0.1


def test_bounds_approach_the_truth_from_below():
    """N(0, 1) against N(1, 1): the bound by the right family of curves is tight, that for any mechanism is not."""
    truth = gaussian_epsilon(1.0, DELTA)
    table = {
        analysis: [
            np.mean([bound(*normals(seed, n, n, 1.0), analysis=analysis).epsilon for seed in range(10)])
            for n in (100, 1000, 10_000)
        ]
        for analysis in ANALYSES
    }
    for row in table.values():
        assert row[0] < row[1] < row[2] < truth
    assert table["gaussian"][2] > 0.85 * truth
    assert table["joint"][2] > table["clopper-pearson"][2]


def test_a_larger_delta_or_level_gives_a_smaller_bound():
    scores = normals(0, 500, 500, 2.0)
    assert bound(*scores, delta=0.1).epsilon < bound(*scores, delta=0.0).epsilon
    assert bound(*scores, level=0.999).epsilon < bound(*scores).epsilon


def test_ties_are_worth_a_coin():
    alarms = [bound(np.zeros(200), np.zeros(200), seed=seed, delta=0.0).epsilon > 0 for seed in range(300)]
    assert np.mean(alarms) <= 0.05


def test_an_unpaid_choice_of_the_threshold_raises_false_alarms():
    """The planted mistake that the corrections exist for."""
    alarms = 0
    for seed in range(400):
        ranks = np.random.default_rng(seed).permutation(1000)
        inside, outside = ranks[:500], ranks[500:]
        alarms += any(two_sample._bound(test, inside, outside, 0.05, "joint", 0.0) > 0 for test in thresholds(500, 500))
    assert alarms / 400 > 0.15


# Bad input


def test_bad_input_is_refused():
    good = [1.0, 2.0, 3.0]
    with pytest.raises(GuaranteeError, match="inside"):
        bound([1.0, float("nan")], good)
    with pytest.raises(ArgumentError, match="outside"):
        bound(good, [1.0])
    for bad in ({"delta": 1.0}, {"delta": float("nan")}, {"level": 1.0}, {"analysis": "best"}, {"correction": "none"}):
        with pytest.raises(ArgumentError):
            bound(good, good, **bad)
    with pytest.raises(ArgumentError, match="delta"):
        bound(good, good, delta=0.0, analysis="gaussian")


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_two_scores_a_side_are_enough_to_show_nothing(correction):
    assert bound([2.0, 3.0], [0.0, 1.0], correction=correction).epsilon == 0
