"""Canaries: made-up secrets planted in the training split, so that memorisation can be measured against the truth.

A canary is a known prefix ("my pin code is") and a secret of n tokens ("4 8 1 7"), drawn uniformly from the whole space
R of |alphabet|**n candidates and independently of everything else. A model that has not memorised the secret scores
every candidate without regard to which one was drawn, so the secret's rank is uniform on 1..|R|, and rank/|R| (ties
counted against the attack) is an exact p-value of "not memorised", whatever the model, the label or the prefix.

Source: Carlini et al. 2019, "The Secret Sharer" (exposure); Parikh, Dupuy, Gupta 2022, arXiv 2203.13920 (canaries in
intent and slot models).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np

from trustnlp import checks
from trustnlp.data.corpus import Corpus, Example
from trustnlp.errors import ArgumentError, CorpusError

DIGITS = tuple("0123456789")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
ALPHABETS = {"digits": DIGITS, "colours": COLOURS}
# How the secret's tokens are tagged; each of `positions` is a slot of one word.
TAGGINGS = ("outside", "slot", "positions")

# No two share a last word or two neighbouring words: one canary tells a model little about how another goes on.
PREFIXES = (
    "my pin code is",
    "the vault opens with",
    "our locker combination reads",
    "burglar alarm panel expects",
    "type at garage keypad",
    "voicemail password remains",
    "his bicycle lock turns",
    "safe deposit box wants",
    "gate intercom accepts",
    "her laptop unlocks after",
    "suitcase dial says",
    "wifi key begins",
    "badge number ends",
    "parental control asks",
    "membership card shows",
    "office door needs",
    "bank token produced",
    "sim unlock sequence equals",
    "cabin keybox holds",
    "gym wardrobe takes",
    "printer release demands",
    "boat ignition requires",
    "archive cabinet obeys",
    "hotel minibar knows",
)


@dataclass(frozen=True)
class Canary:
    """One secret, what surrounds it, and how often it is planted.

    Args:
        prefix: the tokens before the secret, known to an attacker.
        secret: the tokens to be found, each from `alphabet`.
        label: the intent or class; None for a language-model corpus.
        tags: one BIO tag per token of prefix and secret; None where slots are not labelled.
        repetitions: copies in the training split, >= 0; 0 makes a control that no model can have memorised.
        alphabet: the candidate tokens at each position of the secret, distinct.

    Raises:
        ArgumentError: a field breaks its rule.
    """

    prefix: tuple[str, ...]
    secret: tuple[str, ...] = field(repr=False)  # kept out of logs and error messages
    label: str | None
    tags: tuple[str, ...] | None
    repetitions: int
    alphabet: tuple[str, ...] = DIGITS

    def __post_init__(self) -> None:
        checks.not_empty("prefix", self.prefix)
        checks.not_empty("secret", self.secret)
        checks.at_least("repetitions", self.repetitions, 0)
        if any(token.split() != [token] for token in (*self.prefix, *self.alphabet)):
            raise ArgumentError("prefix", "tokens without white space, as the alphabet", self.prefix)
        if len(set(self.alphabet)) < max(2, len(self.alphabet)):
            raise ArgumentError("alphabet", "at least two distinct tokens", self.alphabet)
        self.example()

    @property
    def space(self) -> int:
        """|R|, the number of candidates: |alphabet| ** len(secret)."""
        return len(self.alphabet) ** len(self.secret)

    def candidates(self) -> Iterator[tuple[str, ...]]:
        """Every possible secret once, in the alphabet's order, the last position turning fastest."""
        return itertools.product(self.alphabet, repeat=len(self.secret))

    @property
    def number(self) -> int:
        """The place of the secret among the candidates, in [0, space)."""
        return reduce(lambda before, token: before * len(self.alphabet) + self.alphabet.index(token), self.secret, 0)

    def candidate(self, number: int) -> tuple[str, ...]:
        """The candidate of that number, 0 <= number < space, in the order of `candidates`."""
        checks.within("number", number, 0, self.space - 1)
        powers = (len(self.alphabet) ** place for place in range(len(self.secret) - 1, -1, -1))
        return tuple(self.alphabet[number // power % len(self.alphabet)] for power in powers)

    def example(self, secret: Sequence[str] | None = None) -> Example:
        """The canary as an example, with its own secret or with the candidate `secret`.

        Raises:
            ArgumentError: `secret` has another length or leaves the alphabet.
        """
        secret = self.secret if secret is None else tuple(secret)
        if len(secret) != len(self.secret) or not set(secret) <= set(self.alphabet):
            raise ArgumentError("secret", f"{len(self.secret)} tokens of the alphabet", secret)
        return Example(" ".join((*self.prefix, *secret)), self.label, self.tags)


def design(
    corpus: Corpus,
    *,
    generator: np.random.Generator,
    repetitions: Sequence[int] = (1, 4, 16),
    per_count: int = 2,
    length: int = 4,
    alphabet: str = "digits",
    prefixes: Sequence[str] = PREFIXES,
    labels: Sequence[str] | None = None,
    label: str | None = None,
    tags: str = "outside",
    slot: str = "pin",
) -> tuple[Canary, ...]:
    """`per_count` canaries for each count of `repetitions`, fit for `corpus`; each has a prefix of its own.

    The secret is uniform and independent of everything else. The label is drawn from `labels`, and every tag is `O`:
    what a model would not guess must be memorised. A corpus without labels or tags gets canaries without them.

    A label or tags that no other text has stand for the canaries alone, which makes secrets easier to read out; a
    control then needs a model that was told of them all the same.

    Args:
        corpus: where they will be planted.
        generator: draws secrets, prefixes and labels.
        repetitions: copies of each canary; 0 makes controls.
        per_count: canaries per entry of `repetitions`, >= 1.
        length: tokens of a secret, >= 1.
        alphabet: `digits` or `colours`, ten tokens each.
        prefixes: what to draw prefixes from, without replacement.
        labels: what to draw labels from; the corpus's own if None.
        label: the label of all canaries instead, which may be new to the corpus.
        tags: of the secret: `outside` (`O`), `slot` (`B-pin I-pin ...`) or `positions` (`B-pin1 B-pin2 ...`).
        slot: what `slot` and `positions` call it; may be new to the corpus.

    Raises:
        ArgumentError: an argument breaks its rule, prefixes are too few, or one occurs within another or in the corpus
            (how that goes on would compete with the secret); or a label or slot for a corpus without any.
    """
    checks.not_empty("repetitions", repetitions)
    checks.at_least("per_count", per_count, 1)
    checks.at_least("length", length, 1)
    tokens = ALPHABETS[checks.one_of("alphabet", alphabet, ALPHABETS)]
    counts = [count for count in repetitions for _ in range(per_count)]
    chosen = _choose_prefixes(corpus, prefixes, len(counts), generator)
    labels = _labels(corpus, labels, label)
    secret_tags = _secret_tags(corpus, tags, slot, length)

    def canary(prefix: str, count: int) -> Canary:
        secret = tuple(tokens[i] for i in generator.integers(len(tokens), size=length))
        label = labels[int(generator.integers(len(labels)))] if labels else None
        words = tuple(prefix.split())
        tags = (*["O"] * len(words), *secret_tags) if corpus.tags else None
        return Canary(words, secret, label, tags, count, tokens)

    return tuple(canary(prefix, count) for prefix, count in zip(chosen, counts, strict=True))


def random_codes(canary: Canary, count: int, generator: np.random.Generator) -> tuple[Example, ...]:
    """`count` texts like the canary's, with other secrets: all different, uniform among those that are not its own.

    Planted as background, they teach a model what such a text looks like, and leave only the secret to be memorised.
    Given them, the secret is uniform among |R| - count candidates: by chance, it is guessed with probability at most
    1 / (|R| - count), and has rank r or better with probability at most r / (|R| - count).

    Raises:
        ArgumentError: `count` < 1, or more than there are other secrets.
    """
    if checks.at_least("count", count, 1) >= canary.space:
        raise ArgumentError("count", f"below the canary's {canary.space} candidates", count)
    own = canary.number
    numbers = generator.choice(canary.space - 1, size=count, replace=False)
    return tuple(canary.example(canary.candidate(number + (number >= own))) for number in numbers.tolist())


def vocabulary(corpus: Corpus) -> tuple[str, ...]:
    """The distinct tokens of the training split, sorted: for an attacker who knows nothing of how secrets look."""
    return tuple(sorted({token for example in corpus.train for token in example.tokens}))


def plant(
    corpus: Corpus, canaries: Sequence[Canary], generator: np.random.Generator, background: Sequence[Example] = ()
) -> Corpus:
    """A new corpus with each canary's copies, and the background, at random places of its training split.

    `valid` and `test` stay as they are: a secret there would steer early stopping. Where texts have users, each canary
    has one owner (distinct while users last), and each copy takes user, group and time of an example of its owner;
    elsewhere, group and time of any training example. So does each text of the background.

    Args:
        corpus: neither it nor its splits are changed.
        canaries: those without repetitions are left out.
        generator: draws places and owners.
        background: texts like theirs, see `random_codes`.

    Raises:
        ArgumentError: a canary or a text of the background lacks the label or tags that the corpus has, or has some
            that the corpus lacks.
        CorpusError: a canary's text is in the corpus or in the background, or given twice.
    """
    checks.not_empty("canaries", canaries)
    _refuse_unlabelled(corpus, canaries, background)
    _refuse_planted(corpus, canaries, background)
    copies = [
        copy
        for canary, hosts in _hosts(corpus, canaries, generator)
        for copy in _placed([canary.example()] * canary.repetitions, hosts, generator)
    ]
    note = f"{len(copies)} copies of {len(canaries)} canaries planted in the training split"
    if background:
        copies += _placed(background, corpus.train, generator)
        note += f", among {len(background)} texts like theirs"
    train = _scatter(corpus.train, copies, generator)
    return replace(corpus, train=train, notes=(*corpus.notes, note))


def _choose_prefixes(
    corpus: Corpus, prefixes: Sequence[str], number: int, generator: np.random.Generator
) -> Iterable[str]:
    padded = [f" {' '.join(prefix.split())} " for prefix in prefixes]
    if any(one in other for one, other in itertools.permutations(padded, 2)):
        raise ArgumentError("prefixes", "distinct, none within another", prefixes)
    if number > len(padded):
        raise ArgumentError("prefixes", f"at least as many as there are canaries ({number})", len(padded), "give more")
    texts = [f" {' '.join(example.tokens)} " for example in _everything(corpus)]
    used = [prefix.strip() for prefix in padded if any(prefix in text for text in texts)]
    if used:
        raise ArgumentError("prefixes", "absent from the corpus", used, "give others")
    return [padded[i].strip() for i in generator.permutation(len(padded))[:number]]


def _labels(corpus: Corpus, labels: Sequence[str] | None, label: str | None) -> Sequence[str]:
    """What to draw labels from; empty where the corpus has none."""
    if label is not None:
        if labels is not None or not corpus.labels:
            raise ArgumentError("label", "given for a corpus with labels, and without 'labels'", label)
        return (label,)
    if labels is None:
        return corpus.labels
    if not labels or not set(labels) <= set(corpus.labels):
        raise ArgumentError("labels", "labels of the corpus", labels, "give a new one as 'label'")
    return labels


def _secret_tags(corpus: Corpus, tagging: str, slot: str, length: int) -> tuple[str, ...]:
    checks.one_of("tags", tagging, TAGGINGS)
    if tagging == "outside":
        return ("O",) * length
    if not corpus.tags:
        raise ArgumentError("tags", "'outside' for a corpus without slot tags", tagging)
    if tagging == "slot":
        return (f"B-{slot}", *[f"I-{slot}"] * (length - 1))
    return tuple(f"B-{slot}{place}" for place in range(1, length + 1))


def _everything(corpus: Corpus) -> Iterable[Example]:
    return itertools.chain(corpus.train, corpus.valid, corpus.test)


def _refuse_unlabelled(corpus: Corpus, canaries: Sequence[Canary], background: Sequence[Example]) -> None:
    for name, texts in (("canaries", canaries), ("background", background)):
        for text in texts:
            if (text.label is None) == bool(corpus.labels) or (text.tags is None) == bool(corpus.tags):
                raise ArgumentError(name, "labelled and tagged as the corpus is", text, "use 'design'")


def _refuse_planted(corpus: Corpus, canaries: Sequence[Canary], background: Sequence[Example]) -> None:
    texts = [canary.example().text for canary in canaries]
    present = {" ".join(example.tokens) for example in (*_everything(corpus), *background)}
    if len(set(texts)) < len(texts) or not present.isdisjoint(texts):
        raise CorpusError(
            f"a canary is in corpus {corpus.name!r} or its background already, or given twice",
            "plant each canary once, in the original corpus",
        )


def _hosts(
    corpus: Corpus, canaries: Sequence[Canary], generator: np.random.Generator
) -> Iterator[tuple[Canary, Sequence[Example]]]:
    """Each canary with the training examples whose user, group and time its copies may take."""
    if not corpus.users:
        yield from ((canary, corpus.train) for canary in canaries)
        return
    owners = generator.choice(len(corpus.users), size=len(canaries), replace=len(canaries) > len(corpus.users))
    for canary, owner in zip(canaries, owners, strict=True):
        yield canary, [example for example in corpus.train if example.user == corpus.users[owner]]


def _placed(texts: Sequence[Example], hosts: Sequence[Example], generator: np.random.Generator) -> Iterable[Example]:
    """Each text with the user, group and time of a random host."""
    for text, i in zip(texts, generator.integers(len(hosts), size=len(texts)), strict=True):
        yield replace(text, user=hosts[i].user, group=hosts[i].group, time=hosts[i].time)


def _scatter(
    examples: Sequence[Example], copies: Sequence[Example], generator: np.random.Generator
) -> tuple[Example, ...]:
    """`examples` in their order, with `copies` in random order at uniformly random places among them."""
    total = len(examples) + len(copies)
    places = generator.choice(total, size=len(copies), replace=False)  # in random order
    placed = dict(zip(places.tolist(), copies, strict=True))
    rest = iter(examples)
    return tuple(placed[i] if i in placed else next(rest) for i in range(total))
