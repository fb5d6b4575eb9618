"""A uniform sample of a stream whose length is not known, in one pass and in the memory of the sample."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeVar

import numpy as np

from trustnlp import checks

T = TypeVar("T")


def sample(items: Iterable[T], size: int, generator: np.random.Generator) -> tuple[list[T], int]:
    """At most `size` of `items`, each subset as likely as another, in their order; and how many items there were.

    Algorithm L of Li 1994, "Reservoir-sampling algorithms of time complexity O(n(1 + log(N/n)))": instead of drawing
    for each item, it draws how many to skip.

    Args:
        items: any stream.
        size: how many to keep, at least 1; all are kept, and nothing is drawn, if there are no more.
        generator: what is drawn from.
    """
    checks.at_least("size", size, 1)
    kept: list[tuple[int, T]] = []
    count, replaced_next, weight = 0, -1, 1.0
    for place, item in enumerate(items):
        count = place + 1
        if place < size:
            kept.append((place, item))
            continue
        if place == size:
            weight, replaced_next = _next(weight, size, place - 1, generator)
        if place == replaced_next:
            kept[int(generator.integers(size))] = (place, item)
            weight, replaced_next = _next(weight, size, place, generator)
    return [item for _, item in sorted(kept, key=lambda entry: entry[0])], count


def _next(weight: float, size: int, place: int, generator: np.random.Generator) -> tuple[float, int]:
    # 1 - random() lies in (0, 1], so that its logarithm is finite.
    weight *= math.exp(math.log(1 - generator.random()) / size)
    skipped = math.floor(math.log(1 - generator.random()) / math.log1p(-weight)) if weight < 1 else 0
    return weight, place + skipped + 1
