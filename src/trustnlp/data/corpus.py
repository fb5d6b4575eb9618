"""What every reader returns: examples in three splits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import astuple, dataclass, field
from functools import cached_property
from typing import NamedTuple

from trustnlp.errors import ArgumentError, CorpusError

_LABELLED = 6  # the fields of examples that have neither question nor target


class Answer(NamedTuple):
    """A piece of a text that answers a question: where it starts, in characters from 0, and its own text."""

    start: int
    text: str


@dataclass(frozen=True, slots=True)
class Example:
    """One text and what is known of it.

    Args:
        text: the text; its whitespace-separated pieces are its tokens.
        label: the intent or class, or None for a language-model corpus.
        tags: one BIO tag per token, or None where slots are not labelled.
        user: whose text it is, or None.
        group: the speaker's group for fairness figures, or None.
        time: when it was written (any monotone number, such as seconds since 1970), or None.
        question: what is asked of the text, for span question answering, or None.
        answers: the right answers, each a piece of the text; several where people answered differently. Models learn
            from the first.
        target: what the text is to be turned into, such as its translation, summary or reply, or None.
    """

    text: str
    label: str | None = None
    tags: tuple[str, ...] | None = None
    user: str | None = None
    group: str | None = None
    time: float | None = None
    question: str | None = None
    answers: tuple[Answer, ...] | None = None
    target: str | None = None

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ArgumentError("text", "not empty", self.text)
        if self.tags is not None and len(self.tags) != len(self.tokens):
            raise ArgumentError("tags", f"one per token ({len(self.tokens)})", len(self.tags))
        for name, value in (("question", self.question), ("target", self.target)):
            if value is not None and not value.strip():
                raise ArgumentError(name, "not empty, or None", value)
        if self.answers is not None:
            self._check_answers(self.answers)

    def _check_answers(self, answers: tuple[Answer, ...]) -> None:
        if self.question is None or not answers:
            raise ArgumentError("answers", "at least one, to a question", f"{len(answers)}, question {self.question!r}")
        for start, text in answers:
            if start < 0 or not text.strip() or not self.text.startswith(text, start):
                rule = "pieces of the text, each at its place"
                raise ArgumentError("answers", rule, f"one of {len(text)} characters at {start}")

    @property
    def tokens(self) -> list[str]:
        """The whitespace-separated pieces of the text."""
        return self.text.split()


@dataclass(frozen=True)
class Corpus:
    """Examples in three splits, with where they come from.

    Args:
        name: what the corpus is called in reports.
        train, valid, test: the splits; `valid` and `test` may be empty.
        licence: the terms the text may be used under, as far as they are known.
        source: where it was read from, as shown to people (no private path needed).
        notes: what a reader of the report should know (rows left out, splits made by us, and so on).
    """

    name: str
    train: tuple[Example, ...]
    valid: tuple[Example, ...] = ()
    test: tuple[Example, ...] = ()
    licence: str = "not stated"
    source: str = ""
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.train:
            raise CorpusError(f"corpus {self.name!r} has no training examples", "check the file and its columns")

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels of the training split, sorted."""
        return _distinct(example.label for example in self.train)

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """The slot tags of the training split, sorted, `O` first; empty where slots are not labelled."""
        found = _distinct(tag for example in self.train for tag in example.tags or ())
        return ("O", *(tag for tag in found if tag != "O")) if found else ()

    @cached_property
    def users(self) -> tuple[str, ...]:
        """The users of the training split, sorted; empty where texts have none."""
        return _distinct(example.user for example in self.train)

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """The groups of all splits, sorted; empty where texts have none."""
        return _distinct(example.group for example in (*self.train, *self.valid, *self.test))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over every field of every example: two corpora are equal exactly if their digests are."""
        total = hashlib.sha256()
        for split in (self.train, self.valid, self.test):
            for example in split:
                total.update(json.dumps(_given(example), ensure_ascii=False).encode())
            total.update(b"\n--\n")
        return total.hexdigest()


def _given(example: Example) -> tuple[object, ...]:
    """All fields; without those of questions and targets where there are none, so that digests outlive new tasks."""
    fields = astuple(example)
    return fields if any(field is not None for field in fields[_LABELLED:]) else fields[:_LABELLED]


def _distinct(values: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(sorted({value for value in values if value is not None}))
