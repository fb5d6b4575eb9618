"""The grammar alone; what is said with it is in test_synthetic.py."""

import itertools

import pytest

from trustnlp.data import grammar


def words():
    """Every word and slot of every reading."""
    every = itertools.chain.from_iterable(grammar.TEMPLATES.values())
    return [word for readings in every for reading in readings for word in reading]


def test_every_slot_has_values_and_every_value_a_use():
    used = {
        word[1:-1]
        for patterns in grammar.TEMPLATES.values()
        for template in itertools.chain(*patterns)
        for word in template
        if word.startswith("{")
    }
    assert used == grammar.VALUES.keys() | grammar.DIGIT_SLOTS.keys() | {"partner"}
    assert all(len(found) == len(set(found)) for found in grammar.VALUES.values())


def test_alternatives_are_expanded():
    assert ("set", "a", "wake", "up", "call", "for", "{time}", "{date}") in grammar.TEMPLATES["set_alarm"][0]
    assert len(grammar.TEMPLATES["set_alarm"][0]) == 6


def test_amounts_are_small_or_large():
    assert not set(grammar.SMALL_AMOUNTS) & set(grammar.LARGE_AMOUNTS)
    assert len(grammar.SMALL_AMOUNTS) == len(grammar.LARGE_AMOUNTS)


@pytest.mark.parametrize(
    ("pattern", "readings"),
    [
        ("stop", [("stop",)]),
        ("(turn|put) it (off|)", [("turn", "it", "off"), ("turn", "it"), ("put", "it", "off"), ("put", "it")]),
        ("(call my {relation}|{contact})", [("call", "my", "{relation}"), ("{contact}",)]),
    ],
)
def test_a_pattern_has_every_combination_of_its_alternatives(pattern, readings):
    assert list(grammar._variants(pattern)) == readings


def test_readings_hold_words_and_slots_only():
    assert not [word for word in words() if set(word) & set("(|)") or ("{" in word) != (word[0] + word[-1] == "{}")]
    assert all(reading for readings in grammar.TEMPLATES.values() for one in readings for reading in one)


def test_sets_of_slots_name_slots():
    assert grammar.OPEN.issubset(grammar.VALUES)
    assert grammar.HABITUAL.issubset(grammar.VALUES)
    assert grammar.TAG_OF.keys() <= grammar.VALUES.keys() | {"partner"}


def test_only_requests_name_a_partner_by_slot():
    naming = {intent for intent, readings in grammar.TEMPLATES.items() if "{partner}" in str(readings)}
    assert naming == {grammar.REQUEST}


def test_regional_words_touch_no_partner_and_no_amount():
    deciding = {*grammar.IDENTITY_SWAPS, *" ".join(grammar.VALUES["amount"]).split()}
    assert not deciding & {*grammar.REGIONAL, *grammar.REGIONAL.values()}


def test_both_groups_have_their_markers_and_share_none():
    for markers in (grammar.PARTNERS, grammar.OPENERS, grammar.CLOSERS):
        assert tuple(markers) == grammar.GROUPS
        assert not set(markers["a"]) & set(markers["b"])


def test_swaps_exchange_the_groups_terms():
    swapped = {grammar.IDENTITY_SWAPS[term] for term in grammar.PARTNERS["a"]}
    assert swapped == set(grammar.PARTNERS["b"])
    assert all(grammar.IDENTITY_SWAPS[other] == term for term, other in grammar.IDENTITY_SWAPS.items())


def test_every_ordinary_intent_has_a_neighbour():
    ordinary = set(grammar.TEMPLATES) - {grammar.REQUEST}
    assert set(grammar.NEIGHBOUR) == ordinary
    assert all(other in ordinary and other != one for one, other in grammar.NEIGHBOUR.items())
