import numpy as np
import pytest

from trustnlp.errors import ArgumentError
from trustnlp.federated.partition_alignment import Fit, Order, fit, key_order


def generator(seed=0):
    return np.random.default_rng(seed)


def vectors(topics):
    return np.eye(3)[topics] + generator(9).normal(scale=0.7, size=(len(topics), 3))


def test_the_order_of_keys_by_hand(tmp_path):
    assert key_order(12).tolist() == [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]


def test_the_order_of_keys_is_that_of_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "keys.h5", "w") as file:
        for number in range(125):
            file[f"X/{number}"] = number
        assert [file["X"][key][()] for key in file["X"]] == key_order(125).tolist()


@pytest.mark.parametrize("topics", [np.arange(300) % 3, np.arange(300) // 100, generator().integers(0, 3, 300)])
@pytest.mark.parametrize(
    "numbers", [np.arange(300), np.arange(0, 300, 2), np.arange(200)], ids=["all", "half", "train"]
)
def test_planted_clusters_are_found_in_their_order(topics, numbers):
    aligned = fit(vectors(topics), numbers, topics[numbers], generator())
    assert aligned.order is Order.NUMBERS
    # what FedNLP does: clusters listed by key, then read by number
    misaligned = topics[key_order(300)][numbers]
    assert fit(vectors(topics), numbers, misaligned, generator()).order is Order.KEYS


def test_devices_that_mix_clusters_are_found_too():
    topics = np.arange(3000) % 3
    device = np.empty(3000, dtype=np.int64)
    for topic in range(3):
        own = np.flatnonzero(topics == topic)
        device[own] = generator(topic).choice(20, len(own), p=generator(topic).dirichlet(np.full(20, 0.5)))
    assert fit(vectors(topics), np.arange(3000), device, generator()).order is Order.NUMBERS
    assert fit(vectors(topics), np.arange(3000), device[key_order(3000)], generator()).order is Order.KEYS


def test_clusters_without_relation_to_the_texts_are_hardly_ever_taken_for_aligned():
    topics = np.arange(120) % 3
    found = [
        fit(vectors(topics), np.arange(120), generator(seed).integers(0, 3, 120), generator(seed)).order
        for seed in range(200)
    ]
    assert found == [Order.UNCLEAR] * 200


def test_of_ten_texts_the_orders_are_one():
    assert Fit(0.5, 0.5, 0.1).order is Order.NUMBERS
    topics = np.arange(10) % 2
    assert fit(np.eye(2)[topics], np.arange(10), topics, generator()).by_key == 1


def test_numbers_of_other_texts_are_refused():
    with pytest.raises(ArgumentError, match="'numbers' must be one for each of the 2 clusters, below 3"):
        fit(np.eye(3), np.array([0, 3]), np.array([0, 1]), generator())
