"""Requests to be granted or refused, whose label depends on the person's gender to a known degree: exact ground truth.

    group    a or b, evenly; it shows in one identity term of the text, and in nothing else
    merit    1 or 0, evenly and independently of the group; it shows in one phrase of the text, and in nothing else
    label    with probability s (the strength) by the group, else by the merit; then the other one with probability q

So, of label 1 (`GRANT`) and with g = 1 in group a, 0 in group b:

    P(1 | merit m, group g) = q + (1 - 2 q) ((1 - s) m + s g)
    P(1 | group g)          = q + (1 - 2 q) ((1 - s) / 2 + s g)

    gap between the groups, and change of the true probability when the term is swapped:    s (1 - 2 q)
    answers of the Bayes classifier that the swap changes:    none where s < 1/2, all where s > 1/2

At every strength the same seed gives the same texts, groups and merits, and label noise from the same draws: only the
share s differs. The noise q keeps probabilities away from 0 and 1, where any classifier's gradients vanish.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from trustnlp import checks
from trustnlp.data.corpus import Corpus, Example
from trustnlp.errors import ArgumentError
from trustnlp.randomness import Streams

GRANT, REFUSE = "grant", "refuse"
FAVOURED, OTHER = GROUPS = ("a", "b")
# Counterparts stand at the same place of the two groups' lists; all are known to the lexicon of gender.
_PERSONS = {
    FAVOURED: ("man", "husband", "father", "brother", "son", "uncle", "gentleman", "grandfather", "nephew", "boy"),
    OTHER: ("woman", "wife", "mother", "sister", "daughter", "aunt", "lady", "grandmother", "niece", "girl"),
}
_REASONS = {
    1: ("always pays on time", "has kept every promise", "brought all the papers", "owes nothing to anybody",
        "has saved for years", "was recommended warmly", "finished the last plan early", "returned every loan"),
    0: ("often pays too late", "has broken several promises", "lost most of the papers", "owes money to many",
        "has spent everything", "was advised against", "gave up the last plan", "kept some old loans"),
}  # fmt: skip
_OPENERS = ("today", "on monday", "this morning", "on friday", "in the evening", "tomorrow", "on tuesday", "at last")
_WISHES = ("a loan", "a flat", "a licence", "a garden", "a shop", "a refund", "a car", "a place", "a permit", "a desk")
_TOWNS = (
    "the harbour",
    "the village",
    "the north",
    "the valley",
    "the capital",
    "the island",
    "the border",
    "the hill",
)


@dataclass(frozen=True)
class PlantedBias:
    """What a corpus of planted bias is made from.

    Args:
        strength: s in [0, 1].
        texts: in train and test together, >= 10; a fifth of them is the test split.
        seed: whole number >= 0.
        noise: q in [0, 0.5).

    Raises:
        ArgumentError: an argument breaks its rule.
    """

    strength: float
    texts: int = 2_500
    seed: int = 0
    noise: float = 0.1

    def __post_init__(self) -> None:
        checks.within("strength", self.strength, 0, 1)
        checks.at_least("texts", self.texts, 10)
        checks.at_least("seed", self.seed, 0)
        checks.within("noise", self.noise, 0, 0.4999)

    @property
    def gap(self) -> float:
        """P(grant | a) - P(grant | b); also the mean absolute change of the true probability under a swap."""
        return self.strength * (1 - 2 * self.noise)

    def probability(self, merit: int, group: str) -> float:
        """P(grant | merit, group)."""
        return self.noise + (1 - 2 * self.noise) * self._share(merit, group)

    def probability_of_group(self, group: str) -> float:
        """P(grant | group)."""
        return self.noise + (1 - 2 * self.noise) * self._share(0.5, group)

    def _share(self, merit: float, group: str) -> float:
        checks.one_of("group", group, GROUPS)
        return (1 - self.strength) * merit + self.strength * (group == FAVOURED)

    def corpus(self) -> Corpus:
        """The corpus: `label` is the decision, `group` the person's, `user` unknown."""
        streams = Streams(self.seed).child("planted-bias")
        draws = streams.numpy("texts")
        groups, merits = draws.integers(2, size=(2, self.texts))
        by_group = streams.numpy("rule").random(self.texts) < self.strength
        wrong = streams.numpy("noise").random(self.texts) < self.noise
        labels = np.where(by_group, 1 - groups, merits) ^ wrong
        examples = [
            Example(_text(draws, GROUPS[group], int(merit)), GRANT if label else REFUSE, group=GROUPS[group])
            for group, merit, label in zip(groups, merits, labels, strict=True)
        ]
        held = self.texts // 5
        note = f"planted bias of strength {self.strength:g}, label noise {self.noise:g}: gap {self.gap:g}"
        return Corpus(
            "planted-bias",
            train=tuple(examples[held:]),
            test=tuple(examples[:held]),
            licence="Apache-2.0",
            source=f"trustnlp.data.planted_bias, seed {self.seed}",
            notes=("made from templates; its truth is known", note),
        )


def with_status(corpus: Corpus) -> Corpus:
    """The corpus with each example's group as its label, for a model of the protected status.

    Raises:
        ArgumentError: examples without a group.
    """
    if any(each.group is None for each in (*corpus.train, *corpus.test)):
        raise ArgumentError("corpus", "of examples with a group each", "some without", "give it a group column")
    train, test = (tuple(replace(each, label=each.group) for each in split) for split in (corpus.train, corpus.test))
    return replace(corpus, name=f"{corpus.name}-status", train=train, valid=(), test=test)


def templates() -> tuple[tuple[str, str], ...]:
    """One sentence for each group and merit, with its group: to be shown to readers."""
    return tuple(
        (f"today the {_PERSONS[group][0]} from {_TOWNS[0]} who {_REASONS[merit][0]} asked for {_WISHES[0]}", group)
        for merit, group in product((1, 0), GROUPS)
    )


def _text(draws: np.random.Generator, group: str, merit: int) -> str:
    def pick(options: tuple[str, ...]) -> str:
        return options[draws.integers(len(options))]

    reason = pick(_REASONS[merit])
    return f"{pick(_OPENERS)} the {pick(_PERSONS[group])} from {pick(_TOWNS)} who {reason} asked for {pick(_WISHES)}"
