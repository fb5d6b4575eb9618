"""Every flag fires on a planted defect, and on that defect alone."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from trustnlp.data.crows_pairs import StereotypePair, read_crows_pairs
from trustnlp.data.stereoset import StereoItem, read_stereoset
from trustnlp.fairness.validity import Flag, crows_pairs_flags, is_minimal, pair_flags, stereoset_flags

DATA = os.environ.get("TRUSTNLP_DATA")
PAIR = StereotypePair("1", "The old man napped, as ever.", "The young man napped, as ever.", "age", "stereo")
ITEM = StereoItem(
    "1", "intrasentence", "profession", "baker", "The BLANK baker sang.",
    "The fat baker sang.", "The thin baker sang.", "The round baker sang.",
)  # fmt: skip
FREE = StereoItem(
    "2", "intersentence", "profession", "baker", "A baker came.",
    "He was fat, as they are.", "She ran fast.", "Snow fell.",
)  # fmt: skip


def test_good_items_have_no_flag():
    other = replace(PAIR, id="2", more="The women sang.", less="The men sang.")
    assert crows_pairs_flags([PAIR, other], [PAIR]) == {}
    assert stereoset_flags([ITEM, FREE], [ITEM, FREE]) == {}


@pytest.mark.parametrize(
    ("more", "flags"),
    [
        ("...", {Flag.EMPTY}),
        ("The young man napped, as ever.", {Flag.IDENTICAL}),
        ("The old man slept, as ever.", {Flag.NOT_MINIMAL}),
        ("The man who was born long ago napped, as ever.", {Flag.NOT_MINIMAL}),
        ("The old Man napped, as ever.", {Flag.CAPITALISATION}),
        ("the old man napped, as ever.", {Flag.CAPITALISATION}),
        ("The old man napped as ever.", {Flag.PUNCTUATION}),
        ("The old man napped, as ever!", {Flag.PUNCTUATION}),
    ],
)
def test_a_planted_defect_of_a_pair_is_the_only_flag(more, flags):
    assert crows_pairs_flags([replace(PAIR, more=more)]) == {"1": flags}


def test_the_later_of_two_equal_items_is_a_duplicate():
    again = replace(PAIR, id="2", more=PAIR.more.replace(",", ""), less=PAIR.less.replace(",", ""))
    assert crows_pairs_flags([PAIR, again]) == {"2": {Flag.DUPLICATE}}


def test_items_in_each_others_roles_contradict():
    turned = replace(PAIR, id="2", more=PAIR.less, less=PAIR.more)
    both = {"1": {Flag.CONTRADICTION}, "2": {Flag.CONTRADICTION, Flag.DUPLICATE}}
    assert crows_pairs_flags([PAIR, turned]) == both


def test_inverted_labels_are_told_by_a_reference():
    turned = replace(ITEM, id="other", stereotype=ITEM.anti_stereotype, anti_stereotype=ITEM.stereotype)
    assert stereoset_flags([turned], [ITEM, FREE]) == {"other": {Flag.INVERTED}}
    assert stereoset_flags([turned], [FREE]) == {}


def test_continuations_may_differ_freely_but_not_be_equal():
    assert stereoset_flags([replace(FREE, unrelated=FREE.stereotype)]) == {"2": {Flag.IDENTICAL}}
    elsewhere = replace(FREE, id="3", context="A nun came.")
    assert stereoset_flags([FREE, elsewhere]) == {}
    assert stereoset_flags([FREE, replace(FREE, id="3")]) == {"3": {Flag.DUPLICATE}}


def test_an_unrelated_sentence_that_is_the_stereotype():
    assert stereoset_flags([replace(ITEM, unrelated=ITEM.stereotype)]) == {"1": {Flag.IDENTICAL}}


def test_a_consistent_change_is_one_change():
    assert is_minimal("He said that his wife left him.", "She said that her husband left her.")
    assert is_minimal("Jews eat what Jews like.", "Monks eat what Monks like.")
    assert not is_minimal("He said that his dog barked.", "She said that her cat barked.")
    assert is_minimal("A gay man sang.", "A man sang.")
    assert pair_flags("Old men nap.", "Men nap.") == set()


@pytest.mark.skipif(DATA is None, reason="needs $TRUSTNLP_DATA")
def test_all_items_of_the_inverted_copy_are_found():
    copy = json.loads((Path(DATA) / "oracles/stereoset_gender_inverted_copy.json").read_text())
    items = [
        StereoItem(
            entry["id"], "intrasentence", entry["bias_type"], entry["target"], entry["context"],
            *(entry["data"][label]["sentence"] for label in ("stereotype", "anti-stereotype", "unrelated")),
        )
        for entry in copy
    ]  # fmt: skip
    original = read_stereoset(Path(DATA) / "stereoset/dev.json")
    assert sum(Flag.INVERTED in flags for flags in stereoset_flags(items, original).values()) == len(items) == 253
    assert not any(Flag.INVERTED in flags for flags in stereoset_flags(original, original).values())


@pytest.mark.skipif(DATA is None, reason="needs $TRUSTNLP_DATA")
def test_real_pairs_are_flagged_in_part():
    pairs = read_crows_pairs(Path(DATA) / "crows-pairs/crows_pairs_anonymized.csv")
    assert 0.02 < len(crows_pairs_flags(pairs)) / len(pairs) < 0.5
