"""Devices and what is on each: a partitioned corpus, or texts made when a device is visited.

A population never holds more than its sizes and what is asked for, so ten million devices cost one vector.

Shape legend: K devices, N texts of a split, n_k texts of device k.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trustnlp import checks
from trustnlp.errors import ArgumentError
from trustnlp.models.protocol import Batch, Encoded

Ints = NDArray[np.int64]


class Population(Protocol):
    """K devices; to be sent to worker processes, it must be picklable."""

    @property
    def sizes(self) -> Ints:
        """(K,) how many texts each device has, its activity; a device without any is never visited."""
        ...

    def data(self, device: int) -> Encoded:
        """The texts of device `device`, 0 <= device < K; the same at every call."""
        ...


@dataclass(frozen=True)
class Part:
    """Some examples of a split, in a given order, as `protocol.Encoded` wants them."""

    whole: Encoded
    indices: Ints

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The examples at `indices` of this part."""
        return self.whole.batch(self.indices[np.asarray(indices, dtype=np.int64)])


@dataclass(frozen=True)
class Partitioned:
    """A split that is spread over devices.

    Args:
        whole: all N examples, encoded once.
        devices: for each device the numbers of its examples.

    Raises:
        ArgumentError: an index outside the split, or on two devices.
    """

    whole: Encoded
    devices: tuple[Ints, ...]

    def __post_init__(self) -> None:
        checks.not_empty("devices", self.devices)
        every = np.concatenate(self.devices)
        if len(every) and not (every.min() >= 0 and every.max() < len(self.whole)):
            raise ArgumentError("devices", f"indices of the {len(self.whole)} examples", f"up to {every.max()}")
        if len(np.unique(every)) < len(every):
            raise ArgumentError("devices", "disjoint", f"{len(every) - len(np.unique(every))} examples on two of them")

    @property
    def sizes(self) -> Ints:
        """(K,) examples of each device."""
        return np.array([len(device) for device in self.devices], dtype=np.int64)

    def data(self, device: int) -> Encoded:
        """The examples of one device."""
        return Part(self.whole, self.devices[device])


@dataclass(frozen=True)
class Generated:
    """Devices whose texts are made when they are visited, and forgotten afterwards.

    Args:
        sizes: (K,) how many texts each device has.
        make: device -> its encoded texts, always the same; as many as its size.
    """

    sizes: Ints
    make: Callable[[int], Encoded]

    def data(self, device: int) -> Encoded:
        """The texts of one device.

        Raises:
            ArgumentError: not as many as `sizes` says.
        """
        made = self.make(device)
        if len(made) != self.sizes[device]:
            raise ArgumentError("make", f"a function that gives device {device} {self.sizes[device]} texts", len(made))
        return made
