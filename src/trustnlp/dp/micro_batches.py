"""Micro-batch clipping, the scheme of eDP-SGD (Dupuy et al. 2022, arXiv 2107.14586), with an honest guarantee.

A draw is split into m = L / size micro-batches, whose gradients are clipped as one each and added up: one ordinary
backward per micro-batch, for any model. Two things make the guarantee hold:

- one example more or less moves one micro-batch's clipped gradient from anywhere to anywhere within the threshold, so
  by up to **twice** the threshold, and the noise is calibrated to that (arXiv 2303.00654, section 5.6);
- each example's micro-batch is drawn independently of the other examples. Cutting the draw into consecutive chunks
  instead would shift everybody behind a removed example, and void the guarantee.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from trustnlp import checks
from trustnlp.dp.adaptive_thresholds import Quantile, checked
from trustnlp.dp.clipping import ClippedSumFunction, Clipping, Parameters, Unit, per_unit_clipped_sum
from trustnlp.dp.layerwise_clipping import layers
from trustnlp.errors import ArgumentError


@dataclass(frozen=True)
class MicroBatchClipping(Clipping):
    """The mean gradient of a micro-batch, clipped as one: cheap, and dearer in noise than clipping every example.

    Sensitivity: 2 C, for adding or removing one example.

    Args:
        size: examples in a micro-batch on average; the expected batch must be a multiple of it.
        clip_norm: C > 0, for all parameters together.
        by_layer: clip every layer by its own C_k instead, C / sqrt(K) to begin with.
        adapt: lets thresholds follow a quantile of the micro-batches' norms, 0 for an empty one; None keeps them.

    Raises:
        ArgumentError: `size` below 1, `clip_norm` is not a number > 0, or `adapt` is no Quantile.
    """

    kind: ClassVar[str] = "microbatch"
    sensitivity: ClassVar[float] = 2.0
    size: int = 16
    clip_norm: float = 1.0
    by_layer: bool = False
    adapt: Quantile | None = None

    def __post_init__(self) -> None:
        checks.at_least("size", self.size, 1)
        object.__setattr__(self, "clip_norm", float(checks.positive("clip_norm", self.clip_norm)))
        object.__setattr__(self, "by_layer", bool(self.by_layer))
        checked(self.adapt)

    def groups(self, model: nn.Module, parameters: Parameters) -> dict[str, int]:
        """See `Clipping.groups`."""
        return layers(model, parameters) if self.by_layer else super().groups(model, parameters)

    def thresholds(self, count: int) -> Tensor:
        """See `Clipping.thresholds`."""
        return torch.full((count,), self.clip_norm / count**0.5, dtype=torch.float64)

    def units(self, indices: np.ndarray, expected: int, generator: np.random.Generator) -> list[Unit]:
        """See `Clipping.units`; each example's micro-batch is drawn independently, so sizes vary and may be 0."""
        count = self._count(expected)
        places = generator.integers(count, size=len(indices))
        return [Unit(indices[places == place], 1 / self.size) for place in range(count)]

    def normaliser(self, expected: int) -> float:
        """See `Clipping.normaliser`: the number of micro-batches."""
        return float(self._count(expected))

    def _count(self, expected: int) -> int:
        if expected % self.size:
            raise ArgumentError("size", f"a divisor of the expected batch ({expected})", self.size)
        return expected // self.size

    def sum_function(self) -> ClippedSumFunction:
        """See `Clipping.sum_function`: a micro-batch needs no more than its own backward."""
        return per_unit_clipped_sum

    def describe(self, unit: str) -> str:
        """See `Clipping.describe`."""
        follows = "" if self.adapt is None else f" at first, {self.adapt.describe()}"
        norm = f"{self.clip_norm:g} / sqrt(K) in each of K layers" if self.by_layer else f"{self.clip_norm:g}"
        return (
            f"the mean gradient of micro-batches of {self.size} on average, to which every {unit} is assigned at "
            f"random, clipped to L2 norm {norm}{follows}; one {unit} moves the sum by up to twice that"
        )
