from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trustnlp.models.bio import decode, following

TAGS = ("O", "B-a", "B-b", "I-a", "I-b", "I-only")


def valid(sequence: tuple[str, ...]) -> bool:
    held = {"I-a": ("B-a", "I-a"), "I-b": ("B-b", "I-b")}
    return all(tag not in held or before in held[tag] for before, tag in pairwise(("start", *sequence)))


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), lengths=st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_equals_trying_every_valid_sequence(seed, lengths):
    scores = torch.randn(len(lengths), max(lengths), len(TAGS), generator=torch.Generator().manual_seed(seed))
    found = decode(scores, torch.tensor(lengths), TAGS)
    for row, path, length in zip(scores.tolist(), found.tolist(), lengths, strict=True):
        every = (way for way in product(range(len(TAGS)), repeat=length) if valid(tuple(TAGS[i] for i in way)))
        best = max(every, key=lambda way: sum(row[t][i] for t, i in enumerate(way)))
        assert path[:length] == list(best)


def test_a_valid_argmax_is_left_alone():
    scores = torch.zeros(1, 3, len(TAGS))
    scores[0, [0, 1, 2], [1, 3, 0]] = 1.0
    assert decode(scores, torch.tensor([3]), TAGS).tolist() == [[1, 3, 0]]


@pytest.mark.parametrize("tags", [("O",), ("NOUN", "VERB"), ("O", "I-a")])
def test_without_begin_tags_it_is_the_argmax(tags):
    scores = torch.randn(4, 5, len(tags), generator=torch.Generator().manual_seed(0))
    assert torch.equal(decode(scores, torch.full((4,), 5), tags), scores.argmax(-1))


def test_what_may_follow_is_what_decoding_allows():
    allowed = following(TAGS, torch.device("cpu"))
    assert allowed.shape == (len(TAGS) + 1, len(TAGS))
    for number, tag in enumerate(TAGS):
        assert allowed[-1, number] == valid((tag,))
        for earlier, before in enumerate(TAGS):
            held = tag in ("I-a", "I-b")
            assert allowed[earlier, number] == (before in ("B" + tag[1:], tag) if held else True)
