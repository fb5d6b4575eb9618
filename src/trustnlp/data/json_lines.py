"""Rows of JSON files: one object per line (.jsonl), or one array of objects or of [text, label] pairs (.json)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trustnlp.data.lines import lines
from trustnlp.data.tabular import Row
from trustnlp.errors import MalformedCorpusError

LARGEST_ARRAY = 64 << 20
"""A JSON array can only be read as a whole, so larger files (in bytes) are refused."""


def rows(path: Path) -> Iterator[tuple[int, Row]]:
    """The objects of a JSON lines file with their lines; blank lines are left out.

    Raises:
        MalformedCorpusError: with path and line: a line is no JSON, or no object.
    """
    for number, line in lines(path):
        if not line.strip():
            continue
        value = _parsed(path, number, line)
        if not isinstance(value, dict):
            found = "an array" if isinstance(value, list) else "a single value"
            mend = "a file that is one whole array needs the ending .json" if found == "an array" else "write {…} there"
            raise MalformedCorpusError(path, number, f"{found} where one JSON object per line is needed", mend)
        yield number, value


def array_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """The elements of a JSON array with their 1-based places; pairs are mapped from 0 (text) and 1 (label).

    Raises:
        MalformedCorpusError: the file is no array, is larger than `LARGEST_ARRAY`, or an element is neither an
            object nor an array.
    """
    values = whole(path)
    if values is None:
        return
    if not isinstance(values, list):
        raise MalformedCorpusError(path, None, "no JSON array", "write [{…}, {…}], or one object per line (.jsonl)")
    for place, value in enumerate(values, start=1):
        if not isinstance(value, dict | list):
            raise MalformedCorpusError(path, None, f"element {place} is neither an object nor an array")
        yield place, value if isinstance(value, dict) else dict(enumerate(value))


def whole(path: Path) -> Any:
    """The value of a JSON file, or None for a blank one.

    Raises:
        MalformedCorpusError: the file is larger than `LARGEST_ARRAY`, or no JSON.
    """
    if path.stat().st_size > LARGEST_ARRAY:
        raise MalformedCorpusError(path, None, f"an array of more than {LARGEST_ARRAY:,} bytes", "write JSON lines")
    text = _text(path)
    return _parsed(path, None, text) if text.strip() else None


def _text(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedCorpusError(path, None, f"not UTF-8 at byte {error.start}", "convert it with iconv") from None


def _parsed(path: Path, number: int | None, text: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except json.JSONDecodeError as error:
        line = number or error.lineno
        mend = "write one JSON object per line, or give a table the ending .csv"
        raise MalformedCorpusError(path, line, f"not JSON at column {error.colno} ({error.msg})", mend) from None
    except (RecursionError, ValueError):
        raise MalformedCorpusError(path, number, "JSON nested too deep, or a number too long", "simplify it") from None
