"""Plain text for language models: every line that is not blank is one example."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from trustnlp.data import bio
from trustnlp.data.corpus import Example
from trustnlp.data.lines import lines
from trustnlp.errors import MalformedCorpusError

_AUTHOR_TITLE_YEAR = re.compile(r"(?P<author>[^_]+)_.+_(?P<year>[12]\d{3})")
_LOOKS_TAGGED = 20


def read(path: Path, *, writers: bool = False) -> Iterator[Example]:
    """The lines of `path` without the space around them.

    Args:
        path: the file.
        writers: whether each file is one writer's: then `user` is the author and `time` the start of the year
            (seconds since 1970) of a name such as `Austen_Emma_1815.txt`, or `user` is the name of the file.

    Raises:
        MalformedCorpusError: the file holds CoNLL columns.
    """
    user, time = _writer(path) if writers else (None, None)
    tagged = 0
    for number, line in lines(path):
        text = line.strip()
        if not text:
            continue
        tagged = tagged + 1 if 0 <= tagged < _LOOKS_TAGGED and _is_tagged(text) else -1
        if tagged == _LOOKS_TAGGED:
            raise MalformedCorpusError(path, number, "this is no plain text but columns with tags", "name it .conll")
        yield Example(text, user=user, time=time)


def _writer(path: Path) -> tuple[str, float | None]:
    named = _AUTHOR_TITLE_YEAR.fullmatch(path.stem)
    if named is None:
        return path.stem, None
    return named["author"], datetime(int(named["year"]), 1, 1, tzinfo=UTC).timestamp()


def _is_tagged(text: str) -> bool:
    columns = text.split()
    return 2 <= len(columns) <= 5 and bio.is_tag(columns[-1])
