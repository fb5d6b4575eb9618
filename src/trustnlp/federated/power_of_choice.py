"""Power of choice: of d devices drawn by activity, the m that the model serves worst.

Source: Cho, Wang and Joshi 2020, arXiv 2010.01243 (pi_pow-d).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trustnlp import checks
from trustnlp.errors import ArgumentError
from trustnlp.federated.cohort import Cohort, PlainSelector, Request, Selector, shares
from trustnlp.federated.size_classes import Draws, SizeClasses, activity


@dataclass(frozen=True)
class PowerOfChoice:
    """The `cohort` highest local losses among d candidates, drawn without replacement with p_k ~ n_k; equal weights.

    Every candidate computes its loss in every round; the cohort's weights are biased towards high losses. Candidates
    that give no loss (NaN or infinite) are not chosen. Of equal losses the device with the lower number goes first.

    Args:
        d: candidates, at least as many as the cohort; d = m is selection by activity without replacement.
    """

    d: int

    def __post_init__(self) -> None:
        checks.at_least("d", self.d, 1)

    @property
    def unbiased(self) -> bool:
        """Never: that is what it is for."""
        return False

    def begin(self, sizes: NDArray[np.int64]) -> Selector:
        """See `Selection`."""
        return _Worst(self.d, sizes)


class _Worst(PlainSelector):
    def __init__(self, candidates: int, sizes: NDArray[np.int64]) -> None:
        classes = SizeClasses.of(sizes)
        self._candidates, self._sizes = candidates, sizes
        self._draws = Draws(classes, activity(classes, 1.0))

    def choose(self, request: Request) -> Cohort:
        if self._candidates < request.cohort:
            raise ArgumentError("d", f"at least the cohort ({request.cohort})", self._candidates)
        if request.probe is None:
            raise ArgumentError("probe", "given, as power of choice asks devices for their losses", None)
        candidates = np.sort(self._draws.distinct(self._candidates, request.generator, request.available))
        losses = np.asarray(request.probe(candidates), dtype=float)
        checks.same_length(losses=losses, candidates=candidates)
        known = np.isfinite(losses)
        candidates, losses = candidates[known], losses[known]
        worst = np.sort(candidates[np.argsort(-losses, kind="stable")[: request.cohort]])
        return Cohort(worst, shares("equal", np.ones(len(worst)), self._sizes[worst]))
