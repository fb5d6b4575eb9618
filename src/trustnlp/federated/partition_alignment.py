"""Whether clusters read from a file belong to the texts they are said to belong to.

FedNLP clusters texts in the order in which HDF5 lists their keys (`0`, `1`, `10`, `100`, …, `2`, …) and then reads the
result as if it were in the order of their numbers. A file made so names a wrong text for nearly every cluster, and
nothing in it looks wrong: only the texts can tell.

Shape legend: N texts of a data file, n of them clustered, D width of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustnlp.errors import ArgumentError
from trustnlp.federated.feature_clusters import explained

_SHUFFLES = 30
_DEVIATIONS = 6  # of shuffled clusters: one in a billion, were they normal


class Order(StrEnum):
    """In which order clusters fit the texts."""

    NUMBERS = "numbers"
    KEYS = "keys"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Fit:
    """How well clusters fit the texts in either order.

    Args:
        by_number, by_key: `explained` variance of the texts in the order of their numbers, and of their keys.
        chance: what clusters without any relation to the texts would hardly ever explain.
    """

    by_number: float
    by_key: float
    chance: float

    @property
    def order(self) -> Order:
        """The order that fits better, if it fits better than chance; of equal fits that of the numbers."""
        if max(self.by_number, self.by_key) <= self.chance:
            return Order.UNCLEAR
        return Order.NUMBERS if self.by_number >= self.by_key else Order.KEYS


def key_order(texts: int) -> NDArray[np.int64]:
    """(N,) the number of the text that HDF5 lists first, second, …: the order of the numbers written as words."""
    return np.array(sorted(range(texts), key=str), dtype=np.int64)


def fit(
    vectors: NDArray[Any], numbers: NDArray[np.int64], clusters: NDArray[np.int64], generator: np.random.Generator
) -> Fit:
    """How well `clusters` of the texts `numbers` fit them, and how well they fit the texts whose keys come there.

    Args:
        vectors: (N, D) of all texts of the data file by number: of what they are about, or their labels as 0 and 1.
        numbers: (n,) which texts are clustered, each in [0, N).
        clusters: (n,) the cluster of each, or the device where devices are skewed by cluster.
        generator: drawn from, for the shuffles.

    Raises:
        ArgumentError: numbers outside [0, N), or not one cluster for each.
    """
    if len(numbers) != len(clusters) or not ((numbers >= 0) & (numbers < len(vectors))).all():
        raise ArgumentError("numbers", f"one for each of the {len(clusters)} clusters, below {len(vectors)}", "others")
    own = vectors[numbers]
    shuffled = np.array([explained(own, generator.permutation(clusters)) for _ in range(_SHUFFLES)])
    chance = float(shuffled.mean() + _DEVIATIONS * shuffled.std())
    return Fit(explained(own, clusters), explained(vectors[key_order(len(vectors))[numbers]], clusters), chance)
