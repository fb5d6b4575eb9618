"""Flat clipping: one threshold for a unit's whole gradient (Abadi et al. 2016, arXiv 1607.00133)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trustnlp import checks
from trustnlp.dp.adaptive_thresholds import Quantile, checked
from trustnlp.dp.clipping import Clipping


@dataclass(frozen=True)
class FlatClipping(Clipping):
    """A unit's gradient g, over all parameters together, times min(1, C / |g|).

    Sensitivity: C, for adding or removing one unit.

    Args:
        clip_norm: C > 0; to begin with, where it adapts.
        adapt: lets C follow a quantile of the norms; None keeps it.

    Raises:
        ArgumentError: `clip_norm` is not a number > 0, or `adapt` is no Quantile.
    """

    kind: ClassVar[str] = "flat"
    clip_norm: float = 1.0
    adapt: Quantile | None = None

    def __post_init__(self) -> None:
        # 1 and 1.0 are one plan and must have one digest
        object.__setattr__(self, "clip_norm", float(checks.positive("clip_norm", self.clip_norm)))
        checked(self.adapt)

    def thresholds(self, count: int) -> Tensor:
        """See `Clipping.thresholds`."""
        return torch.full((count,), self.clip_norm, dtype=torch.float64)

    def describe(self, unit: str) -> str:
        """See `Clipping.describe`."""
        follows = "" if self.adapt is None else f" at first, {self.adapt.describe()}"
        return f"the gradient of one {unit} clipped to L2 norm {self.clip_norm:g}{follows}"
