"""A uniform sample of a stream whose length is not known, in one pass and in the memory of the sample."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Generic, TypeVar

import numpy as np

from trustnlp import checks

T = TypeVar("T")


class Reservoir(Generic[T]):
    """A uniform sample of the items offered so far, in the memory of the sample.

    Algorithm L of Li 1994, "Reservoir-sampling algorithms of time complexity O(n(1 + log(N/n)))": instead of drawing
    for each item, it draws how many to skip.

    Args:
        size: how many to keep, at least 1; all are kept, and nothing is drawn, if no more are offered.
        generator: what is drawn from.
    """

    def __init__(self, size: int, generator: np.random.Generator) -> None:
        self.count = 0
        self._size = checks.at_least("size", size, 1)
        self._generator = generator
        self._kept: list[tuple[int, T]] = []
        self._replaced_next, self._weight = -1, 1.0

    def offer(self, item: T) -> None:
        """Keep the item, perhaps in the place of another."""
        place, self.count = self.count, self.count + 1
        if place < self._size:
            self._kept.append((place, item))
            return
        if place == self._size:
            self._weight, self._replaced_next = _next(self._weight, self._size, place - 1, self._generator)
        if place == self._replaced_next:
            self._kept[int(self._generator.integers(self._size))] = (place, item)
            self._weight, self._replaced_next = _next(self._weight, self._size, place, self._generator)

    @property
    def items(self) -> list[T]:
        """What is kept, each subset of the items offered as likely as another, in their order."""
        return [item for _, item in sorted(self._kept, key=lambda entry: entry[0])]


def sample(items: Iterable[T], size: int, generator: np.random.Generator) -> tuple[list[T], int]:
    """At most `size` of `items`, each subset as likely as another, in their order; and how many items there were.

    Args:
        items: any stream.
        size, generator: as for `Reservoir`.
    """
    reservoir: Reservoir[T] = Reservoir(size, generator)
    for item in items:
        reservoir.offer(item)
    return reservoir.items, reservoir.count


def _next(weight: float, size: int, place: int, generator: np.random.Generator) -> tuple[float, int]:
    # 1 - random() lies in (0, 1], so that its logarithm is finite.
    weight *= math.exp(math.log(1 - generator.random()) / size)
    skipped = math.floor(math.log(1 - generator.random()) / math.log1p(-weight)) if weight < 1 else 0
    return weight, place + skipped + 1
