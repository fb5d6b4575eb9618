"""Utterances with slots written in them, `wake me at [time : six]`, in one `;` table per intent.

The layout of HWU64 (Liu et al. 2019, "Benchmarking natural language understanding services for building
conversational agents", arXiv:1903.05566): the name of each file is the intent, the column `answer_annotation` the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from trustnlp.data import delimited
from trustnlp.data.corpus import Example
from trustnlp.data.tabular import refuse_empty
from trustnlp.errors import MalformedCorpusError

COLUMN = "answer_annotation"

_SLOT = re.compile(r"\[\s*([^\[\]:]*?)\s*:\s*([^\[\]]*?)\s*\]")


def read(path: Path) -> Iterator[Example]:
    """The utterances of one table.

    Raises:
        MalformedCorpusError: with path and line: the table lacks the column, or brackets do not close.
    """
    for line, row in delimited.rows(path):
        if COLUMN not in row:
            raise MalformedCorpusError(path, 1, f"no column {COLUMN!r}", f"the columns are {', '.join(row)}")
        if not row[COLUMN].strip():
            refuse_empty(path, line)
        text, tags = parsed(path, line, row[COLUMN])
        yield Example(text, label=path.stem, tags=tags)


def parsed(path: Path, line: int, annotated: str) -> tuple[str, tuple[str, ...]]:
    """The text without its annotation and the BIO tag of each token.

    A token that touches a slot belongs to it (`[date : today]'s` is one token, of the slot `date`).

    Raises:
        MalformedCorpusError: a slot has no name or no value, or brackets do not close.
    """
    text, spans, end = "", [], 0
    for found in _SLOT.finditer(annotated):
        slot, value = found.groups()
        if not slot or not value:
            raise MalformedCorpusError(path, line, "a slot without name or value", "write [slot : value]")
        text += annotated[end : found.start()]
        spans.append((len(text), len(text) + len(value), slot.replace(" ", "_")))
        text += value
        end = found.end()
    text += annotated[end:]
    if "[" in text or "]" in text:
        raise MalformedCorpusError(path, line, "a bracket that is no [slot : value]", "close or remove it")
    return text.strip(), tuple(_tags(text, spans))


def _tags(text: str, spans: list[tuple[int, int, str]]) -> Iterator[str]:
    before: tuple[int, int, str] | None = None
    for token in re.finditer(r"\S+", text):
        touched = next((span for span in spans if span[0] < token.end() and token.start() < span[1]), None)
        yield "O" if touched is None else f"{'I' if touched is before else 'B'}-{touched[2]}"
        before = touched
