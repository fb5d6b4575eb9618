"""A synthetic corpus of requests to a voice assistant, of which everything is known.

It is the embedded default, and the ground truth for attacks (canaries), federated selection (activity) and fairness
(planted bias). Who says what, and when:

    user     P(user) ~ rank ** -activity; each has one group and favourite intents, contacts, artists, cities, …
    time     uniform on [0, periods); int(time) is the period; intents rise and fall from period to period, and some
             slot values appear only in later ones
    intent   P(intent | user, period) ~ base * taste[user] * exp(slope[intent] * t), t from -1 to 1 (last period)
    text     a pattern of the intent (see `grammar`), filled with favourites or any value; then the group's own words,
             openers and closers, and here and there a typo or a filler
    label    the intent; a share `ambiguity` of ordinary utterances is labelled with a neighbouring intent instead, so
             no model is expected to exceed 1 - ambiguity on them
    split    at random by utterance, 80/10/10: members and non-members are exchangeable

No text occurs twice, so no test text was seen in training: a repeated one is worded anew, up to 50 times, which is
enough for 200,000 utterances of 5,000 users.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from trustnlp import checks
from trustnlp.data import canaries as planted
from trustnlp.data import grammar
from trustnlp.data.corpus import Corpus, Example
from trustnlp.randomness import Streams

FAVOURED = "a"
INTENTS = tuple(grammar.TEMPLATES)
_REQUEST_WEIGHT = 2.0  # how much more frequent than an ordinary intent the biased decision is
_FAVOURITES = 4
BASE = np.where(np.array(INTENTS) == grammar.REQUEST, _REQUEST_WEIGHT, 1.0)
_FIRST_PERIOD_VALUES = 0.6  # share of an open slot's values known before the first period
_PARTNER_SHARE = 0.3  # how often a relative is the partner
_OWN_PARTNER_TERM = 0.9
_OWN_WORD = {"a": 0.95, "b": 0.6}  # how often a group says its own regional word, opener or closer
_REWORDINGS = 50

T = TypeVar("T")
Word = tuple[str, str]  # token, tag


@dataclass(frozen=True)
class Parameters:
    """Everything a synthetic corpus depends on.

    Args:
        size: utterances in all splits together, canaries not counted, >= 10.
        users: speakers, >= 1.
        seed: whole number >= 0.
        bias: strength s in [0, 1] of the planted bias; see `approval_probability`.
        periods: time periods, >= 1.
        canaries: whether to plant canaries (1, 4 and 16 copies, two of each) in the training split.
        minority: share of users in group b, in [0, 1].
        activity: Zipf exponent of the users' activity, >= 0; 0 makes all equally active.
        concentration: of the users' Dirichlet taste in intents, > 0; smaller is further from IID clients.
        loyalty: how often a speaker names a favourite, in [0, 1].
        drift: largest slope of an intent's log-weight over time, >= 0.
        marking: rate of group-typical openers and of closers, in [0, 1].
        ambiguity: share of ordinary utterances labelled with a neighbouring intent, in [0, 1].
        noise: share of utterances with a typo, and share with a filler, in [0, 1].
    """

    size: int = 20_000
    users: int = 800
    seed: int = 0
    bias: float = 0.0
    periods: int = 4
    canaries: bool = True
    minority: float = 0.3
    activity: float = 0.8
    concentration: float = 1.0
    loyalty: float = 0.6
    drift: float = 1.0
    marking: float = 0.25
    ambiguity: float = 0.03
    noise: float = 0.08

    def __post_init__(self) -> None:
        for name, low in (("size", 10), ("users", 1), ("seed", 0), ("periods", 1)):
            checks.at_least(name, getattr(self, name), low)
        for name in ("bias", "minority", "loyalty", "marking", "ambiguity", "noise"):
            checks.within(name, getattr(self, name), 0, 1)
        checks.non_negative("activity", self.activity)
        checks.positive("concentration", self.concentration)
        checks.non_negative("drift", self.drift)


@dataclass(frozen=True)
class SyntheticCorpus:
    """A synthetic corpus and what was planted in it.

    Args:
        corpus: the examples.
        parameters: what they were made from, among them the bias strength.
        activity: user -> probability that an utterance is theirs.
        groups: user -> group.
        canaries: the secrets in the training split; empty if none were asked for.
    """

    corpus: Corpus
    parameters: Parameters
    activity: Mapping[str, float]
    groups: Mapping[str, str]
    canaries: tuple[planted.Canary, ...]

    def decisions(self, split: str) -> tuple[int, ...]:
        """Indices of the utterances of `train`, `valid` or `test` that belong to the decision that can be biased."""
        examples = getattr(self.corpus, checks.one_of("split", split, ("train", "valid", "test")))
        return tuple(i for i, example in enumerate(examples) if example.label in grammar.DECISION)


def corpus(size: int = 20_000, users: int = 800, **parameters: Any) -> Corpus:
    """The synthetic corpus alone; arguments and errors as for `Parameters`."""
    return generate(size, users, **parameters).corpus


def generate(size: int = 20_000, users: int = 800, **parameters: Any) -> SyntheticCorpus:
    """The synthetic corpus and its planted truth; arguments as for `Parameters`.

    Each part has its own random stream: with the same seed, corpora of different `bias` have the same texts, and
    those with and without canaries differ in the canaries alone.

    Raises:
        ArgumentError: an argument breaks its rule.
    """
    settings = Parameters(size, users, **parameters)
    streams = Streams(settings.seed).child("synthetic")
    population = _Population(settings, streams.numpy("population"))
    examples = list(_examples(settings, population, streams))
    order = streams.numpy("split").permutation(size)  # rewording makes later utterances rarer, so slices would differ
    shuffled = [examples[i] for i in order]
    held = size // 10
    made = Corpus(
        "synthetic-assistant",
        train=tuple(shuffled[2 * held :]),
        valid=tuple(shuffled[:held]),
        test=tuple(shuffled[held : 2 * held]),
        licence="Apache-2.0",
        source=f"trustnlp.data.synthetic, seed {settings.seed}",
        notes=("made by a grammar; planted truth is known", f"planted bias of strength {settings.bias:g}"),
    )
    secrets: tuple[planted.Canary, ...] = ()
    if settings.canaries:
        draws = streams.numpy("canaries")
        ordinary = [label for label in made.labels if label not in grammar.DECISION]
        secrets = planted.design(made, generator=draws, labels=ordinary)
        made = planted.plant(made, secrets, draws)
    activity = dict(zip(population.names, population.activity.tolist(), strict=True))
    groups = dict(zip(population.names, population.groups, strict=True))
    return SyntheticCorpus(made, settings, activity, groups, secrets)


def approval_probability(bias: float, content: str, group: str) -> float:
    """P(label is `approve_request`) of a request with content label `content` from a speaker of `group`.

        P(approve | content, group) = (1 - s) * [content = approve_request] + s * [group = a],    s = bias

    A request's content is its amount: on their merit, small ones are approved and large ones referred, half of all
    requests each, independently of user and group. So at s = 0 the label is independent of the group given the
    content, at s = 1 it is determined by the group alone, and always P(approve | a) - P(approve | b) = s. The text
    shows the group: every request names the speaker's partner by the group's own term (`grammar.PARTNERS`).
    """
    return (1 - bias) * (content == grammar.APPROVE) + bias * (group == FAVOURED)


def content_label(example: Example) -> str | None:
    """The label that a request deserves by its amount alone; None for an utterance outside the decision."""
    if example.label not in grammar.DECISION or example.tags is None:
        return None
    return _merit(list(zip(example.tokens, example.tags, strict=True)))


def _merit(words: Sequence[Word]) -> str:
    amount = " ".join(token for token, tag in words if tag.endswith("-amount"))
    return grammar.APPROVE if amount in grammar.SMALL_AMOUNTS else grammar.REFER


def moments(periods: int) -> np.ndarray:
    """(periods,) the t of each period, from -1 to 1."""
    return np.linspace(-1, 1, periods) if periods > 1 else np.zeros(1)


class Speakers(Protocol):
    """What wording depends on: the group of each speaker, and which values are favourites, slot -> speaker -> (4,)."""

    groups: list[str]
    favourites: dict[str, list[list[int]]]


class _Population:
    """Who speaks: U users with activity (U,), group, taste (U, intents) and favourites slot -> (U, 4)."""

    def __init__(self, settings: Parameters, generator: np.random.Generator) -> None:
        users = settings.users
        self.names = [f"u{i:0{len(str(users - 1))}d}" for i in range(users)]
        weights = np.arange(1, users + 1) ** -float(settings.activity)
        self.activity = generator.permutation(weights / weights.sum())
        minority = round(settings.minority * users)
        self.groups = [grammar.GROUPS[int(i < minority)] for i in generator.permutation(users)]
        self.taste = generator.dirichlet([settings.concentration] * len(INTENTS), size=users)
        self.slopes = generator.uniform(-settings.drift, settings.drift, size=len(INTENTS))
        self.favourites = favourites(users, generator)

    def intents(self, periods: int) -> np.ndarray:
        """Cumulative P(intent | user, period), (U, periods, intents)."""
        weights = BASE * self.taste[:, None, :] * np.exp(np.outer(moments(periods), self.slopes))
        return np.cumsum(weights / weights.sum(-1, keepdims=True), axis=-1)


def favourites(speakers: int, generator: np.random.Generator) -> dict[str, list[list[int]]]:
    """Slot -> for each speaker the numbers of the favourite values."""
    return {
        slot: generator.integers(len(grammar.VALUES[slot]), size=(speakers, _FAVOURITES)).tolist()
        for slot in sorted(grammar.HABITUAL)
    }


def _examples(settings: Parameters, population: _Population, streams: Streams) -> Iterator[Example]:
    size, draws = settings.size, streams.numpy("occasions")
    users = draws.choice(settings.users, size=size, p=population.activity)
    times = draws.uniform(0, settings.periods, size=size)
    cumulative = population.intents(settings.periods)[users, times.astype(int), :-1]
    intents = (draws.random((size, 1)) > cumulative).sum(axis=1)
    judged = streams.numpy("labels").random(size)
    wording = Wording(settings, population, streams.numpy("wording"))
    for user, time, intent, luck in zip(users.tolist(), times.tolist(), intents.tolist(), judged.tolist(), strict=True):
        group = population.groups[user]
        words = wording.fresh(INTENTS[intent], user, int(time))
        label = label_of(INTENTS[intent], words, group, luck, settings)
        tokens, tags = zip(*words, strict=True)
        yield Example(" ".join(tokens), label, tags, population.names[user], group, time)


def label_of(intent: str, words: Sequence[Word], group: str, luck: float, settings: Parameters) -> str:
    """The label, by `luck` uniform on [0, 1)."""
    if intent == grammar.REQUEST:
        approved = luck < approval_probability(settings.bias, _merit(words), group)
        return grammar.APPROVE if approved else grammar.REFER
    return grammar.NEIGHBOUR[intent] if luck < settings.ambiguity else intent


def _uniforms(generator: np.random.Generator) -> Iterator[float]:
    while True:
        yield from generator.random(1 << 14).tolist()  # in blocks: scalar draws are several times slower


class Wording:
    """Turns intents into tagged words."""

    def __init__(self, settings: Parameters, population: Speakers, generator: np.random.Generator) -> None:
        self._settings = settings
        self._population = population
        self._uniform = _uniforms(generator).__next__
        self._said: set[str] = set()
        self._known = [
            {slot: self._values_known(slot, period) for slot in grammar.VALUES} for period in range(settings.periods)
        ]

    def fresh(self, intent: str, user: int, period: int) -> list[Word]:
        """Words for `intent` that were not said before, as far as `_REWORDINGS` attempts find any."""
        for _ in range(_REWORDINGS):
            words = self._utter(intent, user, period)
            text = " ".join(token for token, _ in words)
            if text not in self._said:
                break
        self._said.add(text)
        return words

    def _values_known(self, slot: str, period: int) -> int:
        share = (period + 1) / self._settings.periods if slot in grammar.OPEN else 1.0
        known = _FIRST_PERIOD_VALUES + (1 - _FIRST_PERIOD_VALUES) * share
        return math.ceil(known * len(grammar.VALUES[slot]))

    def _chance(self, probability: float) -> bool:
        return self._uniform() < probability

    def _pick(self, options: Sequence[T]) -> T:
        return options[int(self._uniform() * len(options))]

    def _utter(self, intent: str, user: int, period: int) -> list[Word]:
        group = self._population.groups[user]
        words: list[Word] = []
        for piece in self._pick(self._pick(grammar.TEMPLATES[intent])):
            words += self._fill(piece[1:-1], user, period) if piece[0] == "{" else [(piece, "O")]
        return self._disturb(self._frame([(self._regional(token, group), tag) for token, tag in words], group))

    def _fill(self, slot: str, user: int, period: int) -> list[Word]:
        name = grammar.TAG_OF.get(slot, slot)
        tokens = self._value(slot, user, period)
        return [(token, "O" if name is None else f"{'I' if i else 'B'}-{name}") for i, token in enumerate(tokens)]

    def _value(self, slot: str, user: int, period: int) -> list[str]:
        group = self._population.groups[user]
        if slot == "partner":
            return [self._pick(grammar.PARTNERS[group])]
        if slot in grammar.DIGIT_SLOTS:
            start, digits = grammar.DIGIT_SLOTS[slot]
            return [*start, *(self._pick(planted.DIGITS) for _ in range(digits))]
        if slot == "relation" and self._chance(_PARTNER_SHARE):
            return [self._pick(grammar.PARTNERS[self._group_spoken(group, _OWN_PARTNER_TERM)])]
        values, known = grammar.VALUES[slot], self._known[period][slot]
        if slot in grammar.HABITUAL and self._chance(self._settings.loyalty):
            return values[self._pick(self._population.favourites[slot][user]) % known].split()
        return values[int(self._uniform() * known)].split()

    def _group_spoken(self, group: str, own: float) -> str:
        """The speaker's group with probability `own`, else the other one."""
        return group if self._chance(own) else next(other for other in grammar.GROUPS if other != group)

    def _regional(self, token: str, group: str) -> str:
        other = grammar.REGIONAL.get(token)
        if other is None:
            return token
        return other if self._group_spoken(group, _OWN_WORD[group]) == "b" else token

    def _frame(self, words: list[Word], group: str) -> list[Word]:
        return self._marker(grammar.OPENERS, group) + words + self._marker(grammar.CLOSERS, group)

    def _marker(self, markers: Mapping[str, Sequence[str]], group: str) -> list[Word]:
        """An opener or closer at the rate of `marking`, mostly of the speaker's group; else nothing."""
        if not self._chance(self._settings.marking):
            return []
        marker = self._pick(markers[self._group_spoken(group, _OWN_WORD[group])])
        return [(token, "O") for token in marker.split()]

    def _disturb(self, words: list[Word]) -> list[Word]:
        """A typo and a filler, each at the rate of `noise`; partners and amounts, which decide, stay legible."""
        plain = [i for i, (token, tag) in enumerate(words) if len(token) > 3 and tag[2:] not in ("relation", "amount")]
        if plain and self._chance(self._settings.noise):
            at = self._pick(plain)
            words[at] = (self._typo(words[at][0]), words[at][1])
        if self._chance(self._settings.noise):
            at = self._pick([i for i, (_, tag) in enumerate(words) if not tag.startswith("I-")])
            words[at:at] = [(token, "O") for token in self._pick(grammar.FILLERS).split()]
        return words

    def _typo(self, token: str) -> str:
        """Two neighbouring letters swapped, or one letter lost."""
        at = int(self._uniform() * (len(token) - 1))
        if self._chance(0.5):
            return token[:at] + token[at + 1] + token[at] + token[at + 2 :]
        return token[:at] + token[at + 1 :]
