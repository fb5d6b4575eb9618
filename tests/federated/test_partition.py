import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustnlp.data import Example
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.federated import partition
from trustnlp.federated.partition import Partition
from trustnlp.federated.partition_skew import explained_by_device, label_counts


def generator(seed=0):
    return np.random.default_rng(seed)


def indices(*numbers):
    return np.array(numbers, dtype=np.int64)


def same(one, other):
    return [own.tolist() for own in one.devices] == [own.tolist() for own in other.devices]


# --- the record ---


def test_a_partition_by_hand():
    made = Partition("file", (indices(1, 4), indices(), indices(0, 2, 3)), {"alpha": 0.5, "note": "x", "k": True})
    assert len(made) == 3
    assert made.examples == 5
    assert made.sizes.tolist() == [2, 0, 3]
    assert made.device_of.tolist() == [2, 0, 2, 2, 0]
    assert str(made) == "file (alpha 0.5): 5 texts on 3 devices, 0 to 3 each, median 2"
    assert str(partition.iid(6, 3, generator())) == "iid: 6 texts on 3 devices, 2 each"


def test_a_partition_stays_as_it_is():
    own = indices(0, 1, 2)
    made = Partition("file", (own,))
    own[0] = 5
    assert made.devices[0].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="read-only"):
        made.devices[0][0] = 5


def test_a_partition_goes_to_other_processes():
    made = partition.by_label(["a", "b", "b"], 2, 0.5, generator())
    assert same(pickle.loads(pickle.dumps(made)), made)  # noqa: S301 - our own bytes


@pytest.mark.parametrize(
    ("devices", "reason"),
    [
        ((indices(0, 1), indices(1, 2)), "1 occurs twice"),
        ((indices(0, 0, 1),), "0 occurs twice"),
        ((indices(0, 1), indices(3)), "2 is missing"),
        ((indices(-1, 0, 1),), "2 is missing"),
        ((indices(0, 1), indices()), "device 1 is empty"),
    ],
)
def test_every_example_is_somewhere_once(devices, reason):
    with pytest.raises(GuaranteeError, match=reason):
        Partition("label", devices)


@pytest.mark.parametrize(
    "devices",
    [(), (np.array([0.0, 1.0]),), ([0, 1],), (np.array([[0, 1]]),), (indices(1, 0),), (np.arange(2, dtype=np.int32),)],
)
def test_devices_are_ascending_whole_numbers(devices):
    with pytest.raises(ArgumentError, match="devices"):
        Partition("label", devices)


# --- properties of all methods ---


def sevens(n):
    return [number % 7 for number in range(n)]


METHODS = {
    "iid": lambda n, k, seed: partition.iid(n, k, generator(seed)),
    "one label": lambda n, k, seed: partition.by_label(["a"] * n, k, 0.5, generator(seed)),
    "labels all different": lambda n, k, seed: partition.by_label(range(n), k, 0.5, generator(seed)),
    "nearly one label a device": lambda n, k, seed: partition.by_label(sevens(n), k, 1e-3, generator(seed)),
    "nearly even": lambda n, k, seed: partition.by_label(sevens(n), k, 100.0, generator(seed)),
    "nearly all on one": lambda n, k, seed: partition.by_quantity(n, k, 1e-3, generator(seed)),
    "quantity": lambda n, k, seed: partition.by_quantity(n, k, 1.0, generator(seed)),
    "activity": lambda n, k, seed: partition.activity(n, k, 1.0, generator(seed)),
    "steep activity": lambda n, k, seed: partition.activity(n, k, 400.0, generator(seed)),
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=40)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_the_record_accepts_what_methods_make(method, data, seed):
    examples = data.draw(st.integers(1, 120))
    devices = data.draw(st.integers(1, examples))
    made = METHODS[method](examples, devices, seed)  # the record itself refuses what is no partition
    assert len(made) == devices
    assert made.examples == examples
    assert made.sizes.min() >= 1
    assert same(made, METHODS[method](examples, devices, seed))


@pytest.mark.parametrize("method", METHODS)
def test_seeds_matter_and_more_devices_than_examples_are_refused(method):
    made = [METHODS[method](60, 6, seed) for seed in (0, 1)]
    assert not same(*made)
    with pytest.raises(ArgumentError, match="at most the 60 examples"):
        METHODS[method](60, 61, 0)
    with pytest.raises(ArgumentError, match="'devices' must be a whole number >= 1"):
        METHODS[method](60, 0, 0)


@pytest.mark.parametrize("method", ["iid", "one label", "labels all different", "nearly one label a device"])
def test_sizes_are_equal_up_to_one(method):
    assert np.ptp(METHODS[method](61, 7, 0).sizes) == 1


# --- one by one ---


def test_iid_devices_hold_random_samples():
    """Each example lies on each of 4 devices a quarter of the time."""
    found = np.array([partition.iid(20, 4, generator(seed)).device_of for seed in range(2000)])
    shares = np.stack([(found == device).mean(axis=0) for device in range(4)])
    assert np.abs(shares - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 2000)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0, 5.0])
def test_the_asked_label_skew_is_attained(alpha):
    labels = [number % 10 for number in range(6000)]
    found = [
        explained_by_device(label_counts(partition.by_label(labels, 100, alpha, generator(seed)), labels)[1])
        for seed in range(10)
    ]
    assert np.mean(found) == pytest.approx(1 / (1 + alpha), rel=0.1)


def test_which_examples_of_a_label_a_device_gets_is_random():
    labels = ["a"] * 20 + ["b"] * 20
    found = np.array([partition.by_label(labels, 4, 1.0, generator(seed)).device_of for seed in range(2000)])
    assert np.abs((found == 0).mean(axis=0) - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 2000)


def test_near_zero_alpha_fills_devices_with_one_label_while_it_lasts():
    made = partition.by_label(["a"] * 50 + ["b"] * 50, 10, 1e-6, generator())
    _, counts = label_counts(made, ["a"] * 50 + ["b"] * 50)
    assert ((counts > 0).sum(axis=1) == 1).all()


def test_any_key_can_be_skewed_and_none_is_refused():
    assert partition.by_label([("x", 1), ("y", 2)] * 5, 2, 1.0, generator()).details["labels"] == 2
    with pytest.raises(ArgumentError, match="'labels' must be known for every text, got '1 texts without'"):
        partition.by_label(["a", None], 1, 1.0, generator())
    with pytest.raises(ArgumentError, match="'alpha' must be a number > 0"):
        partition.by_label(["a", "b"], 1, 0.0, generator())


def test_clusters_are_skewed_as_labels_are():
    """Four far heaps of vectors: the partition is skewed by heap, and the k-means finds them."""
    heaps = [number % 4 for number in range(800)]
    vectors = np.eye(4)[heaps] * 100 + generator(1).normal(size=(800, 4))
    made = partition.by_cluster(vectors, 80, 0.5, 4, generator())
    assert made.method == "cluster"
    assert dict(made.details) == {"alpha": 0.5, "clusters": 4}
    assert explained_by_device(label_counts(made, heaps)[1]) == pytest.approx(1 / 1.5, rel=0.15)


def test_quantities_keep_the_least_and_the_mean_deviation():
    made = [partition.by_quantity(5000, 50, 1.0, generator(seed), least=10) for seed in range(200)]
    sizes = np.array([each.sizes for each in made])
    assert sizes.min() >= 10
    # 4,500 texts by Dir(1): the share of a device has standard deviation sqrt((1/50)(49/50) / 51)
    assert sizes.std() == pytest.approx(4500 * np.sqrt(0.02 * 0.98 / 51), rel=0.05)
    with pytest.raises(ArgumentError, match="at most the 40 examples with at least 5 each"):
        partition.by_quantity(40, 9, 1.0, generator(), least=5)


def test_activity_by_hand():
    # 15 texts, one each for 4 devices; 11 by 1, 1/2, 1/3, 1/4 over 25/12: 5.28, 2.64, 1.76, 1.32
    assert partition.activity(15, 4, 1.0, generator()).sizes.tolist() == [6, 4, 3, 2]
    assert partition.activity(15, 5, 0.0, generator()).sizes.tolist() == [3] * 5
    with pytest.raises(ArgumentError, match="'exponent' must be a number >= 0"):
        partition.activity(15, 4, -1.0, generator())


def test_users_are_devices_in_the_order_they_appear():
    made = partition.by_user(["zoe", "ann", "zoe", "bob", "ann"])
    assert [own.tolist() for own in made.devices] == [[0, 2], [1, 4], [3]]
    assert "zoe" not in repr(made)


def test_texts_without_user_are_refused():
    with pytest.raises(ArgumentError, match="2 texts without'; leave such texts out"):
        partition.by_user(["ann", None, None])


def test_periods_by_hand():
    # times 1 (twice), 2, 3, 4 (twice): halves of three, at a change of time
    assert partition.by_time([4, 1, 2, 1, 3, 4], 2).device_of.tolist() == [1, 0, 0, 0, 1, 1]
    # one time holds nearly everything: it stays whole, and every period has a text
    assert partition.by_time([1, 5, 5, 5, 5, 9], 3).device_of.tolist() == [0, 1, 1, 1, 1, 2]
    assert partition.by_time([5, 5, 5, 5, 6, 7], 3).device_of.tolist() == [0, 0, 0, 0, 1, 2]
    assert partition.by_time([5, 6, 7, 7, 7, 7], 3).device_of.tolist() == [0, 1, 2, 2, 2, 2]


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=60), st.data())
def test_periods_are_consecutive_and_hold_whole_times(times, data):
    periods = data.draw(st.integers(1, len(set(times))))
    made = partition.by_time(times, periods)
    assert len(made) == periods
    spans = [(min(times[i] for i in own), max(times[i] for i in own)) for own in made.devices]
    assert all(before[1] < after[0] for before, after in pairwise(spans))


@given(st.integers(1, 200), st.data())
def test_periods_of_different_times_are_equal_up_to_one(texts, data):
    periods = data.draw(st.integers(1, texts))
    assert np.ptp(partition.by_time(list(range(texts)), periods).sizes) <= 1


@pytest.mark.parametrize("times", [[1.0, None], [1.0, float("nan")], []])
def test_texts_without_time_are_refused(times):
    with pytest.raises(ArgumentError, match="times"):
        partition.by_time(times, 1)


def test_more_periods_than_times_are_refused():
    with pytest.raises(ArgumentError, match="at most the 2 different times"):
        partition.by_time([1, 1, 2], 3)


def test_what_a_tagged_text_is_skewed_by():
    def tagged(*tags, label=None):
        return Example(" ".join("x" for _ in tags), label, tags)

    assert partition.label_of(tagged("B-PER", "I-PER", "I-PER", "B-LOC", "B-LOC")) == "LOC"
    assert partition.label_of(tagged("B-PER", "B-LOC")) == "LOC"
    assert partition.label_of(tagged("O", "O")) == "O"
    assert partition.label_of(tagged("NOUN", "VERB", "NOUN")) == "NOUN"
    assert partition.label_of(tagged("B-PER", label="Call")) == "Call"
    assert partition.label_of(Example("x")) is None


# --- by the command line's grammar ---

TOPICS = [("red apple pear fruit", "food"), ("quick engine motor wheel", "cars")]
EXAMPLES = [
    Example(f"{text} {number}", label, user=f"u{number % 5}", time=float(number))
    for number, (text, label) in enumerate(TOPICS * 15)
]


@pytest.mark.parametrize(
    ("spec", "devices", "made"),
    [
        ("iid", 6, lambda rng: partition.iid(30, 6, rng)),
        ("label:alpha=0.5", 6, lambda rng: partition.by_label([e.label for e in EXAMPLES], 6, 0.5, rng)),
        ("quantity:beta=2,least=3", 6, lambda rng: partition.by_quantity(30, 6, 2.0, rng, least=3)),
        ("activity:exponent=1.2", 6, lambda rng: partition.activity(30, 6, 1.2, rng)),
        ("user", None, lambda rng: partition.by_user([e.user for e in EXAMPLES])),
        ("user", 5, lambda rng: partition.by_user([e.user for e in EXAMPLES])),
        ("time:periods=4", None, lambda rng: partition.by_time([e.time for e in EXAMPLES], 4)),
    ],
)
def test_a_spec_makes_what_its_method_makes(spec, devices, made):
    assert same(partition.of_corpus(spec, EXAMPLES, devices, generator()), made(generator()))
    assert same(partition.of_corpus(partition.parse(spec), EXAMPLES, devices, generator()), made(generator()))


def test_a_spec_of_clusters_reads_the_texts():
    made = partition.of_corpus("cluster:clusters=2,alpha=0.000001", EXAMPLES, 6, generator())
    _, counts = label_counts(made, [example.label for example in EXAMPLES])
    assert ((counts > 0).sum(axis=1) == 1).all()


def test_a_spec_of_labels_takes_any_key():
    made = partition.of_corpus("label:alpha=0.000001", EXAMPLES, 5, generator(), key=lambda e: e.user)
    _, counts = label_counts(made, [example.user for example in EXAMPLES])
    assert ((counts > 0).sum(axis=1) == 1).all()
    unlabelled = [Example("a b"), Example("c d")]
    with pytest.raises(ArgumentError, match="2 texts without'; spread texts without labels by 'cluster'"):
        partition.of_corpus("label:alpha=1", unlabelled, 2, generator())


@pytest.mark.parametrize(("spec", "devices"), [("iid", None), ("user", 4), ("time:periods=4", 5)])
def test_devices_that_contradict_the_spec(spec, devices):
    with pytest.raises(ArgumentError, match="'devices' must be"):
        partition.of_corpus(spec, EXAMPLES, devices, generator())
