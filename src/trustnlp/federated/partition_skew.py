"""How unlike the devices of a partition are: in their labels and in their sizes.

Shape legend: K devices, L labels, N examples. `counts` (K, L) says how many examples of a label each device has.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from trustnlp import checks
from trustnlp.errors import ArgumentError
from trustnlp.federated.partition import Indices, Partition, numbered


def label_counts(partition: Partition, labels: Sequence[Hashable]) -> tuple[tuple[Hashable, ...], Indices]:
    """The labels, most frequent first (of equally frequent ones the first met), and (K, L) counts of each by device.

    Args:
        partition: of the N examples.
        labels: (N,) of all examples, or any other key.

    Raises:
        ArgumentError: not one label for each example, or a text without label.
    """
    if len(labels) != partition.examples:
        raise ArgumentError("labels", f"one for each of the {partition.examples:,} examples", len(labels))
    codes, names = numbered(labels)
    order = np.argsort(-np.bincount(codes), kind="stable")
    cells = partition.device_of * len(names) + codes
    counts = np.bincount(cells, minlength=len(partition) * len(names)).reshape(len(partition), len(names))
    return tuple(names[code] for code in order), counts[:, order]


def explained_by_device(counts: Indices) -> float:
    """Which share of the variation of labels the devices explain, adjusted for what chance explains.

    Direction: none is better; 0 is a partition at random (by chance also a little below), 1 one label a device. Of many
    devices with mixtures Dir(alpha * prior) it is about 1 / (1 + alpha), whatever their sizes: the intraclass
    correlation. Where all texts have one label, or every device has one text, nothing can be told and it is 0.

    Goodman and Kruskal's tau, which is 1 - (impurity within devices / impurity of all), adjusted as R^2 is: random
    devices explain (K - 1) / (N - 1) on average.
    Source: Goodman and Kruskal 1954, JASA 49:732-764, section 9; Light and Margolin 1971, JASA 66:534-544.

    Args:
        counts: (K, L) from `label_counts`; empty devices say nothing.
    """
    counts = _filled(counts)
    sizes, total = counts.sum(axis=1), counts.sum()
    prior = counts.sum(axis=0) / total
    impurity, spare = 1 - (prior**2).sum(), total - len(sizes)
    if spare == 0 or np.count_nonzero(prior) < 2:
        return 0.0
    within = 1 - ((counts**2).sum(axis=1) / sizes).sum() / total
    return float(1 - within / impurity * (total - 1) / spare)


def distance_to_whole(counts: Indices) -> float:
    """Mean Jensen-Shannon distance of the devices' label mixes to that of all texts, in [0, 1].

    Direction: lower is more alike; the ideal of a random partition is `random_distance` and not 0, as a device of few
    texts differs by chance. With logarithms of base 2, and the square root, which makes it a metric.
    Source: Endres and Schindelin 2003, IEEE Transactions on Information Theory 49:1858-1860.

    Args:
        counts: (K, L) from `label_counts`; empty devices say nothing.
    """
    counts = _filled(counts)
    prior = counts.sum(axis=0) / counts.sum()
    shares = counts / counts.sum(axis=1, keepdims=True)
    middle = (shares + prior) / 2
    divergences = _entropy(middle) - (_entropy(shares) + _entropy(prior)) / 2
    return float(np.sqrt(np.clip(divergences, 0, 1)).mean())


def random_distance(counts: Indices, generator: np.random.Generator) -> float:
    """`distance_to_whole` of one partition at random with the same sizes and labels: what chance alone makes.

    Args:
        counts: (K, L) from `label_counts`.
        generator: drawn from.
    """
    codes = generator.permutation(np.repeat(np.arange(counts.shape[1]), counts.sum(axis=0)))
    device = np.repeat(np.arange(len(counts)), counts.sum(axis=1))
    shuffled = np.bincount(device * counts.shape[1] + codes, minlength=counts.size).reshape(counts.shape)
    return distance_to_whole(shuffled)


def gini(sizes: Indices) -> float:
    """Gini's coefficient of the devices' sizes, in [0, 1): half their mean difference, over their mean.

    Direction: none is better; 0 is one size for all, (K - 1) / K everything on one device.
    Source: Gini 1912, Variabilità e mutabilità.

    Args:
        sizes: (K,) of at least 0, not all 0.

    Raises:
        ArgumentError: no device, or no example.
    """
    checks.not_empty("sizes", sizes)
    checks.positive("sum of sizes", int(sizes.sum()))
    ranks = np.arange(1, len(sizes) + 1)
    return float(2 * (ranks * np.sort(sizes)).sum() / (len(sizes) * sizes.sum()) - (len(sizes) + 1) / len(sizes))


def _filled(counts: Indices) -> Indices:
    checks.not_empty("counts", counts)
    checks.positive("sum of counts", int(counts.sum()))
    return counts[counts.any(axis=1)]


def _entropy(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the last axis, in bits."""
    return -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=-1)
