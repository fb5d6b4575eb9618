"""FedDyn: each device's loss gains a linear and a quadratic term, so that all devices' optima agree with that of all.

    device   least of L_k(w) - <h_k, w> + alpha / 2 |w - w_server|^2, then h_k <- h_k - alpha (w - w_server)
    server   h <- h - alpha m / K mean(change)        w <- w_server + mean(change) - h / alpha

Source: Acar et al. 2021, arXiv:2111.04263, algorithm 1.

Shape legend: K devices, m of a cohort.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trustnlp import checks
from trustnlp.federated.algorithm import CHANGE, Algorithm, Round
from trustnlp.federated.local_training import Vectors, Visit

LINEAR = "linear"


@dataclass(frozen=True)
class FedDyn(Algorithm):
    """Dynamic regularisation; the paper's cohort is of equal weights, and its server_rate is 1.

    Args:
        alpha: weight of the terms, > 0.
    """

    alpha: float = 0.1

    remembers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.positive("alpha", self.alpha)

    def state(self, weights: Tensor) -> Vectors:
        """h, zero at first."""
        return {LINEAR: torch.zeros_like(weights)}

    def begin(self, visit: Visit) -> None:
        """The device's own linear term, zero at its first visit."""
        visit.kept.setdefault(LINEAR, torch.zeros_like(visit.start))

    def correct(self, visit: Visit) -> None:
        """Adds the gradients of both terms."""
        gradient = visit.parameters.gradient
        gradient.sub_(visit.kept[LINEAR])
        gradient.add_(visit.parameters.values, alpha=self.alpha).sub_(visit.start, alpha=self.alpha)

    def finish(self, visit: Visit) -> Vectors:
        """The change; what the device keeps follows it."""
        change = visit.change
        visit.kept[LINEAR].sub_(change, alpha=self.alpha)
        return {CHANGE: change}

    def update(self, weights: Tensor, mean: Vectors, state: Vectors, about: Round) -> None:
        """The mean of what devices found, less the server's linear term."""
        state[LINEAR].sub_(mean[CHANGE], alpha=self.alpha * about.returned / about.devices)
        weights.add_(mean[CHANGE], alpha=self.server_rate).sub_(state[LINEAR], alpha=1 / self.alpha)
