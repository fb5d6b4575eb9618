"""Members and non-members that only training can tell apart.

A membership attack is meaningful only if its members and non-members come from one distribution. Published test
sets often do not (later dates, other annotators), so the non-members are held out of the training split itself, and
both sides are drawn at random from the texts that occur there exactly once: a non-member whose twin is trained on
would be no non-member, and members with twins would be told by their commonness.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from trustnlp import checks
from trustnlp.data.corpus import Corpus, Example
from trustnlp.errors import CorpusError


@dataclass(frozen=True)
class MembershipSplit:
    """A corpus divided for an attack.

    Args:
        corpus: what models are trained on: the training split without the non-members.
        members: texts of its training split.
        nonmembers: as many texts, in no training split.
        background: the training split without both, for the attacker's reference model.
    """

    corpus: Corpus
    members: tuple[Example, ...]
    nonmembers: tuple[Example, ...]
    background: Corpus


def normalise(text: str) -> str:
    """The form in which two texts count as the same: case and white space aside."""
    return " ".join(text.lower().split())


def hold_out(corpus: Corpus, size: int, generator: np.random.Generator) -> MembershipSplit:
    """Holds `size` non-members out of the training split and names as many members.

    Raises:
        ArgumentError: `size` < 1.
        CorpusError: the training split has too few texts that occur once.
    """
    checks.at_least("size", size, 1)
    counts = Counter(normalise(example.text) for example in corpus.train)
    single = [i for i, example in enumerate(corpus.train) if counts[normalise(example.text)] == 1]
    if len(single) < 2 * size or len(corpus.train) <= 2 * size:
        reason = f"{len(single)} of {len(corpus.train)} training texts occur once, too few for {size} members"
        raise CorpusError(f"corpus {corpus.name!r}: {reason} and {size} non-members", "ask for fewer")
    drawn = generator.permutation(single)[: 2 * size]
    outside, inside = sorted(drawn[:size]), sorted(drawn[size:])

    def without(left_out: set[int]) -> Corpus:
        return replace(corpus, train=tuple(e for i, e in enumerate(corpus.train) if i not in left_out))

    return MembershipSplit(
        corpus=without(set(outside)),
        members=tuple(corpus.train[i] for i in inside),
        nonmembers=tuple(corpus.train[i] for i in outside),
        background=without({*outside, *inside}),
    )
