import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustnlp.attacks.neighbours import WordStatistics, exchange_words
from trustnlp.errors import ArgumentError

BACKGROUND = ["call my mother now", "call my father", "play my song now", "play jazz"]


def slow(background, word, left, right):
    """The probability of every word by counting, one word after another."""
    texts = [text.split() for text in background]
    singles = Counter(w for text in texts for w in text)
    pairs = Counter(pair for text in texts for pair in itertools.pairwise(text))
    total = sum(singles.values())

    def after(first, second):
        continued = sum(n for (a, _), n in pairs.items() if a == first)
        return 0.9 * (pairs[first, second] / continued if continued else 0) + 0.1 * singles[second] / total

    weights = {}
    for w in sorted(singles):
        weight = after(left, w) if left in singles else singles[w] / total
        weight *= after(w, right) if right in singles else 1
        weights[w] = 0 if w == word else weight
    return {w: weight / sum(weights.values()) for w, weight in weights.items()}


WORDS = st.sampled_from(["call", "my", "mother", "now", "jazz", "unknown", None])


@given(st.sampled_from(["my", "jazz", "unknown"]), WORDS, WORDS)
@settings(deadline=None)
def test_words_are_drawn_by_what_stands_around_them(word, left, right):
    statistics = WordStatistics(BACKGROUND)
    found = dict(zip(statistics.words, statistics.others(word, left, right), strict=True))
    expected = slow(BACKGROUND, word, left, right)
    assert found == pytest.approx(expected)


def test_neighbours_come_text_by_text_and_differ_in_so_many_words():
    texts = ["call my mother now", "play  jazz", "hello"]
    for exchanged in (1, 2, 9):
        found = exchange_words(
            texts, WordStatistics(BACKGROUND), generator=np.random.default_rng(0), neighbours=20, exchanged=exchanged
        )
        assert len(found) == 60
        for i, neighbour in enumerate(found):
            words, changed = texts[i // 20].split(), neighbour.split()
            assert len(changed) == len(words)
            assert sum(a != b for a, b in zip(words, changed, strict=True)) == min(exchanged, len(words))


def test_the_same_generator_makes_the_same_neighbours():
    statistics = WordStatistics(BACKGROUND)
    once, again, other = (
        exchange_words(["call my mother"], statistics, generator=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert once == again != other


def test_drawn_words_are_as_frequent_as_their_probabilities_say():
    statistics = WordStatistics(BACKGROUND)
    found = exchange_words(["call my mother"], statistics, generator=np.random.default_rng(0), neighbours=6000)
    middle = Counter(text.split()[1] for text in found if text.split()[1] != "my")
    expected = slow(BACKGROUND, "my", "call", "mother")
    drawn = sum(middle.values())
    assert drawn == pytest.approx(2000, abs=150)  # each of three places alike
    for word, probability in expected.items():
        assert middle[word] / drawn == pytest.approx(probability, abs=4 * np.sqrt(probability / drawn) + 1e-9)


def test_what_cannot_be_exchanged_is_refused():
    with pytest.raises(ArgumentError, match="two distinct words"):
        WordStatistics(["la la la"])
    with pytest.raises(ArgumentError, match="1 without"):
        exchange_words(["a", " "], WordStatistics(BACKGROUND), generator=np.random.default_rng(0))
    for wrong in ({"neighbours": 0}, {"exchanged": 0}):
        with pytest.raises(ArgumentError):
            exchange_words(["a"], WordStatistics(BACKGROUND), generator=np.random.default_rng(0), **wrong)
