import math

import numpy as np
import pytest

from trustnlp.errors import ArgumentError
from trustnlp.federated.private_histogram import PrivateHistogram
from trustnlp.federated.private_sum import PrivateSum
from trustnlp.randomness import Streams

STREAMS = Streams(4)


def exact(items: list[np.ndarray], buckets: int) -> np.ndarray:
    return np.sum([np.bincount(np.unique(mine), minlength=buckets) for mine in items], axis=0)


@pytest.mark.parametrize("kind", ["gaussian", "discrete-gaussian"])
@pytest.mark.parametrize("most", [1, 2, 3, 7])
def test_before_noise_it_counts_devices_as_numpy_does(most, kind):
    generator = np.random.default_rng(most)
    items = [generator.choice(12, generator.integers(0, most + 1), replace=False) for _ in range(200)]
    histogram = PrivateHistogram.for_budget(1.0, 1e-6, 12, most, kind)
    total = histogram.summing.total([histogram.vector(mine) for mine in items])
    assert np.array_equal(total, exact(items, 12))


@pytest.mark.parametrize("kind", ["gaussian", "discrete-gaussian"])
def test_noise_is_of_the_promised_size_and_intervals_cover_all_counts_at_once(kind):
    histogram = PrivateHistogram(20, PrivateSum(math.sqrt(2), 3.0, 1e-6, kind=kind), most=2)
    items = [np.array([k % 20, (k * 7) % 20]) for k in range(3000)]
    vectors = [histogram.vector(mine) for mine in items]
    total, errors, hits, runs = histogram.summing.total(vectors), [], 0, 300
    for run in range(runs):
        found = histogram.release([total * 0, *([] if run else vectors)], STREAMS.child("run", run), 0.9)
        truth = np.zeros(20) if run else exact(items, 20)
        errors.append(found.counts - truth)
        intervals = found.intervals()
        hits += bool(((intervals[:, 0] <= truth) & (truth <= intervals[:, 1])).all())
    assert np.std(errors) == pytest.approx(3 * math.sqrt(2), rel=0.05)
    assert hits >= runs * 0.9 - 3 * math.sqrt(runs * 0.09)


def test_a_device_counts_in_a_few_buckets_once():
    histogram = PrivateHistogram.for_budget(1.0, 1e-6, 10, most=3)
    assert histogram.vector([4, 4, 4]).tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    many = histogram.vector(range(10), np.random.default_rng(0))
    assert (many.sum(), many.max()) == (3, 1)
    chosen = np.mean([histogram.vector(range(10), np.random.default_rng(seed)) for seed in range(2000)], axis=0)
    assert np.abs(chosen - 0.3).max() < 0.05
    with pytest.raises(ArgumentError, match="buckets"):
        histogram.vector([10])


def test_a_device_that_cheats_moves_counts_by_the_bound():
    histogram = PrivateHistogram.for_budget(1.0, 1e-6, 4)
    moved = histogram.summing.total([np.zeros(4), np.full(4, 1e9)])
    assert np.linalg.norm(moved) <= 1.0


def test_it_says_what_it_costs():
    guarantee = PrivateHistogram.for_budget(1.0, 1e-6, 4).release([np.zeros(4)], STREAMS).guarantee
    assert 0.99 <= guarantee.epsilon <= 1.0
    assert (guarantee.delta, guarantee.unit, guarantee.adjacency) == (1e-6, "device", "add-remove")


def test_another_bound_is_refused():
    with pytest.raises(ArgumentError, match="summing"):
        PrivateHistogram(4, PrivateSum(1.0, 1.0, 1e-6), most=2)
