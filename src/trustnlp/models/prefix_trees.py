"""Texts that begin alike, as one row for a causal model: what they share is computed once.

    the man cooks          the ─┬─ man ─── cooks
    the woman cooks             └─ woman ─┬─ cooks
    the woman codes                       └─ codes

A tree is a row of tokens. Each token attends to those on the way to the root, and has the position that it has in its
text, so that it gets the hidden state that it would have alone (tree attention, Miao et al. 2024, SpecInfer). Texts are
taken in the order of a dictionary, in which neighbours share the most.

Shape legend: L tokens of a tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Row = tuple[int, ...]


@dataclass
class Tree:
    """Tokens in an order in which parents come first.

    Args:
        ids: L tokens.
        parents: of each, its number in the tree; -1 at the root.
        depths: of each, its position in its texts.
    """

    ids: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def extend(self, way: Sequence[int], tokens: Sequence[int]) -> list[int]:
        """The way to the last of `tokens`, which are added behind the token that `way` leads to."""
        new = range(len(self), len(self) + len(tokens))
        self.parents += [way[-1] if way else -1, *new][: len(tokens)]
        self.depths += range(len(way), len(way) + len(tokens))
        self.ids += tokens
        return [*way, *new]

    def sight(self) -> NDArray[np.bool_]:
        """(L, L) whether the token of a row attends to that of a column: to itself and what is before it."""
        seen = np.eye(len(self), dtype=bool)
        for number, parent in enumerate(self.parents):
            if parent >= 0:
                seen[number] |= seen[parent]
        return seen


def grow(rows: Sequence[Row], largest: int) -> tuple[list[Tree], list[tuple[int, list[int]]]]:
    """Trees of at most `largest` tokens, and for each row its tree and where in it its tokens are, in order.

    Args:
        rows: of 1 to `largest` tokens each.
        largest: a tree is filled with rows that begin alike until the next one does not fit.
    """
    trees: list[Tree] = []
    places: dict[int, tuple[int, list[int]]] = {}
    before: Row = ()
    way: list[int] = []
    for number in sorted(range(len(rows)), key=rows.__getitem__):
        row = rows[number]
        shared = _alike(before, row)
        if shared == 0 or len(trees[-1]) + len(row) - shared > largest:
            trees.append(Tree())
            shared = 0
        way = trees[-1].extend(way[:shared], row[shared:])
        places[number] = len(trees) - 1, way
        before = row
    return trees, [places[number] for number in range(len(rows))]


def _alike(one: Row, other: Row) -> int:
    """How many tokens both begin with."""
    for number, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return number
    return min(len(one), len(other))
