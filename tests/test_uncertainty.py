from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trustnlp import uncertainty
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.uncertainty import Interval


def mean(sample):
    return sample.mean(axis=1)


def gap(first, second):
    return first.mean(axis=1) - second.mean(axis=1)


def distinct(sample):
    return np.array([len(set(row)) for row in sample], dtype=float)


def f1(counts):
    hits, false, missed = counts.sum(axis=1).T
    return 2 * hits / (2 * hits + false + missed)


def test_an_interval_refuses_ends_that_are_no_interval():
    assert 0.5 in Interval(0, 1)
    assert 1.5 not in Interval(0, 1)
    for low, high in [(1.0, 0.0), (float("nan"), 1.0), (0.0, float("inf"))]:
        with pytest.raises(GuaranteeError, match="not an interval"):
            Interval(low, high)
    with pytest.raises(ArgumentError, match="level"):
        Interval(0, 1, level=95)


# Shares


@given(n=st.integers(1, 200), share=st.floats(0, 1), level=st.sampled_from([0.9, 0.95, 0.99]))
def test_a_share_has_the_clopper_pearson_interval(n, share, level):
    k = round(share * n)
    found = uncertainty.proportion(k, n, level)
    tail = (1 - level) / 2
    assert found.low == pytest.approx(stats.beta.ppf(tail, k, n - k + 1) if k else 0)
    assert found.high == pytest.approx(stats.beta.ppf(1 - tail, k + 1, n - k) if k < n else 1)


@pytest.mark.parametrize("truth", [0.001, 0.01, 0.05, 0.3, 0.5])
@pytest.mark.parametrize("n", [5, 40, 300])
def test_the_interval_of_a_share_covers_at_least_its_level(truth, n):
    counts = np.arange(n + 1)
    covered = [truth in uncertainty.proportion(k, n) for k in counts]
    assert stats.binom.pmf(counts, n, truth)[covered].sum() >= 0.95


# Newcombe 1998, Statistics in Medicine 17:873-890, Table II, method 10, contrasts (a), (b) and (h).
@pytest.mark.parametrize(
    ("counts", "published"),
    [((56, 70, 48, 80), (0.0524, 0.3339)), ((9, 10, 3, 10), (0.1705, 0.8090)), ((10, 10, 0, 10), (0.6075, 1.0))],
)
def test_the_gap_of_two_shares_has_the_published_interval(counts, published):
    found = uncertainty.difference_of_proportions(*counts)
    assert (found.low, found.high) == pytest.approx(published, abs=5e-5)


def coverage_of_gap(n1, n2, p1, p2):
    """Exact coverage: every pair of counts weighted by its probability."""
    total = 0.0
    for k1, weight1 in enumerate(stats.binom.pmf(np.arange(n1 + 1), n1, p1)):
        for k2, weight2 in enumerate(stats.binom.pmf(np.arange(n2 + 1), n2, p2)):
            if weight1 * weight2 > 1e-7:
                total += weight1 * weight2 * (p1 - p2 in uncertainty.difference_of_proportions(k1, n1, k2, n2))
    return total


@pytest.mark.parametrize(("n1", "n2", "p1", "p2"), [(30, 40, 0.1, 0.1), (30, 40, 0.05, 0.3), (25, 60, 0.5, 0.6)])
def test_the_gap_of_two_shares_covers(n1, n2, p1, p2):
    assert coverage_of_gap(n1, n2, p1, p2) > 0.935


@given(n1=st.integers(1, 60), n2=st.integers(1, 60), data=st.data())
def test_the_gap_of_two_shares_turns_its_sign_with_its_samples(n1, n2, data):
    k1, k2 = data.draw(st.integers(0, n1)), data.draw(st.integers(0, n2))
    there, back = (
        uncertainty.difference_of_proportions(k1, n1, k2, n2),
        uncertainty.difference_of_proportions(k2, n2, k1, n1),
    )
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert there.low <= k1 / n1 - k2 / n2 <= there.high
    assert there.low < there.high


def test_numpy_counts_are_counts():
    assert uncertainty.proportion(np.int64(3), np.int32(9)) == uncertainty.proportion(3, 9)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5), (1.5, 5), (float("nan"), 5), (1, 5.0)])
def test_impossible_counts_are_refused(successes, n):
    with pytest.raises(ArgumentError):
        uncertainty.proportion(successes, n)
    with pytest.raises(ArgumentError):
        uncertainty.difference_of_proportions(successes, n, 1, 2)
    with pytest.raises(ArgumentError):
        uncertainty.difference_of_proportions(1, 2, successes, n)


# Minimum detectable difference


@pytest.mark.parametrize(("n1", "n2", "baseline"), [(200, 200, 0.1), (150, 600, 0.3), (400, 100, 0.9)])
def test_the_minimum_detectable_difference_is_detected_with_its_power(n1, n2, baseline):
    found = uncertainty.minimum_detectable_difference(n1, n2, baseline, power=0.8)
    other = baseline + found if baseline < 0.5 else baseline - found
    generator = np.random.default_rng(1)
    k1, k2 = generator.binomial(n1, baseline, 40_000), generator.binomial(n2, other, 40_000)
    pooled = (k1 + k2) / (n1 + n2)
    z = np.abs(k1 / n1 - k2 / n2) / np.sqrt(pooled * (1 - pooled) * (1 / n1 + 1 / n2))
    assert (z > stats.norm.ppf(0.975)).mean() == pytest.approx(0.8, abs=0.02)


def test_the_minimum_detectable_difference_shrinks_with_n_and_exists_at_a_baseline_of_zero():
    sizes = [uncertainty.minimum_detectable_difference(n, n, 0.0) for n in (20, 200, 2000)]
    assert sizes == sorted(sizes, reverse=True)
    assert 0 < sizes[-1] < 0.01


def test_samples_that_can_show_nothing_say_so():
    with pytest.raises(GuaranteeError, match="no difference"):
        uncertainty.minimum_detectable_difference(2, 2, 0.5)
    with pytest.raises(ArgumentError, match="baseline"):
        uncertainty.minimum_detectable_difference(20, 20, 1.5)


# Bootstrap


def test_the_bootstrap_agrees_with_scipy_on_plain_samples_of_many_units():
    generator = np.random.default_rng(3)
    first, second = generator.lognormal(size=400), generator.normal(size=300)
    ours = uncertainty.bootstrap(gap, first, second, generator=generator, replicates=20_000)
    theirs = stats.bootstrap(
        (first, second), lambda a, b, axis: a.mean(axis) - b.mean(axis), rng=generator, n_resamples=20_000
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_blocks_of_the_jackknife_tell_the_same_acceleration(monkeypatch):
    sample = np.random.default_rng(4).lognormal(size=900)
    found = []
    for blocks in (900, 300):
        monkeypatch.setattr(uncertainty, "_BLOCKS", blocks)
        found.append(uncertainty.bootstrap(mean, sample, generator=np.random.default_rng(5)))
    width = found[0].high - found[0].low
    assert found[1].low == pytest.approx(found[0].low, abs=0.02 * width)
    assert found[1].high == pytest.approx(found[0].high, abs=0.02 * width)


def covers(draw, truth, statistic, seeds, **options):
    """The share of simulated cases whose interval holds the truth."""
    inside = 0
    for seed in range(seeds):
        generator = np.random.default_rng(seed)
        samples, clusters = draw(generator)
        found = uncertainty.bootstrap(statistic, *samples, generator=generator, clusters=clusters, **options)
        inside += truth in found
    return inside / seeds


def gap_case(generator):
    return (generator.exponential(2.0, 60), generator.exponential(1.0, 40)), None


def f1_case(generator):
    hits = generator.binomial(3, 0.7, 80)
    return (np.stack([hits, generator.poisson(0.5, 80), 3 - hits], axis=1),), None


def cluster_case(generator):
    sizes = generator.integers(1, 8, 50)
    users = np.repeat(np.arange(50), sizes)
    return (np.repeat(generator.normal(size=50), sizes) + generator.normal(size=len(users)),), users


CASES = [(gap_case, 1.0, gap), (f1_case, 4.2 / (4.2 + 0.5 + 0.9), f1), (cluster_case, 0.0, mean)]


@pytest.mark.parametrize(("draw", "truth", "statistic"), CASES, ids=["gap", "f1", "clusters"])
def test_the_bootstrap_covers(draw, truth, statistic):
    assert 0.90 <= covers(draw, truth, statistic, 150, replicates=400) <= 0.995  # 150 runs at 95%: +/- 0.047


@pytest.mark.slow
@pytest.mark.parametrize(("draw", "truth", "statistic"), CASES, ids=["gap", "f1", "clusters"])
def test_the_bootstrap_covers_in_many_runs(draw, truth, statistic):
    assert 0.93 <= covers(draw, truth, statistic, 1500) <= 0.97


def test_rows_taken_for_units_would_not_cover():
    """The planted mistake that clusters exist for: the same data without them."""

    def forgetful(generator):
        return cluster_case(generator)[0], None

    assert covers(forgetful, 0.0, mean, 100, replicates=300) < 0.88


def test_clusters_of_one_row_are_no_clusters():
    sample = np.random.default_rng(0).normal(size=(30, 2))
    slope = lambda rows: (rows[..., 0] * rows[..., 1]).sum(axis=1)  # noqa: E731
    plain, clustered = (
        uncertainty.bootstrap(slope, sample, generator=np.random.default_rng(1), clusters=clusters)
        for clusters in (None, [f"user {i}" for i in range(30)])
    )
    assert plain == clustered


def test_the_same_generator_gives_the_same_bits_whatever_the_batches(monkeypatch):
    sample = np.random.default_rng(0).normal(size=40)
    draws = [uncertainty.bootstrap(mean, sample, generator=np.random.default_rng(7)) for _ in range(2)]
    monkeypatch.setattr(uncertainty, "_ELEMENTS", 4000)
    draws.append(uncertainty.bootstrap(mean, sample, generator=np.random.default_rng(7)))
    assert draws[0] == draws[1] == draws[2]


@pytest.mark.parametrize("samples", [(), ([],), ([1.0],), (["a", "b"],), ([[1, 2], [3]],), (np.zeros((2, 2, 2)),)])
def test_samples_that_are_no_samples_are_refused(samples):
    with pytest.raises(ArgumentError):
        uncertainty.bootstrap(mean, *samples, generator=np.random.default_rng(0))


def test_what_has_no_honest_interval_raises():
    generator = np.random.default_rng(0)
    with pytest.raises(GuaranteeError, match="NaN"):
        uncertainty.bootstrap(mean, [1.0, float("nan"), 2.0], generator=generator)
    with pytest.raises(GuaranteeError, match="every resample"):
        uncertainty.bootstrap(mean, [0.0] * 50, generator=generator)
    with pytest.raises(GuaranteeError, match="extreme"):
        uncertainty.bootstrap(distinct, np.arange(30.0), generator=generator)
    with pytest.raises(GuaranteeError, match="not finite"), np.errstate(all="ignore"):
        uncertainty.bootstrap(lambda rows: 1 / rows.sum(axis=1), [0.0, 0.0, 1.0], generator=generator)
    with pytest.raises(ArgumentError, match="statistic"):
        uncertainty.bootstrap(np.mean, [0.0, 1.0, 2.0], generator=generator)


def test_clusters_that_break_independence_are_refused():
    generator = np.random.default_rng(0)
    first, second = [1.0, 2.0, 3.0], [2.0, 4.0]
    with pytest.raises(GuaranteeError, match="1 clusters lie in more than one sample"):
        uncertainty.bootstrap(gap, first, second, generator=generator, clusters=(["a", "b", "c"], ["a", "d"]))
    with pytest.raises(ArgumentError, match="one label per row"):
        uncertainty.bootstrap(gap, first, second, generator=generator, clusters=(["a", "b"], ["c", "d"]))
    with pytest.raises(ArgumentError, match="two different labels"):
        uncertainty.bootstrap(mean, first, generator=generator, clusters=["a", "a", "a"])


# Means of bounded values


@pytest.mark.parametrize("n", [1, 3, 20, 200])
@pytest.mark.parametrize("truth", [0.02, 0.2, 0.5])
def test_the_mean_of_bounded_values_covers_even_where_they_are_all_or_nothing(n, truth):
    counts = np.arange(n + 1)
    rows = [np.repeat([1.0, 0.0], [k, n - k]) * 4 - 2 for k in counts]
    covered = [4 * truth - 2 in uncertainty.bounded_mean(row, -2, 2) for row in rows]
    assert stats.binom.pmf(counts, n, truth)[covered].sum() >= 0.95


def test_the_ends_of_a_bounded_mean_solve_hoeffdings_inequality():
    found = uncertainty.bounded_mean([0.1, 0.3, 0.2, 0.4], 0, 1)
    for end in (found.low, found.high):
        divergence = 0.25 * np.log(0.25 / end) + 0.75 * np.log(0.75 / (1 - end))
        assert 2 * np.exp(-4 * divergence) == pytest.approx(0.05)
    assert uncertainty.bounded_mean([1, 1, 1, 1, 1, 1], 0, 1).low == pytest.approx(0.025 ** (1 / 6))
    assert uncertainty.bounded_mean([0, 0], 0, 1).low == 0
    assert uncertainty.bounded_mean([1, 1], 0, 1).high == 1


def test_values_out_of_bounds_are_refused():
    for values, lowest, highest in [([], 0, 1), ([1.5], 0, 1), ([-0.1], 0, 1), ([0.5], 1, 0), ([[0.5]], 0, 1)]:
        with pytest.raises(ArgumentError, match="values"):
            uncertainty.bounded_mean(values, lowest, highest)
    with pytest.raises(GuaranteeError, match="NaN"):
        uncertainty.bounded_mean([0.5, float("nan")], 0, 1)


# Many figures at once


def test_holm_gives_its_textbook_values():
    # By hand: sorted .005 .01 .03 .04 times 4 3 2 1 = .02 .03 .06 .04, then running maxima.
    assert uncertainty.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@settings(max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_closed_bonferroni_test(p_values):
    """Oracle: the adjusted p of i is the largest Bonferroni p over all subsets that hold i."""
    m = len(p_values)
    slow = [
        max(
            min(1.0, bin(subset).count("1") * min(p_values[j] for j in range(m) if subset >> j & 1))
            for subset in range(1, 2**m)
            if subset >> i & 1
        )
        for i in range(m)
    ]
    assert uncertainty.holm(p_values) == pytest.approx(slow)


def test_corrections_refuse_what_is_no_probability():
    for bad in ([], [0.5, float("nan")], [1.2], [[0.1, 0.2]]):
        with pytest.raises(ArgumentError):
            uncertainty.holm(bad)
    assert uncertainty.bonferroni(0.95, 5) == pytest.approx(0.99)
    with pytest.raises(ArgumentError):
        uncertainty.bonferroni(0.95, 0)


def wilson(k, n, df):
    """Slow reference: the shares that a t test with Wilson's variance does not reject, by bisection."""
    reach = stats.t.ppf(0.975, df)
    inside = [p for p in np.linspace(0, 1, 200_001) if abs(k / n - p) <= reach * np.sqrt(p * (1 - p) / n) + 1e-12]
    return inside[0], inside[-1]


def test_a_ratio_of_single_observations_is_a_wilson_interval():
    # The jackknife variance of a share is p (1 - p) / (n - 1): the sample counts as one observation smaller.
    found = uncertainty.ratio([1] * 12 + [0] * 28, [1] * 40)
    assert (found.low, found.high) == pytest.approx(wilson(12 * 39 / 40, 39, 39), abs=1e-5)


def test_a_ratio_of_nothing_keeps_the_width_of_its_units():
    found = uncertainty.ratio(np.zeros(60), np.full(60, 2), clusters=np.repeat(range(20), 3).tolist())
    assert (found.low, found.high) == pytest.approx(wilson(0, 20, 19), abs=1e-5)


def test_the_variance_of_a_ratio_is_the_left_out_one():
    """Oracle: the interval's width for a large sample against leaving out each unit by hand."""
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 9, 400)
    parts = rng.binomial(sizes, 0.4)
    left = [(parts.sum() - a) / (sizes.sum() - b) for a, b in zip(parts, sizes, strict=True)]
    deviation = np.sqrt(399 / 400 * ((np.array(left) - parts.sum() / sizes.sum()) ** 2).sum())
    found = uncertainty.ratio(parts, sizes)
    reach = stats.t.ppf(0.975, uncertainty.effective_units(sizes) - 1)
    assert (found.high - found.low) / 2 == pytest.approx(reach * deviation, rel=0.01)


def test_copies_of_a_unit_add_no_evidence():
    parts, sizes, units = [1, 0, 2, 0, 1], [2, 1, 3, 2, 2], [0, 1, 2, 3, 4]
    once = uncertainty.ratio(parts, sizes, clusters=units)
    thrice = uncertainty.ratio(parts * 3, sizes * 3, clusters=units * 3)
    assert (once.low, once.high) == pytest.approx((thrice.low, thrice.high))


def test_effective_units_follow_the_sizes():
    assert uncertainty.effective_units([5, 5, 5, 5]) == pytest.approx(4)
    assert uncertainty.effective_units([100, 1, 1]) == pytest.approx(102**2 / 10002)
    assert uncertainty.effective_units([]) == 0


def test_a_ratio_refuses_what_is_no_share():
    for numerators, denominators in (([2, 0], [1, 1]), ([float("nan"), 0], [1, 1]), ([-1, 0], [1, 1])):
        with pytest.raises(GuaranteeError, match="numerator"):
            uncertainty.ratio(numerators, denominators)
    with pytest.raises(GuaranteeError, match="2 units"):
        uncertainty.ratio([1, 0], [1, 1], clusters=["one", "one"])
    with pytest.raises(GuaranteeError, match="2 units"):
        uncertainty.ratio([0, 0], [0, 0])
    with pytest.raises(ArgumentError):
        uncertainty.ratio([1, 0], [1, 1, 1])


def test_a_difference_of_wilson_intervals_is_newcombes():
    first, second = (stats.binomtest(k, n).proportion_ci(method="wilson") for k, n in ((56, 70), (48, 80)))
    found = uncertainty.difference(0.8, Interval(*first), 0.6, Interval(*second))
    newcombe = uncertainty.difference_of_proportions(56, 70, 48, 80)
    assert (found.low, found.high) == pytest.approx((newcombe.low, newcombe.high))
    with pytest.raises(GuaranteeError, match="one level"):
        uncertainty.difference(0.8, Interval(*first), 0.6, Interval(*second, level=0.9))


def heavy_tailed_users(rng, n, p, users, correlation):
    """Errors (n,) whose rate varies between users with the given correlation, and whose user wrote each."""
    weights = 1 / np.arange(1, users + 1) ** 0.8
    wrote = rng.choice(users, n, p=weights / weights.sum())
    scale = 1 / correlation - 1
    return rng.random(n) < rng.beta(p * scale, (1 - p) * scale, users)[wrote], wrote.tolist()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "p", "users", "correlation"), [(200, 0.1, 20, 0.1), (500, 0.05, 60, 0.1), (600, 0.05, 40, 0.05)]
)
def test_a_ratio_by_user_covers_as_often_as_it_says(n, p, users, correlation):
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(2000):
        errors, wrote = heavy_tailed_users(rng, n, p, users, correlation)
        hits += p in uncertainty.ratio(errors, np.ones(n), clusters=wrote)
    assert 0.93 <= hits / 2000 <= 0.98


class TestMedian:
    def test_it_covers_at_least_at_its_level_for_any_shape(self):
        generator = np.random.default_rng(3)
        for n in (6, 7, 15, 40):
            samples = generator.exponential(size=(2000, n))
            assert np.mean([np.log(2) in uncertainty.median(sample) for sample in samples]) > 0.94

    def test_its_ends_are_order_statistics(self):
        found = uncertainty.median([5, 1, 4, 2, 3, 6, 7, 8, 9])
        assert (found.low, found.high) == (2, 8)  # 1 - 2 P(Binomial(9, 1/2) < 2) = 96.1%

    def test_too_few_values_are_refused(self):
        with pytest.raises(GuaranteeError, match="measure 6 or more"):
            uncertainty.median([1, 2, 3, 4, 5])
        assert uncertainty.median([1, 2, 3, 4, 5, 6]) == Interval(1, 6)
