"""The two sides of a membership attack: texts that a model was trained on, and like texts that it was not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trustnlp import checks
from trustnlp.attacks.membership import check_disjoint
from trustnlp.data.corpus import Example
from trustnlp.data.loading import LIMIT, load
from trustnlp.errors import GuaranteeError

NAMES = ("members", "non-members")
_HARDLY_EVER = 1e-6


def read(path: str | Path, **options: Any) -> tuple[tuple[Example, ...], str]:
    """All texts of a file in any format that `trustnlp.data.load` reads, whatever splits it names, and their digest.

    Args:
        options: of `load`.

    Raises:
        CorpusError, ArgumentError: the file cannot be used.
    """
    corpus = load(path, **options)
    return (*corpus.train, *corpus.valid, *corpus.test), corpus.digest


@dataclass(frozen=True)
class Sides:
    """Members and non-members, none of them on both sides.

    Args:
        members: texts that the model was trained on.
        nonmembers: texts of the same source that it was not trained on.
        digests: what tells these texts from others, one a side.

    Raises:
        ArgumentError: a side is empty.
        GuaranteeError: texts on both sides.
    """

    members: tuple[Example, ...]
    nonmembers: tuple[Example, ...]
    digests: tuple[str, str] = ("", "")

    def __post_init__(self) -> None:
        check_disjoint(*self.texts)

    @classmethod
    def read(
        cls,
        members: str | Path,
        nonmembers: str | Path,
        *,
        limit: int = LIMIT,
        group: str | None = None,
        columns: Mapping[str, str | int] | None = None,
    ) -> Sides:
        """The texts of two files.

        Raises:
            CorpusError, ArgumentError: a file cannot be used.
            GuaranteeError: texts on both sides.
        """
        sides = [read(path, limit=limit, group=group, columns=columns) for path in (members, nonmembers)]
        (inside, one), (outside, other) = sides
        return cls(inside, outside, (one, other))

    @property
    def texts(self) -> tuple[list[str], list[str]]:
        """Texts of members and of non-members."""
        return [example.text for example in self.members], [example.text for example in self.nonmembers]

    @property
    def every(self) -> tuple[Example, ...]:
        """All N texts, members first: the order of every array of scores."""
        return (*self.members, *self.nonmembers)

    @property
    def inside(self) -> NDArray[np.bool_]:
        """(N,) which of `every` are members."""
        return np.arange(len(self.every)) < len(self.members)

    def halves(self, values: Any) -> tuple[Any, Any]:
        """Values (N, ...) of all texts as those of the members and those of the non-members."""
        return values[: len(self.members)], values[len(self.members) :]

    def each(self) -> Sequence[tuple[str, tuple[Example, ...]]]:
        """The name and the texts of either side, for messages."""
        return tuple(zip(NAMES, (self.members, self.nonmembers), strict=True))

    def require(self, fpr: float) -> None:
        """Raises unless there are non-members enough to measure a false-alarm rate of `fpr`.

        Raises:
            ArgumentError: fpr outside (0, 1).
            GuaranteeError: they are too few; the message says what they can resolve and how many it takes.
        """
        checks.inside("fpr", fpr, 0, 1)
        have, needed = len(self.nonmembers), math.ceil(round(1 / fpr, 9))
        if have < needed:
            raise GuaranteeError(
                f"'fpr' must be at least 1/{have}, the smallest that {have} non-members resolve, got {fpr:g}",
                f"give at least {needed} non-members, or a larger fpr",
            )

    def by_coins(self, generator: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Texts of `every` (m,) as if a fair coin each had decided on which side it is, and how the coins fell (m,).

        m is fixed, the largest that either side can serve; with n texts a side, about 2n - 7 sqrt(n).
        """
        fewest = min(len(self.members), len(self.nonmembers))
        count = 2 * fewest
        while count > 2 and 2 * stats.binom.sf(fewest, count, 0.5) > _HARDLY_EVER:
            count -= 1
        heads = len(self.every)
        while max(heads, count - heads) > fewest:
            heads = int(generator.binomial(count, 0.5))
        drawn = generator.permutation(len(self.members))[:heads]
        others = len(self.members) + generator.permutation(len(self.nonmembers))[: count - heads]
        return np.concatenate([drawn, others]), np.arange(count) < heads
