"""Thresholds that follow a quantile of the gradient norms, paid for out of the step's budget.

Shape legend: U units, K groups.

Andrew et al. 2021 (arXiv 1905.03871): every step also releases, for each group, a noisy fraction of units whose norm
is within the threshold, and the threshold goes down where more units are within than wanted and up where fewer are:

    C <- C exp(-rate (fraction within - quantile))

Gradients and fractions together are one Gaussian release with the step's noise multiplier z. With a share r of the
budget for the fractions, z_gradient = z / sqrt(1 - r), and the K fractions, each of which one unit moves by half a
count once 1/2 is subtracted, get noise sigma_b with K / (2 sigma_b)^2 = r / z^2 (their equation for z_delta, K = 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trustnlp import checks
from trustnlp.errors import ArgumentError

# Where thresholds stop. The gradients of a layer that the loss does not reach are 0 and always within, so that its
# threshold would sink until it is 0 in single precision, and 0 / 0 no bound at all.
_LEAST, _MOST = 1e-10, 1e10


@dataclass(frozen=True)
class Quantile:
    """What thresholds follow.

    Args:
        quantile: in (0, 1), the fraction of units that should not be clipped.
        rate: > 0, how fast.
        share: in (0, 1), of the step's budget, for the fractions; the gradients get 1 / sqrt(1 - share) more noise.

    Raises:
        ArgumentError: an argument breaks its rule.
    """

    quantile: float = 0.5
    rate: float = 0.2
    share: float = 0.02

    def __post_init__(self) -> None:
        checks.inside("quantile", self.quantile, 0, 1)
        checks.inside("share", self.share, 0, 1)
        checks.positive("rate", self.rate)
        for name in ("quantile", "rate", "share"):  # 1 and 1.0 are one plan and must have one digest
            object.__setattr__(self, name, float(getattr(self, name)))

    def gradient_multiplier(self, sigma: float) -> float:
        """The gradients' noise multiplier, where gradients and fractions together have `sigma`."""
        return sigma / math.sqrt(1 - self.share)

    def count_multiplier(self, sigma: float, groups: int) -> float:
        """The noise of each group's count per half a count, where gradients and fractions together have `sigma`."""
        return sigma * math.sqrt(groups / self.share)

    def counts(self, norms: Tensor, thresholds: Tensor) -> Tensor:
        """(K,) sum over units of 1/2 where the norm is within its threshold, and of -1/2 where not; (U, K) norms."""
        return (norms <= thresholds.to(norms)).to(norms.dtype).sub(0.5).sum(0)

    def moved(self, thresholds: Tensor, released: Tensor) -> Tensor:
        """(K,) the next thresholds, after noisy counts divided by the expected number of units, (K,); 1e-10 to 1e10."""
        fractions = (released.to(thresholds) + 0.5).clamp(0, 1)
        return (thresholds * torch.exp(-self.rate * (fractions - self.quantile))).clamp(_LEAST, _MOST)

    def describe(self) -> str:
        """In words."""
        return f"following the {self.quantile:.0%} quantile of norms by counts that take {self.share:.0%} of the budget"


def checked(adapt: Any) -> Quantile | None:
    """`adapt`, a Quantile or None.

    Raises:
        ArgumentError: it is something else.
    """
    if adapt is not None and not isinstance(adapt, Quantile):
        raise ArgumentError("adapt", "a Quantile, or None to keep the thresholds", adapt)
    return adapt
