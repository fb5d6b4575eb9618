"""Passages of equal length: what language models are trained and attacked on."""

from __future__ import annotations

from dataclasses import replace

from trustnlp import checks
from trustnlp.data.corpus import Corpus, Example
from trustnlp.errors import CorpusError


def passages(corpus: Corpus, tokens: int) -> Corpus:
    """The first `tokens` tokens of every text that has as many, split by split; shorter texts are left out.

    One length for all, as members and non-members of two lengths would be told apart by it; one passage a text, as
    neighbouring ones resemble each other and an interval counts each as independent. White space becomes single blanks.

    Args:
        corpus: such as WikiText-2, whose texts are paragraphs and headings.
        tokens: >= 1, separated by white space.

    Raises:
        ArgumentError: tokens < 1.
        CorpusError: no training text is that long.
    """
    checks.at_least("tokens", tokens, 1)
    train, valid, test = (_cut(split, tokens) for split in (corpus.train, corpus.valid, corpus.test))
    if not train:
        raise CorpusError(f"corpus {corpus.name!r} has no training text of {tokens} tokens", "ask for shorter passages")
    note = f"the first {tokens} tokens of the {len(train):,} of {len(corpus.train):,} training texts that have as many"
    return replace(corpus, train=train, valid=valid, test=test, notes=(*corpus.notes, note))


def _cut(split: tuple[Example, ...], tokens: int) -> tuple[Example, ...]:
    rows = [(example, example.tokens) for example in split]
    return tuple(
        replace(
            example,
            text=" ".join(row[:tokens]),
            tags=example.tags and example.tags[:tokens],
            **dict.fromkeys(("question", "answers", "target")),  # they are of the whole text
        )
        for example, row in rows
        if len(row) >= tokens
    )
