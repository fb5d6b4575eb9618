"""Effect sizes against hand computation, tests against SciPy's, intervals against simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.fairness import association
from trustnlp.fairness.association import (
    Measured,
    Scores,
    associations,
    effect_interval,
    effect_sizes,
    judged,
    permutation_test,
    sampling_variance,
    unit_vectors,
)
from trustnlp.fairness.metric import Metric, Notion, Scope
from trustnlp.results import Direction, Verdict
from trustnlp.uncertainty import bonferroni, holm

METRIC = Metric("planted", "Planted", Notion.ASSOCIATION, 0.0, Direction.IDEAL, "test", unit="")
SCOPE = Scope("gender", "planted", 0.2)


def drawn(generator, n, m, gap, repetitions=1, within=1.0):
    """Targets of spread 1 with repetitions around them."""
    words = generator.normal(size=(n + m, 1)) + np.where(np.arange(n + m) < n, gap, 0)[:, None]
    values = words + (within * generator.normal(size=(n + m, repetitions)) if repetitions > 1 else 0)
    return Scores(values[:n], values[n:])


def on_scale(g, n, m):
    """The d of samples whose means lie g within-set spreads apart."""
    return g * math.sqrt((n + m - 1) / (n + m - 2 + n * m / (n + m) * g**2))


def test_associations_by_hand():
    # cos((1, 0), (1, 0)) = 1, cos((1, 0), (0, 2)) = 0; of (3, 4): 0.6 and 0.8
    found = associations([[1, 0], [3, 4]], [[5, 0]], [[0, 2]])
    assert found == pytest.approx([1, -0.2])
    # Two attributes count as their mean: (1 + 0.6) / 2 - 0
    assert associations([[1, 0]], [[1, 0], [3, 4]], [[0, 1]]) == pytest.approx([0.8])


def test_effect_size_by_hand():
    # means 5 and 2; all of 4, 6, 1, 3 have mean 3.5 and variance (0.25 + 6.25 + 6.25 + 0.25) / 3
    assert effect_sizes(Scores(np.array([[4.0], [6.0]]), np.array([[1.0], [3.0]]))) == pytest.approx(
        [3 / math.sqrt(13 / 3)]
    )


@settings(max_examples=40)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 1000))
def test_an_effect_size_is_a_point_biserial_correlation(n, m, seed):
    scores = drawn(np.random.default_rng(seed), n, m, 1.0)
    r = stats.pointbiserialr([True] * n + [False] * m, scores.both[:, 0]).statistic
    d = effect_sizes(scores)[0]
    assert d * math.sqrt(n * m / ((n + m) * (n + m - 1))) == pytest.approx(r)
    assert abs(d) <= math.sqrt((n + m) * (n + m - 1) / (n * m)) + 1e-9
    t = stats.ttest_ind(scores.x[:, 0], scores.y[:, 0]).statistic
    assert association._cohen(np.array(d), n, m) * math.sqrt(n * m / (n + m)) == pytest.approx(t)


def test_the_sampling_variance_is_that_of_simulated_effect_sizes():
    generator, n, m = np.random.default_rng(0), 40, 60
    for gap in (0.0, 1.0, 2.5):
        x = generator.normal(size=(n, 4000)) + gap
        found = effect_sizes(Scores(x, generator.normal(size=(m, 4000))))
        assert sampling_variance(on_scale(gap, n, m), n, m) == pytest.approx(found.var(), rel=0.08)


@pytest.mark.parametrize("t", [-6.0, 0.0, 1.0, 5.0])
@pytest.mark.parametrize("freedom", [3, 14, 60])
def test_noncentralities_are_scipys(t, freedom):
    for probability in (0.025, 0.975):
        found = association._noncentrality(t, freedom, probability)
        assert stats.nct.cdf(t, freedom, found) == pytest.approx(probability, abs=3e-5)


@pytest.mark.parametrize("t", [-2.0, 0.0, 7.0])
def test_with_a_known_divisor_the_interval_is_students(t):
    for probability in (0.025, 0.975):
        expected = t - stats.t.ppf(probability, 9)
        assert association._noncentrality(t, 9, probability, share=0.0) == pytest.approx(expected, abs=2e-2)


def test_noncentralities_exist_where_scipys_distribution_is_nan():
    # With so large a t nearly all of its variation is the chi variable's.
    for probability in (0.025, 0.975):
        expected = 60 * math.sqrt(stats.chi2.ppf(1 - probability, 14) / 14)
        assert association._noncentrality(60.0, 14, probability) == pytest.approx(expected, rel=0.01)


def test_the_interval_holds_the_effect_and_excludes_what_the_t_test_rejects():
    generator = np.random.default_rng(1)
    for _ in range(20):
        scores = drawn(generator, 7, 11, 1.0)
        interval = effect_interval(scores)
        assert effect_sizes(scores)[0] in interval
        rejected = stats.ttest_ind(scores.x[:, 0], scores.y[:, 0]).pvalue < 0.05
        assert (0 not in interval) == rejected


def coverage(n, m, gap, runs, repetitions=1, seed=0):
    generator = np.random.default_rng(seed)
    truth = drawn(np.random.default_rng(99), 4000, 4000, gap, min(repetitions, 20))
    g = (truth.x.mean(0) - truth.y.mean(0)) / np.sqrt((truth.x.var(0) + truth.y.var(0)) / 2)
    goal = on_scale(gap if repetitions == 1 else g.mean(), n, m)
    return np.mean([goal in effect_interval(drawn(generator, n, m, gap, repetitions)) for _ in range(runs)])


@pytest.mark.parametrize(("gap", "repetitions"), [(0.0, 1), (2.0, 1), (0.0, 20)])
def test_intervals_cover_quick(gap, repetitions):
    assert 0.92 <= coverage(8, 8, gap, 400, repetitions) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m"), [(5, 5), (8, 8), (8, 20), (25, 25)])
@pytest.mark.parametrize("gap", [0.0, 0.8, 2.0, 4.0])
@pytest.mark.parametrize("repetitions", [1, 20])
def test_intervals_cover(n, m, gap, repetitions):
    assert 0.93 <= coverage(n, m, gap, 1000, repetitions) <= 0.97


def test_intervals_forget_how_often_a_target_was_measured():
    generator = np.random.default_rng(3)
    once = drawn(generator, 8, 8, 1.0)
    often = Scores(np.repeat(once.x, 500, axis=1), np.repeat(once.y, 500, axis=1))
    assert effect_interval(often).low == pytest.approx(effect_interval(once).low)
    assert effect_interval(often).high == pytest.approx(effect_interval(once).high)
    assert permutation_test(often, generator) == permutation_test(once, generator)


@pytest.mark.parametrize(("n", "m"), [(4, 4), (3, 6)])
def test_all_partitions_agree_with_scipy(n, m):
    scores = drawn(np.random.default_rng(4), n, m, 1.0)
    found = permutation_test(scores, np.random.default_rng(0))
    assert (found.exact, found.partitions) == (True, math.comb(n + m, n))
    theirs = stats.permutation_test(
        (scores.x[:, 0], scores.y[:, 0]), lambda a, b: a.mean() - b.mean(), n_resamples=np.inf, alternative="greater"
    )
    assert found.one_sided == pytest.approx(theirs.pvalue)


def test_all_partitions_agree_with_plain_loops():
    scores = drawn(np.random.default_rng(5), 3, 4, 0.5, repetitions=3)
    values, observed = scores.both, effect_sizes(scores).mean()
    found = []
    for chosen in itertools.combinations(range(7), 3):
        rest = [row for row in range(7) if row not in chosen]
        found.append(effect_sizes(Scores(values[list(chosen)], values[rest])).mean())
    ours = permutation_test(scores, np.random.default_rng(0))
    assert ours.two_sided == pytest.approx(np.mean(np.abs(found) >= abs(observed) - 1e-9))
    assert ours.one_sided == pytest.approx(np.mean(np.array(found) >= observed - 1e-9))


def test_drawn_partitions_agree_with_all(monkeypatch):
    scores = drawn(np.random.default_rng(6), 6, 6, 1.0)
    exact = permutation_test(scores, np.random.default_rng(0))
    monkeypatch.setattr(association, "_ENUMERATED", 10)
    sampled = permutation_test(scores, np.random.default_rng(0), samples=19_999)
    assert (sampled.exact, sampled.partitions) == (False, 19_999)
    assert sampled.two_sided == pytest.approx(exact.two_sided, abs=0.01)
    assert sampled.one_sided == pytest.approx(exact.one_sided, abs=0.01)
    assert permutation_test(scores, np.random.default_rng(0), samples=19_999) == sampled


def test_a_drawn_p_value_is_never_0():
    scores = Scores(np.arange(100.0)[:, None] + 1000, np.arange(100.0)[:, None])
    assert permutation_test(scores, np.random.default_rng(0), samples=99).two_sided == 1 / 100


def test_findings_of_several_tests_hold_at_once():
    generator = np.random.default_rng(7)
    tests = [Measured(f"Test {gap}", drawn(generator, 9, 9, gap), {"gap": gap}) for gap in (0.0, 1.0, 3.0)]
    found = judged(METRIC, tests, SCOPE, np.random.default_rng(0), 0.95, 999)
    assert [finding.id for finding in found] == ["planted-test-0-0", "planted-test-1-0", "planted-test-3-0"]
    assert {finding.level for finding in found} == {bonferroni(0.95, 3)}
    assert found[0].ideal == 0
    assert found[2].verdict is Verdict.DISPARITY
    assert found[2].n == 18
    p = [finding.details["p_two_sided"] for finding in found]
    assert [finding.details["p_holm"] for finding in found] == pytest.approx(list(holm(p)))
    assert found[1].details["bootstrap"]["low"] < found[1].value < found[1].details["bootstrap"]["high"]


def test_what_so_few_targets_could_have_shown():
    """The minimum detectable effect is that of targets without any effect, whatever was found."""
    generator = np.random.default_rng(8)
    small, large = (
        judged(METRIC, [Measured("t", drawn(generator, 8, 8, gap), {})], SCOPE, generator, 0.95, 99)[0]
        for gap in (0.0, 4.0)
    )
    assert 1.2 < small.details["minimum_detectable_effect"] < 1.7
    assert large.details["minimum_detectable_effect"] == pytest.approx(small.details["minimum_detectable_effect"])


def test_many_targets_can_be_fair_and_few_cannot():
    generator = np.random.default_rng(9)
    x = np.linspace(-1, 1, 2000)[:, None]
    [many] = judged(METRIC, [Measured("t", Scores(x, x[::-1] + 1e-9), {})], SCOPE, generator, 0.95, 99)
    [few] = judged(METRIC, [Measured("t", Scores(x[::100], x[::-100]), {})], SCOPE, generator, 0.95, 99)
    assert many.verdict is Verdict.FAIR_WITHIN_MARGIN
    assert few.verdict is Verdict.INSUFFICIENT_EVIDENCE


def test_too_few_targets_are_insufficient_evidence():
    for scores in (None, drawn(np.random.default_rng(0), 4, 9, 5.0)):
        [finding] = judged(METRIC, [Measured("t", scores, {})], SCOPE, np.random.default_rng(0), 0.95, 99)
        assert finding.verdict is Verdict.INSUFFICIENT_EVIDENCE
        assert finding.value is None
        assert "5 are needed" in finding.details["reason"]


def test_names_must_differ():
    tests = [Measured(name, None, {}) for name in ("a 1", "A-1")]
    with pytest.raises(ArgumentError, match="different names"):
        judged(METRIC, tests, SCOPE, np.random.default_rng(0), 0.95, 99)
    signs = [Measured(name, None, {}) for name in ("one_1", "one_1-", "one_1+3-")]
    found = judged(METRIC, signs, SCOPE, np.random.default_rng(0), 0.95, 99)
    assert [each.id for each in found] == ["planted-one-1", "planted-one-1-minus", "planted-one-1-plus-3-minus"]
    with pytest.raises(ArgumentError, match="not empty"):
        judged(METRIC, [], SCOPE, np.random.default_rng(0), 0.95, 99)


def test_what_cannot_be_measured_is_refused():
    one = np.ones((3, 1))
    with pytest.raises(GuaranteeError, match="no direction"):
        unit_vectors([[0.0, 0.0]])
    with pytest.raises(GuaranteeError, match="no direction"):
        unit_vectors([[np.nan, 1.0]])
    with pytest.raises(GuaranteeError, match="same association"):
        Scores(one, one)
    with pytest.raises(GuaranteeError, match="NaN"):
        Scores(one * np.nan, one)
    with pytest.raises(ArgumentError, match="of shape"):
        Scores(one, np.ones((3, 2)))
    with pytest.raises(GuaranteeError, match="do not differ"):
        effect_interval(Scores(one, 2 * one))
    with pytest.raises(ArgumentError, match="samples"):
        permutation_test(drawn(np.random.default_rng(0), 3, 3, 0), np.random.default_rng(0), samples=9)
