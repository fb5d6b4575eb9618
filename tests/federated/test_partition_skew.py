import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from trustnlp.errors import ArgumentError
from trustnlp.federated import partition
from trustnlp.federated.partition import Partition
from trustnlp.federated.partition_skew import (
    distance_to_whole,
    explained_by_device,
    gini,
    label_counts,
    random_distance,
)

TABLES = st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=6).filter(
    lambda rows: any(map(any, rows))
)


def generator(seed=0):
    return np.random.default_rng(seed)


def test_counts_by_hand():
    devices = (np.array([0, 3]), np.array([1, 2, 4]))
    names, counts = label_counts(Partition("file", devices), ["b", "a", "a", "c", "a"])
    assert names == ("a", "b", "c")
    assert counts.tolist() == [[0, 1, 1], [3, 0, 0]]


def test_counts_need_a_label_for_each_example():
    with pytest.raises(ArgumentError, match="one for each of the 2 examples"):
        label_counts(partition.iid(2, 1, generator()), ["a"])


def test_what_devices_explain_by_hand():
    # tau: impurity of all 1 - (25 + 25) / 100 = 0.5; within 1 - (17/5 + 17/5) / 10 = 0.32; 1 - 0.32 / 0.5 = 0.36;
    # adjusted: 1 - (1 - 0.36) * 9 / 8 = 0.28
    assert explained_by_device(np.array([[4, 1], [1, 4]])) == pytest.approx(0.28)
    assert explained_by_device(np.array([[5, 0], [0, 5]])) == 1
    assert explained_by_device(np.array([[5, 0], [5, 0]])) == 0
    assert explained_by_device(np.array([[1, 0], [0, 1]])) == 0


def test_random_devices_explain_nothing_on_average():
    labels = ["a"] * 30 + ["b"] * 20 + ["c"] * 10
    sizes = np.array([1, 2, 5, 12, 40])

    def drawn(seed):
        device_of = generator(seed).permutation(np.repeat(np.arange(5), sizes))
        devices = tuple(np.flatnonzero(device_of == device) for device in range(5))
        return explained_by_device(label_counts(Partition("file", devices), labels)[1])

    values = np.array([drawn(seed) for seed in range(2000)])
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(len(values))


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0, 5.0])
@pytest.mark.parametrize("prior", [np.full(8, 0.125), np.array([0.4, 0.3, 0.2, 0.1])], ids=["even", "uneven"])
def test_dirichlet_devices_of_any_size_have_the_intraclass_correlation(alpha, prior):
    """The planted truth 1 / (1 + alpha), with supplies that never run out."""
    rng = generator(7)
    sizes = rng.integers(2, 60, 4000)
    counts = rng.multinomial(sizes, rng.dirichlet(alpha * prior, len(sizes)))
    assert explained_by_device(counts) == pytest.approx(1 / (1 + alpha), rel=0.05)


@given(TABLES)
def test_distance_is_the_mean_of_scipys(rows):
    counts = np.array(rows)
    filled = counts[counts.any(axis=1)]
    expected = np.mean([jensenshannon(row, counts.sum(axis=0), base=2) for row in filled])
    assert distance_to_whole(counts) == pytest.approx(expected, abs=1e-6)


def test_distance_at_its_ends():
    assert distance_to_whole(np.array([[1, 2], [2, 4]])) == pytest.approx(0, abs=1e-7)
    many = np.eye(500, dtype=np.int64)
    assert 0.95 < distance_to_whole(many) < 1


@given(TABLES, st.integers(0, 9))
def test_a_random_partition_is_as_far_as_chance_makes_it(rows, seed):
    counts = np.array(rows)
    labels = np.repeat(np.arange(3), counts.sum(axis=0))
    sizes = counts.sum(axis=1)
    device_of = np.empty(len(labels), dtype=np.int64)
    # the same draw, text by text: shuffled labels laid out device after device
    order = generator(seed).permutation(labels)
    device_of = np.repeat(np.arange(len(counts)), sizes)
    table = np.array([[np.sum(order[device_of == d] == label) for label in range(3)] for d in range(len(counts))])
    assert random_distance(counts, generator(seed)) == distance_to_whole(table)


def test_a_skewed_partition_is_further_than_a_random_one():
    labels = ["a", "b", "c", "d"] * 250
    skewed = label_counts(partition.by_label(labels, 20, 0.2, generator()), labels)[1]
    even = label_counts(partition.iid(1000, 20, generator()), labels)[1]
    assert distance_to_whole(skewed) > 4 * random_distance(skewed, generator(1))
    assert distance_to_whole(even) == pytest.approx(random_distance(even, generator(1)), rel=0.3)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30).filter(any))
def test_gini_is_half_the_relative_mean_difference(sizes):
    sizes = np.array(sizes)
    expected = np.abs(sizes[:, None] - sizes).mean() / (2 * sizes.mean())
    assert gini(sizes) == pytest.approx(expected, abs=1e-12)


def test_gini_at_its_ends():
    assert gini(np.array([7, 7, 7])) == pytest.approx(0)
    assert gini(np.array([0, 0, 0, 9])) == pytest.approx(0.75)
    with pytest.raises(ArgumentError, match="sum of sizes"):
        gini(np.array([0, 0]))
