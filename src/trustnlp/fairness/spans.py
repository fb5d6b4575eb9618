"""Entity counts of BIO-tagged texts, per text, so that F1 can be summed over any group, user or resample.

The spans are those of CoNLL-2000's conlleval in its lenient reading, which is seqeval's default: `B-x` starts a span,
and so does an `I-x` that cannot go on with a span of kind x.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trustnlp import checks
from trustnlp.data import bio
from trustnlp.errors import ArgumentError

Span = tuple[str, int, int]


def spans(tags: Sequence[str]) -> set[Span]:
    """The (kind, first, last) of every span of one text.

    Raises:
        ArgumentError: a tag that is neither O nor B-x nor I-x.
    """
    found: list[Span] = []
    previous = "O"
    for place, tag in enumerate(tags):
        if not bio.is_tag(tag):
            raise ArgumentError("tags", "BIO tags (B-slot, I-slot or O)", tag)
        if tag.startswith("I-") and previous[2:] == tag[2:]:
            found[-1] = (tag[2:], found[-1][1], place)
        elif tag != "O":
            found.append((tag[2:], place, place))
        previous = tag
    return set(found)


def span_counts(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """Per text the spans found, invented and missed: (U, 3); a span counts as found if kind and both ends are right.

    F1 of any set of texts is 2 f / (2 f + i + m) of their summed counts.

    Args:
        gold, predicted: U texts' BIO tags, text by text of one length.

    Raises:
        ArgumentError: numbers of texts or of tags that differ, or a tag that is not BIO.
    """
    checks.same_length(gold=gold, predicted=predicted)
    counts = np.zeros((len(gold), 3), dtype=np.int64)
    for row, (right, guess) in enumerate(zip(gold, predicted, strict=True)):
        if len(right) != len(guess):
            raise ArgumentError(f"predicted[{row}]", f"one tag per gold tag ({len(right)})", len(guess))
        wanted, given = spans(right), spans(guess)
        hits = len(wanted & given)
        counts[row] = hits, len(given) - hits, len(wanted) - hits
    return counts
