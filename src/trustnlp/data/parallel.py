"""Parallel text: two files in two languages, whose lines are translations of each other."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from trustnlp.data.corpus import Example
from trustnlp.data.lines import lines
from trustnlp.data.tabular import Options, Placed
from trustnlp.errors import MalformedCorpusError


def partner(path: Path, target: str) -> Path:
    """The file of the translations: the same name, with the other language as its ending."""
    return path.with_suffix(f".{target}")


def read(path: Path, options: Options, *, target: str) -> Iterator[Placed]:
    """The lines of `path`, each with the same line of its partner as its target.

    Args:
        path: the texts to translate, such as `train.en`.
        options: what to do about a line that is blank in either file.
        target: the ending of the other file, such as `de`.

    Raises:
        MalformedCorpusError: one file has more lines than the other, or a line is blank where that is refused.
    """
    other = partner(path, target)
    for number, (source, translation) in enumerate(zip_longest(lines(path), lines(other)), start=1):
        if source is None or translation is None:
            longer, shorter = (other, path) if source is None else (path, other)
            reason = f"this line has no partner: {shorter.name} ends before"
            raise MalformedCorpusError(longer, number, reason, "give two files whose lines belong together")
        text, wanted = source[1].strip(), translation[1].strip()
        if text and wanted:
            yield None, Example(text, target=wanted)
        else:
            options.on_empty(path if not text else other, number)
