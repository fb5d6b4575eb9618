"""Identity terms: words that name a member of one of two groups, their counterparts, and a control for each swap.

A **swap** exchanges every identity term of a text for its counterpart, at the same place and in the same case, so that
the number of tokens and their tags stay as they are. A **control swap** exchanges as many words of the same text
without leaving the group: an identity term for another of its own group and kind ("my wife" -> "my girlfriend",
"Emma" -> "Katherine"), and where there is none (pronouns) a neutral word for another ("my" -> "our", "monday" ->
"tuesday"). What the control swap changes is plain instability of the model, not unfairness.

Swapping twice gives back the text, but for the words that two others share as counterpart ("mum" and "mom" -> "dad")
and for her, his, him and hers. Those are told apart by the next word alone: before a word that can begin what is owned
(none of `_NOT_OWNED`, on the same side of any punctuation), "her" and "his" are possessive. So "tell her dinner is
ready" goes wrong; "call her mother", "call her now" and "it is hers" go right.

The control is a proxy: where a text has no other word of the group it changes words at other places, and a neutral
word may matter less to a model than a name. Terms inside titles of works and places are swapped as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from trustnlp import checks
from trustnlp.errors import ArgumentError

_WORD = re.compile(r"[^\W\d_]+")
_NOT_OWNED = frozenset(
    _WORD.findall(
        "a about after again all am an and any are around as asap at back be because before but by can could did "
        "do does down during for from had has have he her here hers him his how i if in into is it later may me "
        "might must my no not now of off on or our over please she should since so some soon than that the their "
        "them then there these they this those through to today tomorrow tonight too under until up was we were "
        "what when where whether which while who why will with without would yesterday you your"
    )
)

# (masculine, feminine), each the other's counterpart
_FAMILY = (
    ("husband", "wife"), ("husbands", "wives"), ("boyfriend", "girlfriend"), ("boyfriends", "girlfriends"),
    ("father", "mother"), ("fathers", "mothers"), ("dad", "mom"), ("dads", "moms"), ("daddy", "mommy"),
    ("papa", "mama"), ("brother", "sister"), ("brothers", "sisters"), ("son", "daughter"), ("sons", "daughters"),
    ("uncle", "aunt"), ("uncles", "aunts"), ("nephew", "niece"), ("nephews", "nieces"), ("fiancé", "fiancée"),
    ("grandfather", "grandmother"), ("grandpa", "grandma"), ("grandson", "granddaughter"), ("fiance", "fiancee"),
    ("stepfather", "stepmother"), ("stepson", "stepdaughter"), ("groom", "bride"), ("widower", "widow"),
)  # fmt: skip
_PERSONS = (
    ("man", "woman"), ("men", "women"), ("boy", "girl"), ("boys", "girls"), ("gentleman", "lady"),
    ("gentlemen", "ladies"), ("male", "female"), ("males", "females"), ("guy", "gal"), ("guys", "gals"),
    ("mr", "ms"), ("sir", "madam"),
)  # fmt: skip
_PRONOUNS = (("he", "she"), ("himself", "herself"))
# Common first names that are no everyday words, matched in frequency: within a quarter of each other in the births of
# the United States, every tenth year from 1960 to 2010.
_NAMES = (
    ("joseph", "jennifer"), ("steven", "jessica"), ("timothy", "mary"), ("charles", "elizabeth"), ("jeffrey", "lisa"),
    ("eric", "kimberly"), ("jacob", "sarah"), ("nicholas", "amanda"), ("justin", "michelle"), ("jonathan", "melissa"),
    ("kenneth", "ashley"), ("brandon", "emily"), ("benjamin", "angela"), ("stephen", "laura"),
    ("gregory", "nicole"), ("alexander", "rebecca"), ("patrick", "samantha"), ("aaron", "cynthia"), ("adam", "linda"),
    ("samuel", "lauren"), ("nathan", "rachel"), ("kyle", "julie"), ("edward", "christina"), ("jeremy", "megan"),
    ("gary", "maria"), ("ethan", "hannah"), ("george", "andrea"), ("peter", "olivia"), ("keith", "anna"),
    ("noah", "emma"), ("sean", "katherine"),
)  # fmt: skip
# Words of one group and kind; a control swap takes the next of the ring. The other group has their counterparts.
_RINGS = (
    ("wife", "girlfriend"), ("wives", "girlfriends"), ("mother", "grandmother", "aunt"), ("mom", "grandma"),
    ("mommy", "mama"), ("sister", "daughter", "niece"), ("sisters", "daughters", "nieces"), ("woman", "lady"),
    ("women", "ladies"), tuple(name for _, name in _NAMES),
)  # fmt: skip
# Words that say nothing of any group; a control swap takes the next of the ring.
_NEUTRAL = (
    ("my", "our"), ("me", "us"), ("the", "this"), ("it", "that"), ("morning", "afternoon", "evening"),
    ("please", "kindly"), ("a", "one"), ("today", "tomorrow"),
    ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
)  # fmt: skip


@dataclass(frozen=True)
class IdentityTerms:
    """The words that tell two groups apart, and how to exchange them; everything in lower case.

    Args:
        protected_group: what the two groups are groups of, such as "gender".
        pairs: each word and its counterpart, both ways.
        one_way: further words and their counterparts.
        owned: words with two counterparts: the one before a word that can be owned, and the one elsewhere.
        rings: words of one group and kind, for control swaps.
        neutral: words of no group and one kind, for control swaps where `rings` has none.

    Raises:
        ArgumentError: no pair, a term that is not one word in lower case, or a word with two counterparts.
    """

    protected_group: str
    pairs: tuple[tuple[str, str], ...]
    one_way: Mapping[str, str] = field(default_factory=dict)
    owned: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    rings: tuple[tuple[str, ...], ...] = ()
    neutral: tuple[tuple[str, ...], ...] = _NEUTRAL

    def __post_init__(self) -> None:
        checks.not_empty("pairs", self.pairs, "give at least one pair of words")
        for first, second in self.pairs:
            if first == second:
                raise ArgumentError("pairs", "pairs of two different words", (first, second))
        terms = [*sum(self.pairs, ()), *self.one_way, *self.owned]
        twice = sorted({term for term in terms if terms.count(term) > 1})
        if twice:
            raise ArgumentError("pairs", "words with one counterpart each", twice, "keep one pair of each word")
        for word in [*terms, *sum((*self.rings, *self.neutral), ())]:
            if not _WORD.fullmatch(word) or word != word.lower():
                raise ArgumentError("terms", "single words in lower case, letters only", word)
        for ring in self.rings:
            if any(self._counterpart.get(word) in ring for word in ring):
                raise ArgumentError("rings", "words of one group each", ring)
        both = sorted(set(terms) & set(sum(self.neutral, ())))
        if both:
            raise ArgumentError("neutral", "free of identity terms", both)

    @cached_property
    def _counterpart(self) -> dict[str, str]:
        return {**dict(self.pairs), **{second: first for first, second in self.pairs}, **self.one_way}

    @cached_property
    def _peer(self) -> dict[str, str]:
        """The next word of its ring, for every word of a ring and for the counterparts of the rings' words."""
        across = [tuple(self._counterpart[word] for word in ring if word in self._counterpart) for ring in self.rings]
        return {**_next(across), **_next(self.rings)}

    @cached_property
    def _neighbour(self) -> dict[str, str]:
        return _next(self.neutral)

    def swap(self, text: str) -> str:
        """`text` with every identity term exchanged for its counterpart; unchanged exactly if it has none."""
        return _rewritten(text, self._swaps(text))

    def control(self, text: str) -> str | None:
        """`text` with as many words exchanged as `swap` does, none for one of the other group.

        None where the text has too few words that can be exchanged, or no identity term.
        """
        wanted = [match for match, _ in self._swaps(text)]
        peers = [(match, self._peer[_key(match)]) for match in wanted if _key(match) in self._peer]
        others = [match for match in _WORD.finditer(text) if _key(match) in self._neighbour]
        missing = len(wanted) - len(peers)
        if not wanted or len(others) < missing:
            return None
        neutral = [(match, self._neighbour[_key(match)]) for match in others[:missing]]
        return _rewritten(text, sorted(peers + neutral, key=lambda change: change[0].start()))

    def places(self, text: str) -> list[tuple[int, int]]:
        """Where each identity term begins and ends in `text`, in characters."""
        return [match.span() for match, _ in self._swaps(text)]

    def _swaps(self, text: str) -> list[tuple[re.Match[str], str]]:
        found = []
        for match in _WORD.finditer(text):
            word = _key(match)
            if word in self.owned:
                found.append((match, self.owned[word][0 if _owns(text, match) else 1]))
            elif word in self._counterpart:
                found.append((match, self._counterpart[word]))
        return found


def identity_terms(
    pairs: Iterable[Sequence[str]], protected_group: str, rings: Iterable[Sequence[str]] = ()
) -> IdentityTerms:
    """Identity terms from word lists of your own.

    Args:
        pairs: words and their counterparts, such as [("church", "mosque"), ("priest", "imam")]; any case.
        protected_group: what they tell apart, such as "religion".
        rings: words of one group and kind, for control swaps, such as [("priest", "bishop"), ("imam", "mufti")].

    Raises:
        ArgumentError: see `IdentityTerms`.
    """
    lowered = tuple(_pair(pair) for pair in pairs)
    known = {word for pair in lowered for word in pair}
    neutral = tuple(ring for ring in _NEUTRAL if not known & set(ring))
    kinds = tuple(tuple(word.lower() for word in ring) for ring in rings)
    return IdentityTerms(protected_group, lowered, rings=kinds, neutral=neutral)


GENDER = IdentityTerms(
    protected_group="gender",
    pairs=(*_FAMILY, *_PERSONS, *_PRONOUNS, *_NAMES),
    one_way={"him": "her", "hers": "his", "mrs": "mr", "mum": "dad", "mums": "dads", "mummy": "daddy"},
    owned={"her": ("his", "him"), "his": ("her", "hers")},
    rings=_RINGS,
)


def _pair(words: Sequence[str]) -> tuple[str, str]:
    if isinstance(words, str) or len(words) != 2:
        raise ArgumentError("pairs", "pairs of two different words", words)
    return words[0].lower(), words[1].lower()


def _key(match: re.Match[str]) -> str:
    return match.group().lower()


def _next(rings: Iterable[Sequence[str]]) -> dict[str, str]:
    return {word: ring[(place + 1) % len(ring)] for ring in rings if len(ring) > 1 for place, word in enumerate(ring)}


def _owns(text: str, match: re.Match[str]) -> bool:
    """Whether the word at `match` stands right before a word that can begin what it owns."""
    after = _WORD.search(text, match.end())
    if after is None or text[match.end() : after.start()].strip():
        return False
    return _key(after) not in _NOT_OWNED


def _rewritten(text: str, changes: Iterable[tuple[re.Match[str], str]]) -> str:
    pieces, done = [], 0
    for match, word in changes:
        pieces += [text[done : match.start()], _cased(word, match.group())]
        done = match.end()
    return "".join([*pieces, text[done:]])


def _cased(word: str, model: str) -> str:
    if len(model) > 1 and model.isupper():
        return word.upper()
    return word.capitalize() if model[0].isupper() else word
