"""A partition as a finding: how unlike its devices are, and what a picture of it needs, in aggregates without texts."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustnlp.federated import partition_skew
from trustnlp.federated.partition import Indices, Partition
from trustnlp.results import Finding

ID = "partition"
OTHER = "other labels"
_COLUMNS = 40
_ROWS = 20
_RANKS = 80
_LEAST_USERS = 5  # of a column: nobody's own mix of labels is in a report


def finding(partition: Partition, labels: Sequence[Hashable], generator: np.random.Generator) -> Finding:
    """What is to be said and drawn of a partition.

    The value is `partition_skew.explained_by_device`. The details hold, beside its companions, `columns`: devices put
    in order by their commonest label and then merged into at most 40 columns of as many devices each (at least 5 where
    a device is a user), with the mean share of each label in them; and `sizes`, how many texts the most active, second
    most active, … device has, at no more than 80 ranks.

    Args:
        partition: of N examples.
        labels: (N,) the label of each, or the key that was skewed: `label_of`, a cluster.
        generator: drawn from, for the distance that chance alone makes.

    Raises:
        ArgumentError: not one label for each example, or a text without label.
    """
    names, counts = partition_skew.label_counts(partition, labels)
    counts = counts[counts.any(axis=1)]
    asked = partition.details.get("alpha") if partition.method in {"label", "cluster"} else None
    details: dict[str, Any] = {
        "spread": str(partition),
        "texts": partition.examples,
        "devices": len(partition),
        "distance_to_whole": partition_skew.distance_to_whole(counts),
        "distance_by_chance": partition_skew.random_distance(counts, generator),
        "gini_of_sizes": partition_skew.gini(partition.sizes),
        **({} if asked is None else {"asked": 1 / (1 + asked)}),
        "labels": _row_names(names),
        "prior": _rows(counts.sum(axis=0)[None] / partition.examples)[0],
        "columns": _columns(counts, _LEAST_USERS if partition.method == "user" else 1),
        "sizes": _sizes(partition.sizes),
    }
    return Finding(
        ID,
        "Variation of labels explained by the device",
        partition_skew.explained_by_device(counts),
        n=partition.examples,
        source="Goodman and Kruskal 1954, tau, adjusted for chance; counted",
        details=details,
    )


def _columns(counts: Indices, least: int) -> list[dict[str, Any]]:
    """Devices of like labels side by side, merged where there are too many to tell apart."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    commonest = shares.argmax(axis=1)
    order = np.lexsort((-shares.max(axis=1), commonest))
    groups = np.array_split(order, max(1, min(_COLUMNS, len(order) // least)))
    return [{"devices": len(own), "shares": _rows(shares[own].mean(axis=0)[None])[0]} for own in groups]


def _rows(shares: NDArray[np.float64]) -> list[list[float]]:
    """The shares of the labels that have a row; the last row is all others where there are too many."""
    if shares.shape[1] > _ROWS:
        shares = np.concatenate([shares[:, : _ROWS - 1], shares[:, _ROWS - 1 :].sum(axis=1, keepdims=True)], axis=1)
    return [[round(float(share), 4) for share in row] for row in shares]


def _row_names(names: Sequence[Hashable]) -> list[str]:
    shown = [str(name) for name in names]
    return shown if len(shown) <= _ROWS else [*shown[: _ROWS - 1], OTHER]


def _sizes(sizes: Indices) -> list[dict[str, int]]:
    """Sizes by rank, and how many texts all devices up to that rank have."""
    falling = np.sort(sizes)[::-1]
    ranks = np.unique(np.geomspace(1, len(sizes), _RANKS).round().astype(int))
    reached = falling.cumsum()
    return [{"rank": int(r), "size": int(falling[r - 1]), "reached": int(reached[r - 1])} for r in ranks]
