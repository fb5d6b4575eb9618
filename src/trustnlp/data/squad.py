"""SQuAD 1.1 (Rajpurkar et al. 2016, arXiv:1606.05250): questions on paragraphs, answered by pieces of them.

    {"data": [{"title": …, "paragraphs": [{"context": …, "qas": [{"question": …, "answers": [
        {"answer_start": 29, "text": "October 1973"}, …]}, …]}, …]}, …]}

`text` is the paragraph and `user` the article's title: all that one article says is a natural device.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trustnlp.data import json_lines
from trustnlp.data.corpus import Answer, Example
from trustnlp.errors import ArgumentError, MalformedCorpusError

_START = 256  # bytes; the key `data` or `version` stands there


def is_squad(path: Path) -> bool:
    """Whether a JSON file begins as SQuAD's do: an object, whose first key is `data` or `version`."""
    with path.open("rb") as source:
        start = source.read(_START).removeprefix(b"\xef\xbb\xbf").lstrip()
    return start.startswith(b"{") and start[1:].lstrip().startswith((b'"data"', b'"version"'))


def read(path: Path) -> Iterator[Example]:
    """One example per question, in the file's order.

    Raises:
        MalformedCorpusError: another structure, a question without answer (as SQuAD 2.0 has), or an answer that is not
            at its place in its paragraph; the message names article and question by their places from 1.
    """
    data = json_lines.whole(path)
    for number, article in enumerate(_list(path, data, "data", "the file"), start=1):
        title = str(article.get("title") or number) if isinstance(article, dict) else ""
        for paragraph in _list(path, article, "paragraphs", f"article {number}"):
            for place, asked in enumerate(_list(path, paragraph, "qas", f"article {number}"), start=1):
                yield _example(path, paragraph.get("context"), asked, title, f"article {number}, question {place}")


def _list(path: Path, value: Any, key: str, where: str) -> list[Any]:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, list):
        raise MalformedCorpusError(path, None, f"{where} has no list {key!r}", "give a file in the form of SQuAD 1.1")
    return found


def _example(path: Path, context: Any, asked: Any, title: str, where: str) -> Example:
    answers = _list(path, asked, "answers", where)
    if not answers:
        raise MalformedCorpusError(path, None, f"{where} has no answer", "leave out what cannot be answered")
    try:
        found = tuple(Answer(int(answer["answer_start"]), str(answer["text"])) for answer in answers)
        return Example(context, user=title, question=asked["question"].strip(), answers=found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = str(error) if isinstance(error, ArgumentError) else "not in the form of SQuAD 1.1"
        raise MalformedCorpusError(path, None, f"{where}: {reason}", "mend or remove it") from None
