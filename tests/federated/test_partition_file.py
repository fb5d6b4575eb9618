import numpy as np
import pytest
from fednlp_files import classification, lists, texts, write_devices, write_fields

from trustnlp.errors import ArgumentError, MalformedCorpusError
from trustnlp.federated import partition, partition_alignment, partition_data_file, partition_file
from trustnlp.federated.partition_skew import explained_by_device, label_counts

h5py = pytest.importorskip("h5py")


def generator(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def data(tmp_path):
    return partition_data_file.read(classification(tmp_path / "data.h5", 120, 60))


def split(numbers, devices):
    return [list(numbers[device::devices]) for device in range(devices)]


def read(path, method, data):
    return partition_file.read(path, method, data, generator())


def test_a_file_of_fednlp_is_read(tmp_path, data):
    path = write_devices(tmp_path / "parts.h5", "uniform", split(range(120), 7), split(range(120, 180), 7))
    write_devices(path, "niid_quantity_clients=2_beta=5.0", split(range(120), 2), split(range(120, 180), 2), beta=5.0)
    assert partition_file.methods(path) == ("niid_quantity_clients=2_beta=5.0", "uniform")
    train, test = read(path, "uniform", data)
    assert train.devices[3].tolist() == list(range(3, 120, 7))
    assert test.devices[3].tolist() == list(range(3, 60, 7))
    assert dict(train.details) == {"name": "uniform", "order": "not checked"}
    assert read(path, "niid_quantity_clients=2_beta=5.0", data)[0].details["beta"] == 5


def test_devices_without_examples_are_read(tmp_path, data):
    path = write_devices(tmp_path / "parts.h5", "uniform", [range(120), []], [[], range(120, 180)])
    train, test = read(path, "uniform", data)
    assert train.sizes.tolist() == [120, 0]
    assert test.sizes.tolist() == [0, 60]


def test_texts_that_were_left_out_are_left_out_of_devices(tmp_path):
    path = write_fields(tmp_path / "data.h5", lists(3, 1) | {"task_type": "lm"}, X=["a", " ", "c", "d"])
    data = partition_data_file.read(path)
    write_devices(tmp_path / "parts.h5", "uniform", [[1, 2], [0]], [[3], []])
    train, test = read(tmp_path / "parts.h5", "uniform", data)
    assert [own.tolist() for own in train.devices] == [[1], [0]]
    assert test.sizes.tolist() == [1, 0]


def test_of_a_corpus_without_splits_devices_keep_all_they_have(tmp_path):
    data = partition_data_file.read(write_fields(tmp_path / "data.h5", {}, X=["a", "b", "c"]))
    write_devices(tmp_path / "parts.h5", "uniform", [[0], [2]], [[1], []])
    train, test = read(tmp_path / "parts.h5", "uniform", data)
    assert [own.tolist() for own in train.devices] == [[0, 1], [2]]
    assert test.examples == 0


@pytest.mark.parametrize(
    ("train", "test", "reason"),
    [
        ([[0, 1], [1, 2]], [[3], []], "an example on two devices, or twice on one"),
        ([[0, 0], [1, 2]], [[3], []], "an example on two devices, or twice on one"),
        ([[0, 1], [2, 4]], [[3], []], "holds number 4, which is none of the split's"),
        ([[0, 1], [2, -1]], [[3], []], "holds number -1, which is none of the split's"),
        ([[0, 1], [2, 3]], [[3], []], "holds number 3, which is none of the split's"),
        ([[0, 1], []], [[3], []], "leaves out examples"),
        ([[0, 1], [2]], [[], []], "leaves out examples"),
        ([[0, 1], [0.5]], [[3], []], "does not hold whole numbers"),
    ],
)
def test_partitions_of_something_else_are_refused(tmp_path, train, test, reason):
    data = partition_data_file.read(write_fields(tmp_path / "d.h5", lists(3, 1), X=["a", "b", "c", "d"]))
    path = write_devices(tmp_path / "parts.h5", "uniform", train, test)
    with pytest.raises(MalformedCorpusError, match=reason):
        read(path, "uniform", data)


def test_devices_are_those_that_the_file_counts(tmp_path, data):
    path = write_devices(tmp_path / "parts.h5", "uniform", split(range(120), 3), split(range(120, 180), 3))
    with h5py.File(path, "a") as file:
        del file["uniform/n_clients"]
        file["uniform/n_clients"] = 4
    for method in ("uniform", "absent"):
        with pytest.raises(MalformedCorpusError, match=f"it has no partition '{method}' whose n_clients"):
            read(path, method, data)


# --- FedNLP's defect: clusters in the order of keys, read as if in that of numbers ---


SPLITS = slice(0, 150), slice(150, 200)
MIXED = "niid_cluster_clients=12_alpha=0.5"


def clustered(tmp_path, task, *, misaligned):
    """A corpus of three topics, and what FedNLP's kmeans.py and niid_label.py make of it (its own k-means apart)."""
    rows, topics = texts(200)
    fields = {
        "lm": {"X": rows},
        "seq2seq": {"X": [f"text {number}" for number in range(200)], "Y": rows},
        "seq_tagging": {"X": [row.split() for row in rows], "Y": [["O"] * len(row.split()) for row in rows]},
        "span_extraction": {"context_X": rows, "question_X": ["what?"] * 200, "Y": [(0, 3)] * 200},
    }
    path = write_fields(tmp_path / "data.h5", lists(150, 50) | {"task_type": task}, **fields[task])
    clusters = np.array([sorted(set(topics)).index(topic) for topic in topics])
    if misaligned:
        clusters = clusters[partition_alignment.key_order(200)]
    by_cluster = [[np.flatnonzero(clusters[part] == c) + part.start for c in range(3)] for part in SPLITS]
    made = [partition.by_label(clusters[part].tolist(), 12, 0.5, generator()) for part in SPLITS]
    mixed = [[own + part.start for own in each.devices] for each, part in zip(made, SPLITS, strict=True)]
    write_devices(tmp_path / "parts.h5", "kmeans_clusters=3", *by_cluster, client_assignment=clusters)
    write_devices(tmp_path / "parts.h5", MIXED, *mixed, alpha=0.5)
    return partition_data_file.read(path), tmp_path / "parts.h5", np.array(topics)


@pytest.mark.parametrize("task", ["lm", "seq2seq", "seq_tagging", "span_extraction"])
def test_misaligned_clusters_are_detected(tmp_path, task):
    (tmp_path / "good").mkdir()
    data, path, topics = clustered(tmp_path / "good", task, misaligned=False)
    for method in ("kmeans_clusters=3", MIXED):
        train, _ = read(path, method, data)
        assert train.details["order"] == "numbers"
        assert explained_by_device(label_counts(train, topics[SPLITS[0]].tolist())[1]) > 0.3
    data, path, topics = clustered(tmp_path, task, misaligned=True)
    for method in ("kmeans_clusters=3", MIXED):
        with pytest.raises(
            MalformedCorpusError, match=r"order of HDF5 keys.*; spread the texts anew.*by_key_order=True"
        ):
            read(path, method, data)


def test_misaligned_clusters_can_be_mended(tmp_path):
    data, path, topics = clustered(tmp_path, "lm", misaligned=True)
    with pytest.raises(MalformedCorpusError, match="in the order of their keys; read them with by_key_order=True"):
        partition_file.read_clusters(path, "kmeans_clusters=3", data, generator())
    train, test = partition_file.read_clusters(path, "kmeans_clusters=3", data, generator(), by_key_order=True)
    names = np.array(sorted(set(topics)))
    assert (names[train] == topics[SPLITS[0]]).all()
    assert (names[test] == topics[SPLITS[1]]).all()


def test_aligned_clusters_are_read_as_they_are(tmp_path):
    data, path, topics = clustered(tmp_path, "lm", misaligned=False)
    train, _ = partition_file.read_clusters(path, "kmeans_clusters=3", data, generator())
    assert (np.array(sorted(set(topics)))[train] == topics[SPLITS[0]]).all()
    with pytest.raises(MalformedCorpusError, match="in the order of their numbers; read them with by_key_order=False"):
        partition_file.read_clusters(path, "kmeans_clusters=3", data, generator(), by_key_order=True)


def test_clusters_of_other_texts_are_refused(tmp_path, data):
    path = tmp_path / "parts.h5"
    write_devices(path, "kmeans_3", [range(180)], [[]], client_assignment=generator().integers(0, 3, 180))
    write_devices(path, "kmeans_2", [range(180)], [[]], client_assignment=[0, 1])
    with pytest.raises(MalformedCorpusError, match="fit the texts in no order"):
        partition_file.read_clusters(path, "kmeans_3", data, generator())
    with pytest.raises(MalformedCorpusError, match="has 2 clusters for 180 texts"):
        partition_file.read_clusters(path, "kmeans_2", data, generator())


def test_labels_in_the_order_of_keys_are_detected(tmp_path, data):
    """FedNLP's lda.py numbers the labels by the place of their key."""
    labels = np.array([example.label for example in data.corpus.train])
    for name, read_labels in (("lda", labels), ("bad", labels[partition_alignment.key_order(120)])):
        made = partition.by_label(read_labels.tolist(), 6, 0.2, generator())
        path = write_devices(tmp_path / f"{name}.h5", "lda", list(made.devices), split(range(120, 180), 6))
        if name == "lda":
            assert read(path, "lda", data)[0].details["order"] == "numbers"
    # 180 texts have other keys than 120, so plant the order over all of them
    everything = np.array([data.by_number[number].label for number in range(180)])
    shown = everything[partition_alignment.key_order(180)][:120]
    made = partition.by_label(shown.tolist(), 6, 0.2, generator())
    path = write_devices(tmp_path / "keys.h5", "lda", list(made.devices), split(range(120, 180), 6))
    with pytest.raises(MalformedCorpusError, match="order of HDF5 keys"):
        read(path, "lda", data)


# --- writing ---


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda n: partition.iid(n, 5, generator()), "uniform"),
        (lambda n: partition.by_quantity(n, 5, 1.0, generator()), "niid_quantity_clients=5_beta=1.0"),
        (lambda n: partition.by_label([0, 1, 2] * (n // 3), 5, 0.5, generator()), "niid_label_clients=5_alpha=0.5"),
        (lambda n: partition.by_time(range(n), 5), "time_clients=5"),
    ],
)
def test_what_is_written_is_read_back(tmp_path, data, make, name):
    train, test = make(120), make(60)
    assert partition_file.write(tmp_path / "parts.h5", data, train, test) == name
    again = read(tmp_path / "parts.h5", name, data)
    assert partition_file.write(tmp_path / "copy.h5", data, *again) == name
    assert dict(read(tmp_path / "copy.h5", name, data)[0].details) == dict(again[0].details)
    for one, other in zip((train, test), again, strict=True):
        assert [own.tolist() for own in one.devices] == [own.tolist() for own in other.devices]


def test_what_is_written_has_what_fednlp_reads(tmp_path, data):
    made = partition.iid(120, 4, generator()), partition.iid(60, 4, generator())
    partition_file.write(tmp_path / "parts.h5", data, *made)
    with h5py.File(tmp_path / "parts.h5", "r", swmr=True) as file:
        assert int(file["uniform"]["n_clients"][()]) == 4
        assert list(file["uniform"]["partition_data"]) == ["0", "1", "2", "3"]
        assert file["uniform"]["partition_data"]["2"]["test"][()].tolist() == (120 + made[1].devices[2]).tolist()


def test_one_file_holds_many_partitions_and_none_twice(tmp_path, data):
    path = tmp_path / "parts.h5"
    for devices in (2, 3):
        quantity = [partition.by_quantity(n, devices, 1.0, generator()) for n in (120, 60)]
        partition_file.write(path, data, *quantity)
    assert len(partition_file.methods(path)) == 2
    before = path.read_bytes()
    with pytest.raises(ArgumentError, match=r"a file without a partition 'niid_quantity_clients=3_beta=1.0'"):
        partition_file.write(path, data, *quantity)
    assert path.read_bytes() == before


def test_partitions_of_other_splits_are_not_written(tmp_path, data):
    train, test = partition.iid(120, 4, generator()), partition.iid(60, 4, generator())
    with pytest.raises(ArgumentError, match="'train' must be of the split's 120 examples on 4 devices"):
        partition_file.write(tmp_path / "parts.h5", data, partition.iid(100, 4, generator()), test)
    with pytest.raises(ArgumentError, match="'test' must be of the split's 60 examples on 4 devices"):
        partition_file.write(tmp_path / "parts.h5", data, train, partition.iid(60, 3, generator()))
    with pytest.raises(ArgumentError, match="'test' must be of the split's 60 examples"):
        partition_file.write(tmp_path / "parts.h5", data, train)
