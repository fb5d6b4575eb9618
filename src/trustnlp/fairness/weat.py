"""WEAT and SEAT: effect size of the association of two sets of words with two sets of attributes, and its test.

    WEAT   a vector for each word: static word vectors, or the rows of an embedding matrix
    SEAT   a vector for each sentence: every word in the same plain sentences ("This is {}.")

SEAT's sentences of one word are no independent targets, as its published permutation test takes them to be: here a
word goes with all its sentences, in the test as in the interval. With as many sentences of each word the effect size
itself is the published one.

Sources: Caliskan, Bryson and Narayanan 2017, Science 356:183-186 (WEAT); May, Wang, Bordia, Bowman and Rudinger 2019,
NAACL, 622-628 (SEAT).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from trustnlp import checks
from trustnlp.data.seat import AssociationTest
from trustnlp.errors import ArgumentError, CorpusError
from trustnlp.fairness.association import Array, Measured, Scores, associations, judged
from trustnlp.fairness.metric import Metric, Notion, Scope
from trustnlp.fairness.scorer import Asked, Kind, Scorer, Tokens
from trustnlp.results import Direction, Finding

WEAT = Metric(
    id="weat",
    title="Association of word vectors, effect size",
    notion=Notion.ASSOCIATION,
    ideal=0.0,
    direction=Direction.IDEAL,
    source="WEAT (Caliskan et al. 2017)",
    unit="",
)
SEAT = Metric(
    id="seat",
    title="Association of sentence representations, effect size",
    notion=Notion.ASSOCIATION,
    ideal=0.0,
    direction=Direction.IDEAL,
    source="SEAT (May et al. 2019), words as units",
    unit="",
)
SENTENCES = ("This is {}.", "That is {}.", "There is {}.", "Here is {}.", "{} is here.", "{} is there.")
"""Sentences that say nothing but their word."""

MARGIN = 0.2
"""An effect size that is of no consequence: "small" in Cohen's terms."""


class Pooling(StrEnum):
    """Which positions stand for a sentence."""

    FIRST = "first"
    LAST = "last"
    MEAN = "mean"


def weat(
    vectors: Mapping[str, ArrayLike],
    tests: Sequence[AssociationTest],
    *,
    dataset: str,
    generator: np.random.Generator,
    protected_group: str = "gender",
    margin: float = MARGIN,
    level: float = 0.95,
    samples: int = 9_999,
) -> tuple[Finding, ...]:
    """WEAT effect sizes of word vectors; ideal 0, above 0 where X is nearer to A and Y to B.

    Args:
        vectors: a vector for each word, of one length (see `data.word_vectors`).
        tests: word sets; words without a vector are left out and listed.
        dataset: what the vectors are of, for the record.
        generator: drawn from.
        protected_group: whose treatment is compared, for the record.
        margin: the effect size that is of no consequence, > 0.
        level: coverage; of all intervals at once where there are several tests.
        samples: partitions drawn where they are too many to enumerate.

    Returns:
        A finding `weat-<name>` for each test, with interval (see `association.effect_interval`), p-values, and in
        `details["bootstrap"]` the BCa interval, which assumes no normality but covers only some 90% of strong effects
        of 8 words. Fewer than 5 words in a set of targets, or none in a set of attributes, are insufficient evidence.

    Raises:
        ArgumentError: no tests, two of one name, or margin or level out of range.
        GuaranteeError: a vector without direction, or words that all have the same association.
    """
    scope = Scope(protected_group, dataset, margin)
    return judged(WEAT, [_weat(vectors, test) for test in tests], scope, generator, level, samples)


def _weat(vectors: Mapping[str, ArrayLike], test: AssociationTest) -> Measured:
    sets = (test.targets_x, test.targets_y, test.attributes_a, test.attributes_b)
    known = [[word for word in words if word in vectors] for words in sets]
    missing = sorted({word for words in sets for word in words if word not in vectors})
    details = {"missing": missing, "words": [len(words) for words in known]}
    if not all(known):
        return Measured(test.name, None, details)
    x, y, a, b = (np.array([vectors[word] for word in words], dtype=float) for words in known)
    return Measured(test.name, Scores(associations(x, a, b)[:, None], associations(y, a, b)[:, None]), details)


def seat(
    scorer: Scorer,
    tests: Sequence[AssociationTest],
    *,
    generator: np.random.Generator,
    sentences: Sequence[str] = SENTENCES,
    words: Sequence[AssociationTest] | None = None,
    pooling: Pooling | None = None,
    protected_group: str = "gender",
    margin: float = MARGIN,
    level: float = 0.95,
    samples: int = 9_999,
) -> tuple[Finding, ...]:
    """SEAT effect sizes of a language model; ideal 0, above 0 where X is nearer to A and Y to B.

    Args:
        scorer: a masked or causal language model.
        tests: word sets; or sets of whole sentences, where `words` is given.
        generator: drawn from.
        sentences: each with one `{}`, which every word is put into.
        words: the word sets that the sentences of `tests` were made of, test by test: they tell which sentences are
            of one target.
        pooling: which positions stand for a sentence; by default, as in the source, the first of a masked model
            ([CLS]) and the last of a causal one.
        protected_group, margin, level, samples: as for `weat`.

    Returns:
        A finding `seat-<name>` for each test, as `weat`'s; n counts words.

    Raises:
        ArgumentError: as for `weat`, a sentence without `{}`, or not one of `words` for each test.
        CorpusError: a sentence that holds none of its words.
    """
    checks.not_empty("sentences", sentences)
    wrong = next((sentence for sentence in sentences if sentence.count("{}") != 1), None)
    if wrong is not None:
        raise ArgumentError("sentences", "with one {} for the word", wrong)
    if words is not None:
        checks.same_length(words=words, tests=tests)
    chosen = pooling or (Pooling.FIRST if scorer.kind is Kind.MASKED else Pooling.LAST)
    measured = [
        _seat(scorer, test, chosen, sentences if words is None else words[number]) for number, test in enumerate(tests)
    ]
    scope = Scope(protected_group, f"{len(sentences)} sentences" if words is None else "given sentences", margin)
    return judged(SEAT, measured, scope, generator, level, samples)


def _seat(
    scorer: Scorer, test: AssociationTest, pooling: Pooling, made_of: Sequence[str] | AssociationTest
) -> Measured:
    """Scores by word: means over its sentences, divided by the spread of all sentences."""
    sets = _by_word(test, made_of)
    x, y, a, b = sets
    details: dict[str, Any] = {"pooling": pooling.value, "model": scorer.name, "words": [len(each) for each in sets]}
    if not all(sets):
        return Measured(test.name, None, details)
    poles = [_represented(scorer, [s for group in each.values() for s in group], pooling) for each in (a, b)]
    scored = [
        [associations(_represented(scorer, group, pooling), *poles) for group in each.values()] for each in (x, y)
    ]
    every = np.concatenate([values for side in scored for values in side])
    means = [np.array([[values.mean()] for values in side]) for side in scored]
    details["sentences"] = len(every)
    return Measured(test.name, Scores(means[0], means[1], every.var(ddof=1, keepdims=True)), details)


def _by_word(test: AssociationTest, made_of: Sequence[str] | AssociationTest) -> list[dict[str, list[str]]]:
    """The sentences of each word of the four sets."""
    given = (test.targets_x, test.targets_y, test.attributes_a, test.attributes_b)
    if not isinstance(made_of, AssociationTest):
        return [{word: [_sentence(pattern, word) for pattern in made_of] for word in each} for each in given]
    words = (made_of.targets_x, made_of.targets_y, made_of.attributes_a, made_of.attributes_b)
    found: list[dict[str, list[str]]] = []
    for sentences, own in zip(given, words, strict=True):
        groups: dict[str, list[str]] = {}
        for sentence in sentences:
            groups.setdefault(_word_of(sentence, own, test.name), []).append(sentence)
        found.append(groups)
    return found


def _sentence(pattern: str, word: str) -> str:
    filled = pattern.format(word)
    return filled[:1].upper() + filled[1:]


def _word_of(sentence: str, words: Sequence[str], name: str) -> str:
    """The longest of the words that the sentence holds, inflected or not."""
    held = [word for word in words if word.lower() in sentence.lower()]
    if not held:
        raise CorpusError(f"a sentence of {name!r} holds none of its words", "give the word sets it was made of")
    return max(held, key=len)


def _represented(scorer: Scorer, sentences: Sequence[str], pooling: Pooling) -> Array:
    return scorer.representations([_pooled(scorer.tokens(sentence), pooling) for sentence in sentences])


def _pooled(tokens: Tokens, pooling: Pooling) -> Asked:
    inside = [at for at, (start, end) in enumerate(tokens.spans) if end > start]
    positions = {Pooling.FIRST: [0], Pooling.LAST: inside[-1:], Pooling.MEAN: inside}[pooling]
    return Asked(tokens.ids, tuple(positions))
