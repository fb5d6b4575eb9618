"""Files as FedNLP's own scripts write them, made with h5py alone: what the readers are tested on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

WORDS = {
    "food": "apple pear plum fruit juice bread",
    "cars": "engine wheel motor brake oil tyre",
    "law": "judge court trial verdict jury appeal",
}


def texts(number: int) -> tuple[list[str], list[str]]:
    """Texts of three topics in turn, and their topics."""
    rng = np.random.default_rng(5)
    topics = [list(WORDS)[index % 3] for index in range(number)]
    return [" ".join(rng.choice(WORDS[topic].split(), 4)) for topic in topics], topics


def write_fields(path: Path, attributes: Any, **fields: list[Any]) -> Path:
    """A data file: of each field one dataset a text."""
    import h5py

    kind = h5py.string_dtype("utf-8", None)
    with h5py.File(path, "w") as file:
        file["attributes"] = attributes if isinstance(attributes, str) else json.dumps(attributes)
        for field, values in fields.items():
            for key, value in enumerate(values):
                words = isinstance(value, list)
                file[f"{field}/{key}"] = np.array(value, dtype=kind) if words else value
    return path


def lists(train: int, test: int) -> dict[str, list[int]]:
    """The lists of `attributes`."""
    numbers = list(range(train + test))
    return {"train_index_list": numbers[:train], "test_index_list": numbers[train:], "index_list": numbers}


def classification(path: Path, train: int = 60, test: int = 30) -> Path:
    """A classification file of three topics."""
    rows, topics = texts(train + test)
    attributes = lists(train, test) | {"num_labels": 3, "label_vocab": {"food": 0, "cars": 1, "law": 2}}
    return write_fields(path, attributes | {"task_type": "text_classification"}, X=rows, Y=topics)


def write_devices(path: Path, method: str, train: list[Any], test: list[Any], **more: Any) -> Path:
    """A partition file, or one more partition in it, with lists as they come (an empty one is of floats)."""
    import h5py

    with h5py.File(path, "a") as file:
        file[f"/{method}/n_clients"] = len(train)
        for name, value in more.items():
            file[f"/{method}/{name}"] = value
        for device, (own_train, own_test) in enumerate(zip(train, test, strict=True)):
            file[f"/{method}/partition_data/{device}/train/"] = own_train
            file[f"/{method}/partition_data/{device}/test/"] = own_test
    return path
