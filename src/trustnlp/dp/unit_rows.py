"""Physical batches of whole units, and the rows of a unit laid one after the other as if they were one long text.

Shape legend: U units, R rows of the longest unit, B = rows of all units together, T positions.

A unit's gradient is a sum over the positions of all its rows, so whatever clips one example clips a unit once the
unit's rows are joined: (B, T, D) becomes (U, R * T, D), with zeros where a unit has fewer rows than another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from trustnlp.dp.clipping import Unit


class UnitRows:
    """Some units of a draw that go through the model together.

    Args:
        units: of one row or more each.
        numbers: their places in the draw.

    Attributes:
        rows: (B,) indices of the examples, unit by unit.
        weights: (U,) the units' weights.
    """

    def __init__(self, units: Sequence[Unit], numbers: Sequence[int]) -> None:
        self.numbers = list(numbers)
        self.rows = np.concatenate([unit.rows for unit in units])
        self.weights = torch.tensor([unit.weight for unit in units], dtype=torch.float64)
        self._sizes = [len(unit.rows) for unit in units]
        self._width = max(self._sizes)
        self._places: Tensor | None = None

    @property
    def of_one_row(self) -> bool:
        """Whether every unit is one example."""
        return self._width == 1

    @classmethod
    def single(cls, count: int) -> UnitRows:
        """Units of one row each, `count` of them."""
        return cls([Unit(np.array([row])) for row in range(count)], range(count))

    def joined(self, tensor: Tensor) -> Tensor:
        """(U, R * T, ...) from (B, T, ...)."""
        if self.of_one_row:
            return tensor
        units, rest = len(self._sizes), tensor.shape[1:]
        if len(self.rows) < units * self._width:
            if self._places is None:
                starts = [number * self._width + row for number, size in enumerate(self._sizes) for row in range(size)]
                self._places = torch.tensor(starts, device=tensor.device)
            tensor = tensor.new_zeros(units * self._width, *rest).index_copy_(0, self._places, tensor)
        return tensor.reshape(units, self._width * rest[0], *rest[1:])


def packed(units: Sequence[Unit], size: int) -> tuple[list[UnitRows], list[int]]:
    """The units in physical batches of `size` rows, zeros included, and the numbers of units too large for one.

    Units without rows are in neither: their gradient is 0.
    """
    fitting = [number for number, unit in enumerate(units) if 0 < len(unit.rows) <= size]
    large = [number for number, unit in enumerate(units) if len(unit.rows) > size]
    return [UnitRows([units[i] for i in part], part) for part in _parts(units, fitting, size)], large


def _parts(units: Sequence[Unit], numbers: Sequence[int], size: int) -> Iterator[list[int]]:
    part: list[int] = []
    width = 0
    for number in numbers:
        width = max(width, len(units[number].rows))
        if part and (len(part) + 1) * width > size:
            yield part
            part, width = [], len(units[number].rows)
        part.append(number)
    if part:
        yield part
