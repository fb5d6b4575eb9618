import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustnlp.data.perturbation import perturbed, perturbed_places
from trustnlp.errors import ArgumentError


def seeded(seed=0):
    return np.random.default_rng(seed)


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=12), st.floats(0.05, 1), st.integers(0, 1000))
def test_a_copy_has_the_words_of_its_text_but_for_a_few(words, share, seed):
    copy = perturbed(" ".join(words), share, seeded(seed)).split()
    changes = max(1, round(share * len(words)))
    assert max(1, len(words) - changes) <= len(copy) <= len(words)
    missing = list(words)
    for word in copy:
        missing.remove(word)  # raises where a word is not the text's


def test_copies_lose_words_and_swap_neighbours_equally_often():
    copies = [perturbed("a b c d", 0.25, seeded(seed)).split() for seed in range(2000)]
    assert np.mean([len(copy) == 3 for copy in copies]) == pytest.approx(0.5, abs=0.05)
    swapped = [copy for copy in copies if len(copy) == 4]
    places = [next(i for i in range(4) if copy[i] != "abcd"[i]) for copy in swapped]
    assert np.bincount(places, minlength=3) / len(places) == pytest.approx(np.full(3, 1 / 3), abs=0.06)
    lost = ["abcd".index(({*"abcd"} - {*copy}).pop()) for copy in copies if len(copy) == 3]
    assert (np.bincount(lost, minlength=4) > 0).all()


def test_a_text_of_one_word_stays():
    assert perturbed(" stop ", 1.0, seeded()) == "stop"


def test_places_name_the_words_of_the_copy():
    words = [f"w{i}" for i in range(9)]
    for seed in range(20):
        places = perturbed_places(9, 0.5, seeded(seed))
        assert len(set(places)) == len(places)
        assert perturbed(" ".join(words), 0.5, seeded(seed)) == " ".join(words[place] for place in places)


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_is_above_0_and_at_most_1(share):
    with pytest.raises(ArgumentError, match="share"):
        perturbed("a b", share, seeded())
