import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustnlp.errors import ArgumentError
from trustnlp.fairness.identity_terms import _NAMES, GENDER, IdentityTerms, identity_terms

SHARED = {*GENDER.one_way, *GENDER.owned, *GENDER.one_way.values()}  # words that two others share as counterpart
CLEAR = sorted(word for pair in GENDER.pairs for word in pair if not {word, *pair} & SHARED)
PLAIN = ["call", "please", "Monday", "the", "meeting,", "now.", "42", "naïve", "my"]


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("call my husband", "call my wife"),
        ("text my girlfriend now", "text my boyfriend now"),
        ("Tell HER brother that she's late.", "Tell HIS sister that he's late."),
        ("tell her i am late", "tell him i am late"),
        ("call her", "call him"),
        ("i saw her, John", "i saw him, John"),
        ("her car is his", "his car is hers"),
        ("it is hers, not his", "it is his, not hers"),
        ("wake him up", "wake her up"),
        ("Mr. Smith's wives", "Ms. Smith's husbands"),
        ("EMMA and Noah-Kyle", "NOAH and Emma-Julie"),
        ("the other weather theory", "the other weather theory"),
        ("", ""),
    ],
)
def test_swaps_by_example(text, swapped):
    assert GENDER.swap(text) == swapped


def test_the_known_weakness_of_her():
    assert GENDER.swap("tell her dinner is ready") == "tell his dinner is ready"


@given(st.lists(st.sampled_from(CLEAR + PLAIN), min_size=1), st.sampled_from([str.lower, str.upper, str.title]))
def test_swapping_clear_text_twice_gives_it_back(words, case):
    text = case(" ".join(words))
    swapped = GENDER.swap(text)
    assert GENDER.swap(swapped) == text
    assert (swapped != text) == any(word in CLEAR for word in words)


@given(st.text(st.sampled_from("her hishm'.-AÉ\n\tmum42"), max_size=60))
def test_tokens_stay_where_they_are(text):
    for changed in (GENDER.swap(text), GENDER.control(text)):
        if changed is not None:
            assert len(changed.split()) == len(text.split())
            assert [piece.isspace() for piece in changed.split(" ")] == [piece.isspace() for piece in text.split(" ")]


@pytest.mark.parametrize(
    ("text", "control"),
    [
        ("call my husband", "call my boyfriend"),
        ("call my Wife", "call my Girlfriend"),
        ("is katherine with grandma", "is jennifer with mom"),
        ("text her my number", "text her our number"),  # no other word of the group: a neutral one
        ("her mother on monday", "her grandmother on tuesday"),
        ("call her", None),
        ("call me on monday", None),  # no identity term
    ],
)
def test_controls_by_example(text, control):
    assert GENDER.control(text) == control


@given(st.lists(st.sampled_from(CLEAR + PLAIN), min_size=1))
def test_a_control_changes_as_many_words_and_none_of_the_group(words):
    text = " ".join(words)
    control = GENDER.control(text)
    if control is not None:
        swapped = [a != b for a, b in zip(text.split(), GENDER.swap(text).split(), strict=True)]
        assert sum(a != b for a, b in zip(words, control.split(), strict=True)) == sum(swapped)


def test_rings_never_leave_the_group():
    masculine = {first for first, _ in GENDER.pairs}
    for word, peer in GENDER._peer.items():
        assert (word in masculine) == (peer in masculine)


def test_word_lists_of_ones_own():
    terms = identity_terms([("Church", "mosque"), ("priest", "imam")], "religion", rings=[("priest", "church")])
    assert terms.swap("the Priest of the church, my wife") == "the Imam of the mosque, my wife"
    assert terms.control("the imam") == "the mosque"
    weekdays = identity_terms([("friday", "sunday")], "sabbath")
    assert weekdays.control("on friday") is None
    assert weekdays.control("my friday") == "our friday"


@pytest.mark.parametrize(
    ("pairs", "rings", "match"),
    [
        ([], [], "not empty"),
        ([("a", "b"), ("b", "c")], [], "one counterpart"),
        ([("a", "a")], [], "different"),
        (["ab"], [], "pairs of two"),
        ([("a", "b", "c")], [], "pairs of two"),
        ([("step mother", "father")], [], "single words"),
        ([("g1", "g2")], [], "letters"),
        ([("a", "b")], [("a", "b")], "one group"),
    ],
)
def test_unusable_word_lists_are_refused(pairs, rings, match):
    with pytest.raises(ArgumentError, match=match):
        identity_terms(pairs, "group", rings)


def test_neutral_words_name_nobody():
    with pytest.raises(ArgumentError, match="free of identity terms"):
        IdentityTerms("day", (("monday", "sunday"),))


def test_names_are_matched_in_frequency():
    """Oracle: the births of six years in the public name lists."""
    root = os.environ.get("TRUSTNLP_DATA")
    if not root or not (Path(root) / "names").is_dir():
        pytest.skip("TRUSTNLP_DATA has no folder 'names'")
    births = Counter()
    for year in range(1960, 2020, 10):
        for line in (Path(root) / "names" / f"yob{year}.txt").read_text().split():
            name, sex, count = line.split(",")
            births[name.lower(), sex] += int(count)
    for him, her in _NAMES:
        assert 0.75 <= births[him, "M"] / births[her, "F"] <= 1 / 0.75, (him, her)
        assert births[him, "F"] < 0.02 * births[him, "M"]
        assert births[her, "M"] < 0.02 * births[her, "F"]


def test_places_are_those_of_the_terms():
    text = "Her son, Emma's husband: play jazz"
    assert [text[start:end] for start, end in GENDER.places(text)] == ["Her", "son", "Emma", "husband"]
    assert GENDER.places("play jazz") == []
