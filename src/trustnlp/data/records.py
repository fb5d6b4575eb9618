"""What readers of fairness datasets share: values of a row by name, with the place of whatever is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trustnlp.errors import MalformedCorpusError


def words(path: Path, line: int | None, row: Any, name: str | int, where: str = "the row") -> str:
    """The text of a named field, without space around it.

    Args:
        path, line: where the row stands.
        row: a mapping.
        name: of the field.
        where: what to call the row.

    Raises:
        MalformedCorpusError: the row is no mapping, lacks the field, or has no text there.
    """
    value = row.get(name) if isinstance(row, Mapping) else None
    if not isinstance(value, str) or not value.strip():
        raise MalformedCorpusError(path, line, f"{where} has no text {name!r}", "give the original file of the dataset")
    return value.strip()


def choice(
    path: Path, line: int | None, row: Any, name: str | int, known: Iterable[str], where: str = "the row"
) -> str:
    """The text of a named field that has one of the `known` values.

    Raises:
        MalformedCorpusError: as `words`, or another value.
    """
    value, options = words(path, line, row, name, where), tuple(known)
    if value not in options:
        named = ", ".join(map(repr, options))
        raise MalformedCorpusError(path, line, f"{name!r} is {value!r}", f"it must be one of {named}")
    return value


def listed(path: Path, line: int | None, row: Any, name: str, where: str = "the file") -> list[Any]:
    """The list of a named field.

    Raises:
        MalformedCorpusError: the row is no mapping, or has no list there.
    """
    value = row.get(name) if isinstance(row, Mapping) else None
    if not isinstance(value, list):
        raise MalformedCorpusError(path, line, f"{where} has no list {name!r}", "give the original file of the dataset")
    return value


def need_columns(path: Path, line: int, row: Mapping[Any, Any], names: Iterable[str | int]) -> None:
    """Nothing, if the row has all named columns.

    Raises:
        MalformedCorpusError: it lacks one; the message lists those that it has.
    """
    missing = [name for name in names if name not in row]
    if missing:
        have = ", ".join(map(repr, row))
        raise MalformedCorpusError(path, line, f"no column {missing[0]!r}", f"the columns are {have}")


def unique(path: Path, ids: Iterable[str]) -> None:
    """Nothing, if no identifier occurs twice.

    Raises:
        MalformedCorpusError: one does.
    """
    seen: set[str] = set()
    for one in ids:
        if one in seen:
            raise MalformedCorpusError(
                path, None, f"two items have the id {one!r}", "remove one, or give it its own id"
            )
        seen.add(one)


def filled(path: Path, items: Iterable[Any], what: str) -> tuple[Any, ...]:
    """The items, of which there must be some.

    Raises:
        MalformedCorpusError: there are none.
    """
    found = tuple(items)
    if not found:
        raise MalformedCorpusError(path, None, f"no {what} in this file", "give the original file of the dataset")
    return found
