"""Automatic clipping, AUTO-S: normalisation in place of a threshold (Bu et al. 2022, arXiv 2206.07136)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trustnlp import checks
from trustnlp.dp.clipping import Clipping


@dataclass(frozen=True)
class AutomaticClipping(Clipping):
    """A unit's gradient g, over all parameters together, times 1 / (|g| + stability): nothing is left to tune.

    Sensitivity: 1, for adding or removing one unit.

    Args:
        stability: > 0; keeps short gradients shorter than long ones.

    Raises:
        ArgumentError: `stability` is not a number > 0.
    """

    kind: ClassVar[str] = "automatic"
    stability: float = 0.01

    def __post_init__(self) -> None:
        object.__setattr__(self, "stability", float(checks.positive("stability", self.stability)))

    def thresholds(self, count: int) -> Tensor:
        """See `Clipping.thresholds`: what is normalised is shorter than 1."""
        return torch.ones(count, dtype=torch.float64)

    def factors(self, norms: Tensor, thresholds: Tensor) -> Tensor:
        """See `Clipping.factors`."""
        return thresholds / (norms + self.stability)

    def describe(self, unit: str) -> str:
        """See `Clipping.describe`."""
        return f"the gradient g of one {unit} normalised to g / (|g| + {self.stability:g})"
