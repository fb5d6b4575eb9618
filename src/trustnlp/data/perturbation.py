"""Copies of a text that mean nearly the same: some words are lost, some neighbours change places."""

from __future__ import annotations

import numpy as np

from trustnlp import checks


def perturbed(text: str, share: float, generator: np.random.Generator) -> str:
    """The text with `share` of its words, at least one, deleted or swapped with the next, by a coin each.

    The last word that is left is never deleted, so a text of one word stays as it is.

    Raises:
        ArgumentError: share outside (0, 1].
    """
    words = text.split()
    return " ".join(words[place] for place in perturbed_places(len(words), share, generator))


def perturbed_places(words: int, share: float, generator: np.random.Generator) -> list[int]:
    """Which words of a text of so many `perturbed` keeps, in their new order: 0-based places in the text.

    Raises:
        ArgumentError: share outside (0, 1].
    """
    checks.within("share", checks.positive("share", share), 0, 1)
    places = list(range(words))
    for _ in range(max(1, round(share * words))):
        if len(places) < 2:
            break
        place = int(generator.integers(len(places) - 1))
        if generator.random() < 0.5:
            del places[place + int(generator.integers(2))]
        else:
            places[place], places[place + 1] = places[place + 1], places[place]
    return places
