import json

import numpy as np
import pytest

from trustnlp.errors import ArgumentError
from trustnlp.federated import partition, partition_report
from trustnlp.federated.partition import Partition
from trustnlp.federated.partition_report import finding
from trustnlp.report import figures
from trustnlp.report.explanations import explain


def generator(seed=0):
    return np.random.default_rng(seed)


def made(*devices):
    return Partition("file", tuple(np.array(own, dtype=np.int64) for own in devices))


def test_a_partition_by_hand():
    found = finding(made([0, 1, 2], [3], [4, 5]), ["a", "a", "b", "b", "b", "b"], generator())
    assert found.details["labels"] == ["b", "a"]
    assert found.details["prior"] == [0.6667, 0.3333]
    # first the devices whose commonest label is "b", then the one of "a"
    assert found.details["columns"] == [
        {"devices": 1, "shares": [1.0, 0.0]},
        {"devices": 1, "shares": [1.0, 0.0]},
        {"devices": 1, "shares": [0.3333, 0.6667]},
    ]
    assert found.details["sizes"] == [
        {"rank": 1, "size": 3, "reached": 3},
        {"rank": 2, "size": 2, "reached": 5},
        {"rank": 3, "size": 1, "reached": 6},
    ]
    # impurity of all 1 - (16 + 4) / 36 = 4/9, within 1 - (5/3 + 1 + 2) / 6 = 2/9; 1 - (1/2)(5/3)
    assert found.value == pytest.approx(1 / 6)
    assert (found.n, found.regime) == (6, "")


def test_many_devices_and_labels_are_merged_and_all_are_counted():
    labels = [number % 50 for number in range(3000)]
    spread = partition.by_label(labels, 1000, 0.5, generator())
    found = finding(spread, labels, generator())
    columns = found.details["columns"]
    assert sum(column["devices"] for column in columns) == 1000
    assert len(columns) == 40
    assert len(found.details["labels"]) == 20
    assert found.details["labels"][-1] == "other labels"
    assert all(sum(column["shares"]) == pytest.approx(1, abs=0.01) for column in columns)
    assert len(found.details["sizes"]) <= 80
    assert found.details["sizes"][-1]["reached"] == 3000
    assert found.details["asked"] == pytest.approx(1 / 1.5)
    assert len(json.dumps(dict(found.details))) < 20_000


def test_nobodys_own_labels_and_no_name_are_in_it():
    users = [f"user{number % 23}" for number in range(230)]
    found = finding(partition.by_user(users), [number % 4 for number in range(230)], generator())
    assert min(column["devices"] for column in found.details["columns"]) >= 5
    assert "user1" not in json.dumps(dict(found.details))
    few = finding(partition.by_user(users[:3]), ["a", "b", "b"], generator())
    assert [column["devices"] for column in few.details["columns"]] == [3]


def test_empty_devices_have_no_mix():
    found = finding(made([0, 1], []), ["a", "b"], generator())
    assert found.details["columns"] == [{"devices": 1, "shares": [0.5, 0.5]}]
    assert found.details["devices"] == 2
    assert found.details["sizes"][-1] == {"rank": 2, "size": 0, "reached": 2}


def test_it_is_drawn_and_explained():
    labels = ["a", "b", "c"] * 30
    found = finding(partition.by_label(labels, 9, 1.0, generator()), labels, generator())
    assert [figure.title for figure in figures.of("devices", [found])] == ["Labels by device", "Texts by device"]
    entry = explain(partition_report.ID)
    assert entry
    assert entry.question == "devices"


def test_labels_are_known_for_all():
    with pytest.raises(ArgumentError, match="one for each of the 2 examples"):
        finding(made([0, 1]), ["a"], generator())
