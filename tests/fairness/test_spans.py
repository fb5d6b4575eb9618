import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import f1_score
from seqeval.metrics.sequence_labeling import get_entities

from trustnlp.errors import ArgumentError
from trustnlp.fairness.spans import span_counts, spans

TAGS = st.sampled_from(["O", "B-a", "I-a", "B-b", "I-b", "B-a-b", "I-a-b"])
PAIRS = st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=9)


@given(st.lists(TAGS, max_size=12))
def test_spans_are_seqevals(tags):
    assert spans(tags) == set(get_entities(tags))


@given(st.lists(PAIRS, min_size=1, max_size=5))
def test_summed_counts_give_seqevals_f1(texts):
    gold = [[right for right, _ in text] for text in texts]
    predicted = [[guess for _, guess in text] for text in texts]
    hits, invented, missed = span_counts(gold, predicted).sum(axis=0)
    whole = 2 * hits + invented + missed
    if whole:
        assert 2 * hits / whole == pytest.approx(f1_score(gold, predicted))


def test_counts_by_hand():
    gold = [["B-city", "I-city", "O", "B-time"], ["O", "O"], ["B-x", "B-x"]]
    predicted = [["B-city", "I-city", "O", "B-date"], ["I-x", "O"], ["B-x", "I-x"]]
    assert span_counts(gold, predicted).tolist() == [[1, 1, 1], [0, 1, 0], [0, 1, 2]]
    assert span_counts([], []).shape == (0, 3)


def test_unaligned_or_foreign_tags_are_refused():
    with pytest.raises(ArgumentError, match="one tag per gold tag"):
        span_counts([["O", "O"]], [["O"]])
    with pytest.raises(ArgumentError, match="one length"):
        span_counts([["O"]], [])
    with pytest.raises(ArgumentError, match="BIO"):
        span_counts([["O"]], [["E-city"]])
    assert span_counts([["O"]], [["O"]]).dtype == np.int64
