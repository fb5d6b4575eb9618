"""Items of stereotype datasets that do not measure what they are meant to, as far as rules can tell.

    empty              a sentence without a word
    identical          sentences of the same words
    not minimal        sentences that should differ in one term differ in several places, or in a long one
    capitalisation     a shared word is capitalised in one sentence only
    punctuation        sentences differ in punctuation
    duplicate          the same sentences as in an earlier item, whatever their roles
    contradiction      the same sentences as in another item, in each other's roles
    inverted           stereotype and anti-stereotype stand the other way round than in a reference

Several changes of the same words, or of gendered terms ("he … his" to "she … her"), are one. Most of what is wrong
with such items (stereotypes that nobody holds, groups that do not correspond) needs a reader: an item without a flag
is not thereby valid. Source of the problem classes: Blodgett et al. 2021, ACL, 1004-1015.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum
from itertools import combinations

from trustnlp.data.crows_pairs import StereotypePair
from trustnlp.data.stereoset import StereoItem
from trustnlp.fairness.identity_terms import GENDER

LONGEST_TERM = 3
"""Words that a changed term may have."""

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_MARK = re.compile(r"[^\w\s'’-]")
_GENDERED = frozenset({"her", "hers", "his", "him"})


class Flag(StrEnum):
    """What is wrong with an item; see the head of this module."""

    EMPTY = "empty"
    IDENTICAL = "identical"
    NOT_MINIMAL = "not minimal"
    CAPITALISATION = "capitalisation"
    PUNCTUATION = "punctuation"
    DUPLICATE = "duplicate"
    CONTRADICTION = "contradiction"
    INVERTED = "inverted"


Flags = dict[str, frozenset[Flag]]
"""Flags by item id; items without any are left out."""


@dataclass(frozen=True)
class _Item:
    """What the rules look at: what must be the same, the sentences, and whether these should differ in one term."""

    id: str
    context: str
    stereotype: str
    anti_stereotype: str
    others: tuple[str, ...]
    is_minimal: bool


def stereoset_flags(items: Sequence[StereoItem], reference: Sequence[StereoItem] | None = None) -> Flags:
    """Flags of StereoSet's items; continuations (intersentence) are not expected to differ in one term only.

    Args:
        items: to look at.
        reference: items whose labels are right, matched by kind, context and sentences.
    """
    return _flags([_of_item(item) for item in items], [_of_item(item) for item in reference or ()])


def crows_pairs_flags(pairs: Sequence[StereotypePair], reference: Sequence[StereotypePair] | None = None) -> Flags:
    """Flags of CrowS-Pairs' pairs; arguments as for `stereoset_flags`."""
    return _flags([_of_pair(pair) for pair in pairs], [_of_pair(pair) for pair in reference or ()])


def _of_item(item: StereoItem) -> _Item:
    is_minimal = item.kind == "intrasentence"
    context = "" if is_minimal else item.context
    return _Item(item.id, context, item.stereotype, item.anti_stereotype, (item.unrelated,), is_minimal)


def _of_pair(pair: StereotypePair) -> _Item:
    return _Item(pair.id, "", pair.more, pair.less, (), True)


def _flags(items: Sequence[_Item], reference: Sequence[_Item]) -> Flags:
    found: dict[str, set[Flag]] = defaultdict(set)
    for item in items:
        found[item.id] |= _own_flags(item)
    for item, flag in (*_repeated(items), *_inverted(items, reference)):
        found[item.id].add(flag)
    return {name: frozenset(flags) for name, flags in found.items() if flags}


def _own_flags(item: _Item) -> set[Flag]:
    sentences = (item.stereotype, item.anti_stereotype, *item.others)
    words = [_words(sentence) for sentence in sentences]
    if not all(words):
        return {Flag.EMPTY}
    flags = {Flag.IDENTICAL for first, second in combinations(words, 2) if first == second}
    if item.is_minimal:
        flags |= pair_flags(item.stereotype, item.anti_stereotype)
    return flags


def pair_flags(first: str, second: str) -> set[Flag]:
    """What is wrong with two sentences that should differ in one term."""
    flags = set()
    if not is_minimal(first, second):
        flags.add(Flag.NOT_MINIMAL)
    if _differ_in_case(first, second):
        flags.add(Flag.CAPITALISATION)
    if _MARK.findall(first) != _MARK.findall(second):
        flags.add(Flag.PUNCTUATION)
    return flags


def is_minimal(first: str, second: str) -> bool:
    """Whether two sentences differ in one term of at most `LONGEST_TERM` words, or not at all."""
    a, b = _words(first), _words(second)
    changes = {
        (a[start:end], b[other:other_end])
        for kind, start, end, other, other_end in SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
        if kind != "equal"
    }
    gendered = {change for change in changes if all(side and all(map(_is_gendered, side)) for side in change)}
    is_short = all(len(side) <= LONGEST_TERM for change in changes for side in change)
    return is_short and len(changes - gendered) + bool(gendered) <= 1


def _is_gendered(word: str) -> bool:
    return word in _GENDERED or bool(GENDER.places(word))


def _differ_in_case(first: str, second: str) -> bool:
    """Whether a word that both share is capitalised in one only, the first of a sentence aside."""
    a, b = _WORD.findall(first), _WORD.findall(second)
    blocks = SequenceMatcher(None, _words(first), _words(second), autojunk=False).get_matching_blocks()
    places = [(block.a + step, block.b + step) for block in blocks for step in range(block.size)]
    return any(a[i] != b[j] for i, j in places if (i == 0) == (j == 0))


def _repeated(items: Iterable[_Item]) -> list[tuple[_Item, Flag]]:
    seen: dict[frozenset[tuple[str, ...]], list[_Item]] = defaultdict(list)
    found = []
    for item in items:
        alike = seen[_sides(item)]
        found += [(item, Flag.DUPLICATE)] if alike else []
        for other in alike:
            if _is_inverted(item, other):
                found += [(item, Flag.CONTRADICTION), (other, Flag.CONTRADICTION)]
        alike.append(item)
    return found


def _inverted(items: Iterable[_Item], reference: Iterable[_Item]) -> list[tuple[_Item, Flag]]:
    known = {_sides(item): item for item in reference}
    return [
        (item, Flag.INVERTED) for item in items if _sides(item) in known and _is_inverted(item, known[_sides(item)])
    ]


def _sides(item: _Item) -> frozenset[tuple[str, ...]]:
    context = _words(item.context)
    return frozenset((*context, "|", *_words(side)) for side in (item.stereotype, item.anti_stereotype))


def _is_inverted(item: _Item, other: _Item) -> bool:
    own, others = (tuple(map(_words, (each.stereotype, each.anti_stereotype))) for each in (item, other))
    return own[0] != own[1] and own == others[::-1]


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.casefold() for word in _WORD.findall(text))
