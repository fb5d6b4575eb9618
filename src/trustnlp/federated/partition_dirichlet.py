"""The draws behind skewed partitions: which labels, and how many texts, a device gets from a supply that is finite.

Shape legend: K devices, L labels.

Mixtures are kept as logarithms: at a concentration of 0.001 nearly every share of a mixture is smaller than the
smallest floating-point number, and a device whose first label has run out still needs to know its second.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustnlp import checks
from trustnlp.errors import ArgumentError

Counts = NDArray[np.int64]
_LEAST = 1e-300  # a concentration below this has no logarithm of its draw


def log_mixtures(concentrations: NDArray[Any], devices: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """(K, L) logarithms of K draws from Dir(concentrations), each up to a constant of its row.

    A Gamma(a) variable is Gamma(a + 1) * U^(1/a), which in logarithms never underflows.
    Source: Marsaglia and Tsang 2000, ACM TOMS 26:363-372, section 6.
    """
    shape = np.maximum(concentrations, _LEAST)
    size = (devices, len(shape))
    return np.log(generator.standard_gamma(shape + 1, size)) + np.log1p(-generator.random(size)) / shape


def mixtures(logs: NDArray[np.float64], allowed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(K, L) the mixtures as shares of the labels `allowed`, (L,); those of a row add up to 1."""
    masked = np.where(allowed, logs, -np.inf)
    shares = np.exp(masked - masked.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def allocate(supply: Counts, sizes: Counts, alpha: float, generator: np.random.Generator) -> Counts:
    """(K, L) how many examples of each label each device gets: mixtures Dir(alpha * prior), all of `supply` used.

    Every device draws the labels of all its places from its own mixture. Of a label that is asked for more often than
    there are examples, devices take what they ask for in an order drawn for that label, and those that went away empty
    draw again from their mixtures among the labels that are left. Every round but the last empties a label, so there
    are at most L. Devices are exchangeable: none comes last and is left with what the others did not want.

    Hence the intraclass correlation of the labels within devices is near the 1 / (1 + alpha) of the Dirichlet: within
    a tenth of it for 100 and more devices of equal sizes and alpha in [0.1, 5]. A device that is larger than the supply
    of its labels cannot be as skewed as asked; `partition_skew` measures what was attained.

    Args:
        supply: (L,) examples of each label; the prior is proportional to it.
        sizes: (K,) examples of each device, adding up to the supply.
        alpha: concentration, in (0, inf): towards 0 a device has one label while supplies last, towards infinity the
            prior.
        generator: drawn from.

    Raises:
        ArgumentError: alpha is not above 0, or the sizes do not use up the supply.
    """
    checks.positive("alpha", alpha, "give a concentration such as 0.5")
    if sizes.sum() != supply.sum():
        raise ArgumentError("sizes", f"numbers that add up to the supply of {supply.sum()}", int(sizes.sum()))
    left, needs = supply.copy(), sizes.copy()
    given = np.zeros((len(sizes), len(supply)), dtype=np.int64)
    logs = log_mixtures(alpha * supply / supply.sum(), len(sizes), generator)
    while needs.any():
        asked = generator.multinomial(needs, mixtures(logs, left > 0))
        for label in np.flatnonzero(asked.sum(axis=0) > left):
            order = generator.permutation(len(sizes))
            reached = np.minimum(asked[order, label].cumsum(), left[label])
            asked[order, label] = np.diff(reached, prepend=0)
        given += asked
        left -= asked.sum(axis=0)
        needs -= asked.sum(axis=1)
    return given


def dirichlet_sizes(examples: int, devices: int, beta: float, least: int, generator: np.random.Generator) -> Counts:
    """(K,) sizes of at least `least` that add up to `examples`: what is not reserved is shared by Dir(beta).

    Args:
        examples, devices: how many, devices * least <= examples.
        beta: concentration, in (0, inf): towards 0 one device has nearly everything, towards infinity all have the
            same.
        least: of every device, >= 0.
        generator: drawn from.
    """
    checks.positive("beta", beta, "give a concentration such as 1")
    logs = log_mixtures(np.full(devices, beta), 1, generator)
    return least + apportion(mixtures(logs, np.ones(devices, dtype=bool))[0], examples - devices * least)


def apportion(shares: NDArray[np.float64], total: int) -> Counts:
    """(K,) whole numbers as near to shares * total as adding up to `total` allows, by largest remainders.

    Args:
        shares: (K,) of at least 0 that add up to 1.
        total: >= 0.
    """
    exact = shares * total
    whole = np.floor(exact).astype(np.int64)
    first = np.argsort(whole - exact, kind="stable")[: total - int(whole.sum())]
    whole[first] += 1
    return whole
