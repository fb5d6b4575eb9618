"""Scores of free text against cases computed by hand and values published with the metrics."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustnlp.errors import ArgumentError
from trustnlp.models import text_scores
from trustnlp.models.text_scores import bleu, chrf, exact_match, normalised, rouge_l, token_f1


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("The  Cat!", "cat"),
        ("an apple a day", "apple day"),
        ("U.S.", "us"),
        ("Theatre of a Nation", "theatre of nation"),
        ("'the'", ""),  # punctuation goes first, then what it left
        ("a-b", "ab"),
        ("$1,000", "1000"),
        ("l’été", "l’été"),  # only ASCII punctuation goes
    ],
)
def test_normalisation_is_the_official_one(text, plain):
    assert normalised(text) == plain


def test_exact_match_by_hand():
    assert exact_match(["The cat", "dogs"], [["a cat", "x"], ["dog"]]) == 0.5
    assert exact_match(["!"], [["the"]]) == 1.0  # both are nothing once normalised, as in the official script


def test_token_f1_by_hand():
    # "big cat sat" and "cat sat down": 2 common of 3 and 3. "x x y" and "x": 1 common, precision 1/3, recall 1.
    assert token_f1(["the big cat sat"], [["cat sat down", "nothing"]]) == pytest.approx(2 / 3)
    assert token_f1(["x x y"], [["x"]]) == pytest.approx(0.5)
    assert token_f1(["x x y", "the"], [["z", "x"], ["a"]]) == pytest.approx(0.25)  # no tokens give 0, officially


def test_rouge_l_as_published():
    # Lin 2004, section 3.1: S2 and S3 against S1, with beta 1.
    reference = "police killed the gunman"
    assert rouge_l(["police kill the gunman"], [reference]) == 0.75
    assert rouge_l(["the gunman kill police"], [reference]) == 0.5
    assert rouge_l(["the gunman police killed"], [reference]) == 0.5


def test_rouge_l_by_hand():
    assert rouge_l(["Ein Hund, der läuft."], ["ein hund läuft schnell"]) == pytest.approx(2 * 3 / (4 + 4))
    assert rouge_l(["", "a"], ["a", "a"]) == 0.5


def slow_longest_common(one, other):
    if not one or not other:
        return 0
    if one[-1] == other[-1]:
        return 1 + slow_longest_common(one[:-1], other[:-1])
    return max(slow_longest_common(one[:-1], other), slow_longest_common(one, other[:-1]))


@given(st.text("abc", max_size=7), st.text("abc", max_size=7))
def test_the_longest_common_subsequence_against_its_definition(one, other):
    assert text_scores._longest_common(one, other) == slow_longest_common(one, other)


def test_bleu_by_hand():
    # Precisions 5/6, 3/5, 1/4, and 0/3 smoothed to 1/6; the lengths agree.
    found = bleu(["the cat is on the mat"], ["the cat sat on the mat"])
    assert found == pytest.approx(100 * (5 / 6 * 3 / 5 * 1 / 4 * 1 / 6) ** 0.25)
    # All precisions are 1; 4 words for 6 cost exp(1 - 6/4).
    assert bleu(["a b c d"], ["a b c d e f"]) == pytest.approx(100 * np.exp(-0.5))
    assert bleu(["a b c d"], ["a b c d"]) == 100.0
    assert bleu([""], ["a b c d"]) == 0.0


def test_words_are_told_apart_as_asked():
    assert bleu(["a b c d."], ["a b c d ."]) == 100.0
    assert bleu(["a b c d."], ["a b c d ."], tokenize="none") < 100.0


def test_chrf_by_hand():
    # "abc" and "abd": 2 of 3 letters, 1 of 2 pairs, 0 of 1 triple are common, so precision and recall are 7/18.
    assert chrf(["abc"], ["abd"]) == pytest.approx(100 * 7 / 18)
    assert chrf(["abc"], ["abc"]) == pytest.approx(100.0)


@pytest.mark.parametrize("score", [bleu, chrf, rouge_l])
def test_what_cannot_be_compared_is_refused(score):
    with pytest.raises(ArgumentError, match="'answers' must be not empty"):
        score([], [])
    with pytest.raises(ArgumentError, match="of one length"):
        score(["a"], ["a", "b"])


def test_an_answer_without_reference_is_refused():
    for score in (exact_match, token_f1):
        with pytest.raises(ArgumentError, match="'references' must be not empty"):
            score(["a"], [[]])


def test_an_unknown_tokenizer_is_refused():
    with pytest.raises(ArgumentError, match="'tokenize' must be one of '13a'"):
        bleu(["a"], ["a"], tokenize="fancy")
