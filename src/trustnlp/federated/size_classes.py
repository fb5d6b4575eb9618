"""Draws among devices by their activity, without a pass over them: devices of equal size are one class.

The probability of a device depends on its number of texts alone, so a draw is a draw of a class, by binary search
among D classes, and then of a member, evenly. After one sort, a cohort of m costs O(m log D) for any number of devices.
Where only some devices are available, those that are not are rejected, which leaves the draws of the others as they
would be had only those been there; a pass is made only where next to nobody is.

Shape legend: K devices with texts, D distinct sizes among them, m of a cohort.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trustnlp.errors import ArgumentError, CorpusError
from trustnlp.federated.cohort import Available, Devices, answers

Floats = NDArray[np.float64]
# How often draws are rejected before all devices are asked: enough unless fewer than about one in twenty is available.
_TRIES = 16


@dataclass(frozen=True, eq=False)
class SizeClasses:
    """Devices sorted by their number of texts.

    Args:
        sizes: (D,) the distinct numbers of texts, ascending, > 0.
        starts: (D + 1,) where each class begins among the members.
        members: (K,) devices, class after class, ascending within each.
    """

    sizes: NDArray[np.int64]
    starts: NDArray[np.int64]
    members: NDArray[np.signedinteger]

    @classmethod
    def of(cls, sizes: NDArray[np.int64]) -> SizeClasses:
        """The classes of devices with `sizes` texts each; devices without texts are left out.

        Raises:
            ArgumentError: not whole numbers >= 0 in one row.
            CorpusError: no device has a text.
        """
        sizes = np.asarray(sizes)
        if sizes.ndim != 1 or sizes.dtype.kind not in "iu" or (len(sizes) and sizes.min() < 0):
            raise ArgumentError("sizes", "whole numbers >= 0, one per device", f"{sizes.dtype} of shape {sizes.shape}")
        # A stable sort of 16-bit numbers is a radix sort.
        small = len(sizes) > 0 and sizes.max() < 2**16
        order = np.argsort(sizes.astype(np.uint16) if small else sizes, kind="stable")
        order = order[np.searchsorted(sizes, 1, sorter=order) :]
        if len(order) == 0:
            raise CorpusError("no device has a text", "partition a corpus that has some")
        ascending = sizes[order]
        starts = np.flatnonzero(np.diff(ascending, prepend=0))
        members = order.astype(np.int32) if len(sizes) < 2**31 else order
        return cls(ascending[starts].astype(np.int64), np.append(starts, len(order)), members)

    @cached_property
    def texts(self) -> int:
        """n, of all devices."""
        return int(self.counts @ self.sizes)

    @property
    def counts(self) -> NDArray[np.int64]:
        """(D,) how many devices each class has."""
        return np.diff(self.starts)

    def devices(self, places: NDArray[np.int64]) -> Devices:
        """(m,) the devices at these places among the members."""
        return self.members[places].astype(np.int64)


def even(classes: SizeClasses) -> Floats:
    """(D,) the same measure for every device."""
    return np.ones(len(classes.sizes))


def activity(classes: SizeClasses, gamma: float, mix: float = 0.0) -> Floats:
    """(D,) the probability of one device of each class in a draw: n_k^gamma over their sum, mixed with uniform.

    Args:
        classes: the devices.
        gamma: >= 0.
        mix: in [0, 1], the share of uniform draws.
    """
    power = (classes.sizes / classes.sizes[-1]) ** gamma
    return np.asarray((1 - mix) * power / (power * classes.counts).sum() + mix / classes.counts.sum())


def successive(weights: Floats, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """`count` places of `weights`, drawn one after another by their share among those left; weights of 0 come last.

    The smallest of independent exponential variables over their weights (Efraimidis and Spirakis 2006, IPL 97:181-185).
    """
    with np.errstate(divide="ignore"):
        keys = generator.standard_exponential(len(weights)) / weights
    return np.argsort(keys, kind="stable")[:count]


class Draws:
    """Draws in which a device of size n_k has a share proportional to its class's measure.

    Args:
        classes: the devices.
        measure: (D,) of one device of each class, finite and >= 0, not all 0; only its ratios matter.
    """

    def __init__(self, classes: SizeClasses, measure: Floats) -> None:
        self.classes = classes
        self._measure = measure
        self._bounds = np.cumsum(measure * classes.counts)

    @property
    def probabilities(self) -> Floats:
        """(D,) with which a single draw meets each device of a class; times counts they add up to 1."""
        return self._measure / self._bounds[-1]

    def draw(self, count: int, generator: np.random.Generator, available: Available | None = None) -> Devices:
        """(count,) independent draws, in which a device may come more than once; none if nobody is available."""
        found = self._draw(count, generator) if available is None else np.empty(0, np.int64)
        tries = 0
        while len(found) < count and tries < _TRIES:
            more = self._draw(2 * (count - len(found)), generator)
            found = np.append(found, more[answers(available, more)])[:count]
            tries += 1
        if len(found) < count:
            devices, measure = self._all(available)
            if len(devices):
                rest = generator.choice(devices, count - len(found), p=measure / measure.sum())
                found = np.append(found, rest)
        return found

    def distinct(self, count: int, generator: np.random.Generator, available: Available | None = None) -> Devices:
        """Draws without replacement, each by share among those that are left: `count` devices, or as many as there are.

        Devices that come again among independent draws are skipped, which is the same.
        """
        found = np.empty(0, np.int64)
        for _ in range(_TRIES):
            more = self._draw(2 * (count - len(found)), generator)
            every = np.append(found, more[answers(available, more)])
            found = every[np.sort(np.unique(every, return_index=True)[1])][:count]
            if len(found) == count:
                return found
        devices, measure = self._all(available)
        left = ~np.isin(devices, found)
        devices, measure = devices[left], measure[left]
        return np.append(found, devices[successive(measure, count - len(found), generator)])

    def importance(self, sizes: NDArray[np.int64], available: Available | None = None) -> Floats:
        """(m,) n_k / n over the probability of a draw of devices of these `sizes`, among those available.

        With `available`, a pass over all devices.
        """
        texts, mass = self.classes.texts, self._bounds[-1]
        if available is not None:
            there = answers(available, self.classes.devices(np.arange(len(self.classes.members))))
            counts = np.add.reduceat(there.astype(np.int64), self.classes.starts[:-1])
            texts, mass = int(counts @ self.classes.sizes), counts @ self._measure
        measure = self._measure[np.searchsorted(self.classes.sizes, sizes)]
        return (sizes / texts) / (measure / mass)

    def _draw(self, count: int, generator: np.random.Generator) -> Devices:
        """Independent draws among all devices."""
        last = len(self._bounds) - 1
        drawn = np.searchsorted(self._bounds, generator.random(count) * self._bounds[-1], side="right")
        drawn = np.minimum(drawn, last)  # rounding may reach the very end
        first, beyond = self.classes.starts[drawn], self.classes.starts[drawn + 1]
        return self.classes.devices(generator.integers(first, beyond))

    def _all(self, available: Available | None) -> tuple[Devices, Floats]:
        """All available devices that a draw can meet, with their measure."""
        devices = self.classes.devices(np.arange(len(self.classes.members)))
        measure = np.repeat(self._measure, self.classes.counts)
        there = answers(available, devices) & (measure > 0)
        return devices[there], measure[there]
