"""FedNova: changes are divided by how far each device could have gone, so that many local steps do not count more.

A device that makes tau steps of one direction moves by |a| of them: tau, or with momentum rho
(tau - rho (1 - rho^tau) / (1 - rho)) / (1 - rho). The server takes mean(|a|) steps along mean(change / |a|). FedAvg, in
contrast, ends at the optimum of an objective in which devices with more steps weigh more.

Source: Wang et al. 2020, arXiv:2007.07481, equation 9, section 4.1 and the momentum case of section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trustnlp.errors import ArgumentError
from trustnlp.federated.algorithm import CHANGE, Algorithm, Round
from trustnlp.federated.local_training import Vectors, Visit

REACH = "reach"


@dataclass(frozen=True)
class FedNova(Algorithm):
    """Normalised averaging of local descent, with or without momentum."""

    sends: ClassVar[tuple[str, ...]] = (CHANGE, REACH)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.local.clip_grad_norm is not None:
            why = "a clipped step is shorter than the division takes for granted"
            raise ArgumentError("local", "without clip_grad_norm", self.local, why)

    def finish(self, visit: Visit) -> Vectors:
        """The change by step, and how many steps it is made of."""
        far = reach(visit.steps, self.local.momentum)
        return {
            CHANGE: visit.change / far,
            REACH: torch.tensor([far], dtype=visit.start.dtype, device=visit.start.device),
        }

    def update(self, weights: Tensor, mean: Vectors, state: Vectors, about: Round) -> None:
        """As many steps as devices made on average, along their mean direction."""
        del state
        steps = float(mean[REACH]) / about.weight
        weights.add_(mean[CHANGE], alpha=self.server_rate * steps)


def reach(steps: int, momentum: float) -> float:
    """How many steps of one direction `steps` steps with momentum amount to, |a| in the paper."""
    return (steps - momentum * (1 - momentum**steps) / (1 - momentum)) / (1 - momentum)
