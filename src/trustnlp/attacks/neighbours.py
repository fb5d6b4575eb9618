"""Neighbours of a text: the text with a word or a few exchanged for others that fit their place.

Published attacks let a masked language model choose the words. Here they are chosen from the counts of words and word
pairs in a background corpus, so nothing needs to be downloaded and the neighbours owe nothing to a foreign model.

A word w between l and r is drawn with probability proportional to P(w | l) P(r | w): what a Markov chain of words would
put there. Both factors are interpolated with single-word frequencies, so every word of the background may come up. The
word that stood there is left out, which is the paper's swap probability p(w) / (1 - p(original)).

Source: Mattern et al. 2023, "Membership Inference Attacks against Language Models via Neighbourhood Comparison",
arXiv:2305.18462; the interpolation is Jelinek and Mercer's (1980).

Shape legend: N texts, V distinct words of the background, M neighbours of each text.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from trustnlp import checks
from trustnlp.errors import ArgumentError

_PAIRS = 0.9  # the weight of word pairs beside single words


class WordStatistics:
    """How often words and pairs of neighbouring words occur in a background corpus.

    Args:
        background: texts of the attacked kind, of neither members nor non-members; words are split at white space.

    Raises:
        ArgumentError: fewer than two distinct words.
    """

    def __init__(self, background: Sequence[str]) -> None:
        rows = [text.split() for text in background]
        self.words = sorted({word for row in rows for word in row})
        if len(self.words) < 2:
            raise ArgumentError("background", "texts of at least two distinct words", len(self.words))
        self._ids = {word: i for i, word in enumerate(self.words)}
        ids = [[self._ids[word] for word in row] for row in rows]
        size = len(self.words)
        self._frequencies = np.bincount([i for row in ids for i in row], minlength=size).astype(float)
        self._frequencies /= self._frequencies.sum()
        pairs = np.array([pair for row in ids for pair in itertools.pairwise(row)]).reshape(-1, 2)
        counts = sparse.coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(size, size)).tocsr()
        totals = np.maximum(counts.sum(axis=1), 1)
        self._following = (sparse.diags_array(1 / totals) @ counts).tocsr()  # P(column | row)
        self._preceding = self._following.tocsc()

    def fit(self, left: str | None, right: str | None) -> NDArray[np.float64]:
        """(V,) P(w | left) P(right | w) for every word w, up to a factor; None, or a word unknown, says nothing."""
        weights = self._frequencies
        if left in self._ids:
            weights = _PAIRS * self._following[[self._ids[left]]].toarray()[0] + (1 - _PAIRS) * self._frequencies
        if right in self._ids:
            i = self._ids[right]
            weights = weights * (_PAIRS * self._preceding[:, [i]].toarray()[:, 0] + (1 - _PAIRS) * self._frequencies[i])
        return weights

    def others(self, word: str, left: str | None, right: str | None) -> NDArray[np.float64]:
        """(V,) the probability of every word in place of `word`, which itself has 0."""
        weights = self.fit(left, right).copy()
        if word in self._ids:
            weights[self._ids[word]] = 0
        probabilities: NDArray[np.float64] = weights / weights.sum()
        return probabilities


def exchange_words(
    texts: Sequence[str],
    statistics: WordStatistics,
    *,
    generator: np.random.Generator,
    neighbours: int = 25,
    exchanged: int = 1,
) -> list[str]:
    """M neighbours of each text, those of the first text first, (N M); each differs in `exchanged` words.

    Places are drawn uniformly without replacement, words by `WordStatistics.others`; white space becomes single blanks.
    Some neighbours of one text may be equal. A text of fewer words has them all exchanged.

    Args:
        texts: N of them, none empty.
        statistics: of a background corpus.
        generator: draws places and words.
        neighbours: M, >= 1.
        exchanged: words, >= 1; the paper found one to work best.

    Raises:
        ArgumentError: an argument breaks its rule, or a text has no word.
    """
    checks.at_least("neighbours", neighbours, 1)
    checks.at_least("exchanged", exchanged, 1)
    rows = [text.split() for text in texts]
    empty = sum(not row for row in rows)
    if empty:
        raise ArgumentError("texts", "of at least one word each", f"{empty} without")
    return [" ".join(_exchange(row, statistics, exchanged, generator)) for row in rows for _ in range(neighbours)]


def _exchange(
    words: list[str], statistics: WordStatistics, exchanged: int, generator: np.random.Generator
) -> list[str]:
    words = list(words)
    for place in generator.permutation(len(words))[:exchanged].tolist():
        left = words[place - 1] if place else None
        right = words[place + 1] if place + 1 < len(words) else None
        probabilities = statistics.others(words[place], left, right)
        words[place] = statistics.words[int(generator.choice(len(probabilities), p=probabilities))]
    return words
