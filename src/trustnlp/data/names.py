"""First names by sex, as the Social Security Administration counts them: `Mary,F,51477`, no header.

A fourth column (maxoccurbysex.txt) is the year in which the name was given most often; that of a yobYEAR.txt file
is in the file's name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from trustnlp.data import delimited
from trustnlp.data.records import choice, filled, need_columns, words
from trustnlp.data.tabular import Row
from trustnlp.errors import MalformedCorpusError

SEXES = {"F": "female", "M": "male"}


@dataclass(frozen=True)
class FirstName:
    """A name, "female" or "male", how many children got it, and in which year (None if untold)."""

    name: str
    sex: str
    count: int
    year: int | None


def read_names(path: str | Path) -> tuple[FirstName, ...]:
    """The names of a file, in its order.

    Raises:
        CorpusError: a row without name, without F or M, or whose count or year is no whole number > 0.
    """
    path = Path(path)
    year = re.search(r"(\d{4})$", path.stem)
    told = int(year[1]) if year else None
    return filled(path, (_name(path, line, row, told) for line, row in delimited.rows(path, header=False)), "names")


def _name(path: Path, line: int, row: Row, year: int | None) -> FirstName:
    need_columns(path, line, row, (0, 1, 2))
    sex = SEXES[choice(path, line, row, 1, SEXES)]
    when = _whole(path, line, row, 3) if 3 in row else year
    return FirstName(words(path, line, row, 0), sex, _whole(path, line, row, 2), when)


def _whole(path: Path, line: int, row: Row, column: int) -> int:
    text = words(path, line, row, column)
    if not text.isdecimal() or int(text) < 1:
        raise MalformedCorpusError(path, line, f"{text!r} is no whole number > 0", "write Mary,F,51477")
    return int(text)
