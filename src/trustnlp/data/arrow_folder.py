"""Folders written by `save_to_disk` of the Hugging Face `datasets` library, read with pyarrow alone.

A dataset is a folder of `state.json` (names of its files), `dataset_info.json` (types, with the names of class
labels) and Arrow IPC streams; a dictionary of datasets is `dataset_dict.json` beside one such folder per split.
Nothing in them is code, and every batch is validated before it is touched.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trustnlp.data.tabular import Row
from trustnlp.errors import MalformedCorpusError

_ROWS_AT_ONCE = 1000

Decoder = Callable[[Any], Any]


def is_dataset(folder: Path) -> bool:
    """Whether `folder` holds a saved dataset or a dictionary of them."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def splits(folder: Path) -> dict[str, Path]:
    """The folder of each split by the name it was given there; one dataset without splits has the name ''."""
    listing = folder / "dataset_dict.json"
    if not listing.is_file():
        return {"": folder}
    names = _object(listing).get("splits")
    if not isinstance(names, list) or not names:
        raise MalformedCorpusError(listing, None, "no list of splits", "save the dataset again")
    return {name: folder / _plain_name(listing, name) for name in names}


def rows(folder: Path) -> Iterator[tuple[int, Row]]:
    """The rows of one dataset with their 1-based places; class labels are decoded to their names.

    Raises:
        MalformedCorpusError: a file is missing, damaged or names one outside of the folder.
    """
    decoders = _decoders(folder / "dataset_info.json")
    state = _object(folder / "state.json")
    if state.get("_indices_data_files"):
        raise MalformedCorpusError(folder, None, "rows chosen by an indices file", "save it after flatten_indices()")
    place = 0
    for name in _file_names(folder, state):
        for row in _stream(folder / name):
            place += 1
            yield place, {key: decoders.get(key, _same)(value) for key, value in row.items()}


def _stream(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
            for batch in stream:
                batch.validate(full=True)
                for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
                    yield from batch.slice(start, _ROWS_AT_ONCE).to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise MalformedCorpusError(path, None, f"no Arrow stream ({type(error).__name__})", "save it again") from None


def _file_names(folder: Path, state: dict[str, Any]) -> list[str]:
    listing = folder / "state.json"
    files = state.get("_data_files")
    if not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
        raise MalformedCorpusError(listing, None, "no list of data files", "save the dataset again")
    return [_plain_name(listing, file.get("filename")) for file in files]


def _plain_name(listing: Path, name: Any) -> str:
    if not isinstance(name, str) or not name or name in (".", "..") or Path(name).name != name:
        raise MalformedCorpusError(listing, None, f"{name!r} is no name of a file in this folder", "save it again")
    if not (listing.parent / name).exists():
        raise MalformedCorpusError(listing, None, f"{name!r} is listed but missing", "copy the whole folder")
    return name


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise MalformedCorpusError(path, None, "missing, or no JSON", "copy the whole folder") from None
    if not isinstance(value, dict):
        raise MalformedCorpusError(path, None, "no JSON object", "save the dataset again")
    return value


def _decoders(path: Path) -> dict[str, Decoder]:
    features = _object(path).get("features")
    features = features if isinstance(features, dict) else {}
    return {name: decoder for name, feature in features.items() if (decoder := _decoder(path, feature))}


def _decoder(path: Path, feature: Any) -> Decoder | None:
    if isinstance(feature, list) and len(feature) == 1:  # how older versions write a list
        feature = {"_type": "List", "feature": feature[0]}
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") == "ClassLabel":
        return _class_names(path, feature.get("names"))
    if feature.get("_type") in ("Sequence", "List", "LargeList"):
        one = _decoder(path, feature.get("feature"))
        return (lambda values: None if values is None else [one(value) for value in values]) if one else None
    return None


def _class_names(path: Path, names: Any) -> Decoder:
    if not isinstance(names, list):
        raise MalformedCorpusError(path, None, "class labels without names", "save the dataset again")

    def decode(value: int | None) -> str | None:
        if value is None or value == -1:  # how `datasets` marks a hidden label
            return None
        if not 0 <= value < len(names):
            raise MalformedCorpusError(path, None, f"class label {value} where there are {len(names)}", "save it again")
        return str(names[value])

    return decode


def _same(value: Any) -> Any:
    return value
