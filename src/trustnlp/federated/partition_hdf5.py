"""HDF5 files from elsewhere, read as data and nothing else: the only module that knows h5py.

Every node is looked up link by link, and only what lies in the file itself is read: no external or soft link, no
virtual or external storage, no reference, no object of another kind than text and numbers; and nothing whose size is
above its bound. What no check here can help: the HDF5 library itself can loop for ever on a file that was damaged on
purpose, so a file of somebody who means harm belongs into a process that can be stopped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from trustnlp.errors import CorpusNotFoundError, MalformedCorpusError, MissingExtraError
from trustnlp.federated.partition import Indices

MOST_EXAMPLES = 5_000_000
LONGEST_TEXT = 10_000_000
"""The most bytes of a text, and words of a tagged one."""
LONGEST_ATTRIBUTES = 500_000_000


@contextmanager
def reading(path: str | Path) -> Iterator[Hdf5]:
    """The file at `path`, open to be read.

    Raises:
        MissingExtraError: the extra `fednlp` is not installed.
        CorpusNotFoundError: there is no such file.
        MalformedCorpusError: it is not HDF5, or damaged.
    """
    h5py = _h5py()
    if not Path(path).is_file():
        raise CorpusNotFoundError(f"there is no file {str(path)!r}", "give a file that FedNLP or this package wrote")
    try:
        with h5py.File(path, "r") as file:
            yield Hdf5(Path(path), file)
    except (OSError, RuntimeError) as error:
        raise MalformedCorpusError(path, None, f"not an HDF5 file, or damaged ({error})") from error


@contextmanager
def writing(path: str | Path, *, add: bool = False) -> Iterator[Any]:
    """The file at `path` as h5py's, new or to be added to.

    Raises:
        MissingExtraError: the extra `fednlp` is not installed.
    """
    with _h5py().File(path, "a" if add else "w") as file:
        yield file


class Hdf5:
    """An open file; every answer is checked, and what is not as asked for raises MalformedCorpusError.

    Args:
        path: for messages.
        file: h5py's.
    """

    def __init__(self, path: Path, file: Any) -> None:
        self.path = path
        self._file = file

    def broken(self, reason: str, mend: str = "") -> MalformedCorpusError:
        """The error that says `reason` of this file."""
        return MalformedCorpusError(self.path, None, reason, mend)

    def names(self, group: str) -> tuple[str, ...]:
        """The names in a group, "" being the root; none where `group` is no group."""
        node = self._node(group)
        names = tuple(node) if isinstance(node, _h5py().Group) else ()
        if not all(isinstance(name, str) for name in names):
            raise self.broken(f"a name in {group!r} is not UTF-8")
        return names

    def numbers(self, group: str) -> list[int]:
        """The names in a group, which are all whole numbers, ascending."""
        names = self.names(group)
        if len(names) > MOST_EXAMPLES or not all(name.isdecimal() and str(int(name)) == name for name in names):
            raise self.broken(f"the names in {group!r} are not at most {MOST_EXAMPLES:,} whole numbers")
        return sorted(map(int, names))

    def text(self, name: str, longest: int = LONGEST_TEXT) -> str:
        """One text."""
        found = self._dataset(name, text=True, dimensions=0)[()]
        return self._decoded(name, found, longest)

    def words(self, name: str) -> list[str]:
        """A list of words."""
        found = self._dataset(name, text=True, dimensions=1)[()]
        return [self._decoded(name, word, LONGEST_TEXT) for word in found]

    def is_list(self, name: str) -> bool:
        """Whether `name` is a list and not one value."""
        return len(self._dataset(name, text=None, dimensions=None).shape) == 1

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object."""
        try:
            found = json.loads(self.text(name, LONGEST_ATTRIBUTES))
        except (ValueError, RecursionError) as error:
            raise self.broken(f"{name!r} is not JSON ({error})") from None
        if not isinstance(found, dict):
            raise self.broken(f"{name!r} is not a JSON object")
        return found

    def integers(self, name: str) -> Indices:
        """A list of whole numbers; h5py writes an empty one as an empty list of floating-point numbers."""
        found = self._dataset(name, text=False, dimensions=1)
        if found.size and found.dtype.kind not in "iu":
            raise self.broken(f"{name!r} does not hold whole numbers")
        return np.asarray(found[()], dtype=np.int64)

    def number(self, name: str) -> float:
        """One finite number."""
        found = float(self._dataset(name, text=False, dimensions=0)[()])
        if not math.isfinite(found):
            raise self.broken(f"{name!r} is not a finite number")
        return found

    def _dataset(self, name: str, *, text: bool | None, dimensions: int | None) -> Any:
        h5py, node = _h5py(), self._node(name)
        if not isinstance(node, h5py.Dataset) or node.is_virtual or node.external:
            raise self.broken(f"there is no {name!r}, or it is stored elsewhere")
        kind = h5py.check_string_dtype(node.dtype) is not None
        plain = kind or node.dtype.kind in "iuf"
        if node.shape is None or not plain or text not in {None, kind} or dimensions not in {None, len(node.shape)}:
            raise self.broken(f"{name!r} is not the {'text' if text else 'number'} or list of them that the format has")
        if node.size > MOST_EXAMPLES or node.size * node.dtype.itemsize > LONGEST_ATTRIBUTES:
            raise self.broken(f"{name!r} is too large: {node.size:,} values")
        return node

    def _node(self, name: str) -> Any:
        """What lies at a path of hard links; None where nothing does."""
        h5py, node = _h5py(), self._file
        for part in filter(None, name.split("/")):
            link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
            if link is None:
                return None
            if type(link) is not h5py.HardLink:
                raise self.broken(f"{name!r} is a link to elsewhere", "use a file that holds its data itself")
            try:
                node = node[part]
            except KeyError as error:
                raise self.broken(f"{name!r} is damaged ({error})") from None
        return node

    def _decoded(self, name: str, value: Any, longest: int) -> str:
        raw = value if isinstance(value, bytes) else str(value).encode()
        if len(raw) > longest:
            raise self.broken(f"{name!r} is too long: {len(raw):,} bytes")
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self.broken(f"{name!r} is not UTF-8") from None


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise MissingExtraError("h5py", "fednlp") from None
    return h5py
