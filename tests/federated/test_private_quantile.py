import math

import numpy as np
import pytest

from trustnlp.errors import ArgumentError
from trustnlp.federated.private_quantile import PrivateQuantile
from trustnlp.federated.private_sum import PrivateSum
from trustnlp.randomness import Streams

STREAMS = Streams(9)


def quiet(quantile: float, steps: int) -> PrivateQuantile:
    """With noise of a tenth of a vote, so that no sum of votes changes its sign."""
    return PrivateQuantile(quantile, 0.0, 100.0, PrivateSum(max(quantile, 1 - quantile), 0.1, 1e-6, releases=steps))


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_with_next_to_no_noise_it_is_numpys(quantile):
    values = np.random.default_rng(0).gamma(2.0, 9.0, 1005)  # 1005 q is never whole: no sum of votes is 0
    found = quiet(quantile, 16).estimate(values, STREAMS)
    expected = np.quantile(values, quantile, method="inverted_cdf")
    assert found.value == pytest.approx(expected, abs=100 / 2**16)
    assert expected in found.interval
    assert found.interval.high - found.interval.low < 1


def test_values_outside_the_range_count_as_its_ends():
    values = np.r_[np.full(6, -5.0), np.full(5, 1e9)]
    assert quiet(0.3, 12).estimate(values, STREAMS).value == pytest.approx(0.0, abs=0.1)
    assert quiet(0.9, 12).estimate(values, STREAMS).value == pytest.approx(100.0, abs=0.1)


@pytest.mark.parametrize("quantile", [0.5, 0.9])
def test_intervals_cover_the_devices_quantile(quantile):
    generator, hits, widths, runs = np.random.default_rng(1), 0, [], 150
    estimate = PrivateQuantile.for_budget(1.0, 1e-6, quantile, 0.0, 100.0, steps=8)
    for run in range(runs):
        values = generator.gamma(2.0, 9.0, 2001)
        found = estimate.estimate(values, STREAMS.child("run", run), level=0.9)
        hits += np.quantile(values, quantile, method="inverted_cdf") in found.interval
        widths.append(found.interval.high - found.interval.low)
        assert found.value in found.interval
    assert hits >= runs * 0.9 - 3 * math.sqrt(runs * 0.09)
    assert np.median(widths) < 20


def test_a_vote_is_within_what_the_noise_is_made_for():
    estimate = PrivateQuantile.for_budget(1.0, 1e-6, 0.8, 0.0, 1.0)
    assert {abs(estimate.vote(value, 0.5)) <= 0.8 for value in (0.2, 0.9, math.nan, math.inf)} == {True}
    assert estimate.vote(0.2, 0.5) == pytest.approx(0.2)
    assert estimate.vote(math.nan, 0.5) == estimate.vote(0.9, 0.5) == -0.8


def test_devices_are_asked_once_a_step_and_all_steps_are_charged():
    asked: list[float] = []
    estimate = PrivateQuantile.for_budget(1.0, 1e-6, 0.5, 0.0, 8.0, steps=3)
    found = estimate.search(lambda threshold: asked.append(threshold) or 1e6, STREAMS)
    assert asked == [4.0, 2.0, 1.0]
    assert (found.interval.low, found.interval.high) == (0.0, 1.0)
    assert 0.99 <= found.guarantee.epsilon <= 1.0
    assert "3 sums" in found.guarantee.mechanism


def test_votes_that_cannot_tell_leave_the_range():
    estimate = PrivateQuantile(0.5, 0.0, 8.0, PrivateSum(0.5, 100.0, 1e-6, releases=4))
    found = estimate.search(lambda _: 0.0, STREAMS)
    assert (found.interval.low, found.interval.high) == (0.0, 8.0)


@pytest.mark.parametrize("fields", [{"quantile": 0.0}, {"low": 1.0, "high": 1.0}, {"quantile": 0.7}])
def test_bad_fields_are_refused(fields):
    with pytest.raises(ArgumentError):
        PrivateQuantile(**{"quantile": 0.5, "low": 0.0, "high": 1.0, "summing": PrivateSum(0.5, 1.0, 1e-6), **fields})
