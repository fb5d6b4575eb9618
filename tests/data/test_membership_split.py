import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustnlp.data.corpus import Corpus, Example
from trustnlp.data.membership_split import hold_out, normalise
from trustnlp.errors import ArgumentError, CorpusError


def corpus(single: int, double: int) -> Corpus:
    texts = [f"text {i}" for i in range(single)]
    texts += [f"Twin  {i}" for i in range(double)] + [f"twin {i} " for i in range(double)]
    return Corpus("made", train=tuple(Example(text) for text in texts))


@given(st.integers(1, 20), st.integers(0, 20), st.integers(0, 10), st.integers(0, 99))
def test_members_are_trained_on_and_nonmembers_are_not(size: int, more: int, twins: int, seed: int) -> None:
    made = corpus(2 * size + more + 1, twins)
    split = hold_out(made, size, np.random.default_rng(seed))
    trained = {normalise(e.text) for e in split.corpus.train}
    background = {normalise(e.text) for e in split.background.train}
    members = {normalise(e.text) for e in split.members}
    nonmembers = {normalise(e.text) for e in split.nonmembers}
    assert len(members) == len(nonmembers) == size
    assert members <= trained
    assert not nonmembers & trained
    assert not (members | nonmembers) & background
    assert len(split.corpus.train) + size == len(made.train) == len(split.background.train) + 2 * size


def test_every_single_text_is_as_likely_on_either_side() -> None:
    made = corpus(single=9, double=0)
    sides = np.zeros(9)
    for seed in range(2000):
        for member in hold_out(made, 3, np.random.default_rng(seed)).members:
            sides[int(member.text.split()[1])] += 1
    # Binomial(2000, 1/3) has a standard deviation of 21; 4.5 of them over 9 texts is a one in 10^4 event.
    assert np.abs(sides - 2000 / 3).max() < 95


def test_texts_with_twins_are_on_neither_side() -> None:
    split = hold_out(corpus(single=4, double=10), 2, np.random.default_rng(0))
    assert all(example.text.startswith("text") for example in (*split.members, *split.nonmembers))


def test_too_few_single_texts_are_refused() -> None:
    with pytest.raises(CorpusError, match="3 of 9 training texts occur once, too few for 2 members"):
        hold_out(corpus(single=3, double=3), 2, np.random.default_rng(0))
    with pytest.raises(ArgumentError, match="'size'"):
        hold_out(corpus(3, 0), 0, np.random.default_rng(0))
