"""Rows of CSV and TSV files, one at a time.

CSV follows RFC 4180 (quotes around fields, doubled inside); the delimiter is the one of `,` `;` `|` and tab that the
first line has most of. In a file named .tsv, fields are parted by tabs and quotes are ordinary characters.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from trustnlp.data.lines import CAP, lines
from trustnlp.data.tabular import Row
from trustnlp.errors import MalformedCorpusError

_QUOTED = re.compile(r'"[^"]*"')


def rows(path: Path, *, header: bool = True) -> Iterator[tuple[int, Row]]:
    """Each row with the line it begins at, as a mapping from column name (or position, without header) to text.

    Raises:
        MalformedCorpusError: with path and line: quoting is broken, a row has another number of fields than the
            first one, or the file is JSON.
    """
    delimiter, quoted = _dialect(path)
    csv.field_size_limit(max(CAP, csv.field_size_limit()))  # process-wide, so it is only ever raised
    texts = (text for _, text in lines(path))
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(texts, delimiter=delimiter, quoting=quoting, strict=True)
    names: list[str] | list[int] | None = None
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            mend = 'put fields that hold the delimiter in "quotes" and double the quotes inside them'
            raise MalformedCorpusError(
                path, line, f"broken quoting in the row that begins here ({error})", mend
            ) from None
        if not fields:
            continue
        if names is None:
            names = _names(path, line, fields) if header else list(range(len(fields)))
            if header:
                continue
        if len(fields) != len(names):
            reason = f"{len(fields)} fields where the first row has {len(names)}"
            raise MalformedCorpusError(path, line, reason, f"parted by {delimiter!r}: check quotes and delimiters")
        yield line, dict(zip(names, fields, strict=True))


def _names(path: Path, line: int, fields: list[str]) -> list[str]:
    names = [name.strip() for name in fields]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise MalformedCorpusError(path, line, f"columns of the same name: {', '.join(map(repr, twice))}", "rename one")
    return names


def _dialect(path: Path) -> tuple[str, bool]:
    _, first = next(lines(path), (1, ""))
    if first.lstrip().startswith(("{", "[")):
        raise MalformedCorpusError(path, 1, "this is JSON, not a table", "give it the ending .jsonl or .json")
    if path.suffix.lower() == ".tsv":
        return "\t", False
    counts = {mark: _QUOTED.sub("", first).count(mark) for mark in ",;|\t"}
    return max(counts, key=lambda mark: counts[mark]), True
