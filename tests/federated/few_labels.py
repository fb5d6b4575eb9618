"""A small corpus of which the server knows few labels, and a small model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from trustnlp import models
from trustnlp.data.corpus import Corpus, Example
from trustnlp.data.synthetic import corpus
from trustnlp.models.heads import NLUModel
from trustnlp.randomness import Streams

TINY = {"buckets": 512, "width": 32, "char_filters": 0, "hidden": 24, "dropout": 0.0, "word_dropout": 0.0}
INTENTS = 8


@cache
def assistant(size: int = 3000, *, tags: bool = False) -> Corpus:
    """Utterances of the synthetic assistant with its first intents; without slots unless `tags`."""
    whole = corpus(size, 50, ambiguity=0.0, noise=0.0, seed=1, canaries=False)
    kept = set(whole.labels[:INTENTS])

    def some(examples: Sequence[Example]) -> tuple[Example, ...]:
        found = (example for example in examples if example.label in kept)
        return tuple(example if tags else replace(example, tags=None) for example in found)

    return replace(whole, train=some(whole.train), valid=some(whole.valid), test=some(whole.test))


def tiny(given: Corpus, **options: float) -> NLUModel:
    """A small model, without dropout unless `options` say so."""
    return models.build("bilstm", given, streams=Streams(0), **{**TINY, **options})


def few_of_each(examples: Sequence[Example], each: int) -> tuple[list[Example], list[Example]]:
    """The first `each` of every label, and the rest."""
    taken: dict[str | None, int] = {}
    few, rest = [], []
    for example in examples:
        taken[example.label] = taken.get(example.label, 0) + 1
        (few if taken[example.label] <= each else rest).append(example)
    return few, rest


def dealt(examples: int, devices: int) -> tuple[np.ndarray, ...]:
    """Their indices, dealt in turn."""
    return tuple(np.arange(examples)[device::devices] for device in range(devices))
