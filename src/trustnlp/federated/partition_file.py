"""FedNLP's partition files: several partitions of one data file in HDF5, read, written and validated.

    <method>/n_clients, alpha or beta
    <method>/partition_data/<device>/train, test      numbers of the data file's examples
    kmeans…/client_assignment                         the cluster of each example

<method> is such as `uniform`, `niid_label_clients=100_alpha=0.5` or `niid_quantity_clients=100_beta=1.0`.
Source: Lin et al. 2022, FedNLP, arXiv:2104.08815, and its code, github.com/FedML-AI/FedNLP, data/advanced_partition.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trustnlp import files
from trustnlp.errors import ArgumentError
from trustnlp.federated import feature_clusters, partition_alignment
from trustnlp.federated.partition import FROM_FILE, Indices, Partition, label_of, numbered
from trustnlp.federated.partition_alignment import Order
from trustnlp.federated.partition_data_file import DataFile
from trustnlp.federated.partition_hdf5 import Hdf5, reading, writing

_BY_TOPIC = ("kmeans", "niid_cluster")
_BY_LABEL = ("lda", "niid_label")
_NOTHING = np.empty(0, dtype=np.int64)


def methods(path: str | Path) -> tuple[str, ...]:
    """The partitions that a partition file holds.

    Raises:
        MissingExtraError, CorpusNotFoundError, MalformedCorpusError: see `partition_data_file.read`.
    """
    with reading(path) as file:
        return tuple(name for name in file.names("") if "partition_data" in file.names(name))


def read(path: str | Path, method: str, data: DataFile, generator: np.random.Generator) -> tuple[Partition, Partition]:
    """The partitions of the train and of the test split that a file holds under the name `method`.

    The file is checked against its corpus: every example is on one device, and devices that are skewed by cluster or
    label are skewed in the texts that they name (`partition_alignment`; the answer stands in the details as `order`).

    Args:
        path: of the partition file.
        method: one of `methods(path)`.
        data: the data file that it belongs to.
        generator: drawn from for that check.

    Raises:
        MissingExtraError, CorpusNotFoundError: see `partition_data_file.read`.
        MalformedCorpusError: no such method; an example twice, nowhere, or in the wrong split; devices whose clusters
            are those of other texts.
    """
    with reading(path) as file:
        train, test, skew = _devices(file, method)
        order = _order(method, data, train, generator)
        if order is Order.KEYS:
            raise file.broken(
                f"the devices of {method!r} hold other texts than they were made for: its clusters are in the order of "
                "HDF5 keys (0, 1, 10, 100, …) and were read as if in that of numbers",
                "spread the texts anew, for instance with partition.by_label on read_clusters(…, by_key_order=True)",
            )
        if not len(data.test):  # the corpus has no split of its own: what devices would test on is theirs as well
            train, test = [np.concatenate(pair) for pair in zip(train, test, strict=True)], [_NOTHING] * len(train)
        places = (_positions(file, method, *pair, data.left_out) for pair in ((train, data.train), (test, data.test)))
        details = {"name": method, **skew, "order": str(order) if order else "not checked"}
        own, other = (Partition(FROM_FILE, devices, details) for devices in places)
    return own, other


def write(path: str | Path, data: DataFile, train: Partition, test: Partition | None = None) -> str:
    """Adds a partition to a file that FedNLP reads, or begins one; the file is replaced as a whole. Answers its name.

    Args:
        path: of the partition file.
        data: what the partition is of.
        train: the partition of the train split.
        test: that of the test split on as many devices; None where the split is empty.

    Raises:
        MissingExtraError: the extra `fednlp` is not installed.
        ArgumentError: partitions of other splits, or a file that holds a partition of that name.
    """
    test = Partition(FROM_FILE, (_NOTHING,) * len(train)) if test is None else test
    for name, part, numbers in (("train", train, data.train), ("test", test, data.test)):
        if part.examples != len(numbers) or len(part) != len(train):
            raise ArgumentError(name, f"of the split's {len(numbers):,} examples on {len(train):,} devices", str(part))
    name, skew = _name(train)
    there = Path(path).exists()
    if there and name in methods(path):
        raise ArgumentError("path", f"a file without a partition {name!r}", str(path), "choose another file")
    with files.whole(path) as copy:
        if there:
            shutil.copyfile(path, copy)
        with writing(copy, add=there) as file:
            file[f"{name}/n_clients"] = len(train)
            for parameter, value in skew.items():
                file[f"{name}/{parameter}"] = value
            for device, (own_train, own_test) in enumerate(zip(train.devices, test.devices, strict=True)):
                file[f"{name}/partition_data/{device}/train"] = data.train[own_train]
                file[f"{name}/partition_data/{device}/test"] = data.test[own_test]
    return name


def read_clusters(
    path: str | Path, name: str, data: DataFile, generator: np.random.Generator, *, by_key_order: bool = False
) -> tuple[Indices, Indices]:
    """The clusters of the texts of the train and of the test split that a file holds under `name`/client_assignment.

    Args:
        path: of the partition file.
        name: such as `kmeans_clusters=10`.
        data: the data file that it belongs to.
        generator: drawn from for the check of their order.
        by_key_order: the k-th entry belongs to the k-th key in the order of HDF5, as FedNLP writes them, and not to the
            text number k.

    Raises:
        MissingExtraError, CorpusNotFoundError: see `partition_data_file.read`.
        MalformedCorpusError: not one cluster for each text; or they fit the texts in the other order only, or in none.
    """
    with reading(path) as file:
        clusters = file.integers(f"{name}/client_assignment")
        texts = len(data.train) + len(data.test) + len(data.left_out)
        if len(clusters) != texts or set(data.by_number) | data.left_out != set(range(texts)):
            raise file.broken(f"{name!r} has {len(clusters):,} clusters for {texts:,} texts numbered from 0 on")
        order = partition_alignment.fit(_topics(data, generator), np.arange(texts), clusters, generator).order
        if order is Order.UNCLEAR:
            raise file.broken(f"the clusters {name!r} fit the texts in no order", "make them anew: feature_clusters")
        if (order is Order.KEYS) != by_key_order:
            mend = f"read them with by_key_order={not by_key_order}"
            raise file.broken(f"the clusters {name!r} fit the texts in the order of their {order}", mend)
    if by_key_order:
        mended = np.empty_like(clusters)
        mended[partition_alignment.key_order(texts)] = clusters
        clusters = mended
    return clusters[data.train], clusters[data.test]


def _name(partition: Partition) -> tuple[str, dict[str, float]]:
    """FedNLP's name of a partition, and its concentration by name."""
    names = {
        "label": ("niid_label", "alpha"),
        "cluster": ("niid_cluster", "alpha"),
        "quantity": ("niid_quantity", "beta"),
    }
    if partition.method == FROM_FILE and "name" in partition.details:
        skew = {name: partition.details[name] for name in ("alpha", "beta") if name in partition.details}
        return str(partition.details["name"]), skew
    if partition.method not in names:
        return ("uniform" if partition.method == "iid" else f"{partition.method}_clients={len(partition)}"), {}
    kind, parameter = names[partition.method]
    value = float(partition.details[parameter])
    return f"{kind}_clients={len(partition)}_{parameter}={value!r}", {parameter: value}


def _devices(file: Hdf5, method: str) -> tuple[list[Indices], list[Indices], dict[str, float]]:
    """The numbers of each device's train and test examples, and what the partition was asked for."""
    devices = file.numbers(f"{method}/partition_data")
    if not devices or devices != list(range(len(devices))) or file.number(f"{method}/n_clients") != len(devices):
        raise file.broken(f"it has no partition {method!r} whose n_clients devices are numbered from 0 on")
    train, test = (
        [file.integers(f"{method}/partition_data/{device}/{split}") for device in devices]
        for split in ("train", "test")
    )
    there = file.names(method)
    return train, test, {name: file.number(f"{method}/{name}") for name in ("alpha", "beta") if name in there}


def _positions(
    file: Hdf5, method: str, parts: Sequence[Indices], split: Indices, left_out: frozenset[int]
) -> tuple[Indices, ...]:
    """The devices' numbers as positions in a split that they must make up."""
    place = {number: position for position, number in enumerate(split.tolist())}
    numbers = [number for own in parts for number in own.tolist() if number not in left_out]
    if len(set(numbers)) != len(numbers):
        raise file.broken(f"{method!r} has an example on two devices, or twice on one")
    strange = set(numbers) - place.keys()
    if strange or len(numbers) != len(place):
        what = f"holds number {min(strange)}, which is none of the split's" if strange else "leaves out examples"
        raise file.broken(f"{method!r} {what}", "read it with the data file that it was made of")
    kept = ([place[number] for number in own.tolist() if number in place] for own in parts)
    return tuple(np.array(sorted(own), dtype=np.int64) for own in kept)


def _order(method: str, data: DataFile, parts: Sequence[Indices], generator: np.random.Generator) -> Order | None:
    """In which order the devices' skew fits the texts; None where none is known, or numbers are not 0, 1, 2, …"""
    numbers = np.concatenate([*parts, np.empty(0, dtype=np.int64)])
    texts = len(data.by_number) + len(data.left_out)
    outside = set(data.by_number) | data.left_out != set(range(texts)) or not set(numbers.tolist()) <= set(range(texts))
    if outside or not method.startswith(_BY_TOPIC + _BY_LABEL):
        return None
    vectors = _topics(data, generator) if method.startswith(_BY_TOPIC) else _one_label_each(data)
    devices = np.repeat(np.arange(len(parts)), [len(own) for own in parts])
    return partition_alignment.fit(vectors, numbers, devices, generator).order


def _topics(data: DataFile, generator: np.random.Generator) -> feature_clusters.Vectors:
    """(N, D) what the texts are about, by number; summaries and replies by the target, as FedNLP does."""
    examples = data.by_number
    texts = [
        (examples[number].target or examples[number].text) if number in examples else ""
        for number in range(len(examples) + len(data.left_out))
    ]
    return feature_clusters.tfidf(texts, generator)


def _one_label_each(data: DataFile) -> np.ndarray:
    """(N, L) the labels as 0 and 1, by number; of a text left out all 0."""
    examples = data.by_number
    codes, names = numbered([label_of(example) or "" for example in examples.values()])
    vectors = np.zeros((len(examples) + len(data.left_out), len(names)), dtype=np.float32)
    vectors[np.array(list(examples)), codes] = 1
    return vectors
