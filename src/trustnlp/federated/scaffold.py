"""SCAFFOLD: every device corrects its steps by how its gradients differ from those of all, its control variate.

    device   w <- w - eta (g - c_k + c)           c_k' = c_k - c + (w_server - w) / (steps eta)
    server   w <- w + eta_server mean(change)     c <- c + m / K mean(c_k' - c_k)

Source: Karimireddy et al. 2020, arXiv:1910.06378, algorithm 1 with option II of line 12.

Shape legend: P entries of all trained parameters, K devices, m of a cohort.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trustnlp.errors import ArgumentError
from trustnlp.federated.algorithm import CHANGE, Algorithm, Round
from trustnlp.federated.local_training import LocalTraining, Vectors, Visit

CONTROL = "control"


@dataclass(frozen=True)
class Scaffold(Algorithm):
    """Control variates, kept on devices between visits; a device that was never visited has zeros.

    The paper's cohort is uniform and of equal weights; with others the controls follow a weighted mean as well.
    """

    remembers: ClassVar[bool] = True
    sends: ClassVar[tuple[str, ...]] = (CHANGE, CONTROL)

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_transformed_steps(self.local, "the control variate is read off the distance, which is then another")

    def state(self, weights: Tensor) -> Vectors:
        """The server's control variate, zero at first."""
        return {CONTROL: torch.zeros_like(weights)}

    def sent(self, state: Vectors) -> Vectors:
        """The server's control variate."""
        return state

    def begin(self, visit: Visit) -> None:
        """The difference between the server's control and the device's own."""
        own = visit.kept.get(CONTROL, torch.zeros_like(visit.start))
        visit.notes["correction"] = visit.received[CONTROL] - own

    def correct(self, visit: Visit) -> None:
        """Adds c - c_k to the gradient."""
        visit.parameters.gradient.add_(visit.notes["correction"])

    def finish(self, visit: Visit) -> Vectors:
        """The change of the weights and that of the control variate."""
        change = visit.change
        moved = -visit.received[CONTROL] - change / (visit.steps * visit.rate)  # c_k' - c_k
        visit.kept[CONTROL] = visit.kept.get(CONTROL, torch.zeros_like(moved)) + moved
        return {CHANGE: change, CONTROL: moved}

    def update(self, weights: Tensor, mean: Vectors, state: Vectors, about: Round) -> None:
        """The mean change, and the controls' mean change by the share of devices that it is of."""
        weights.add_(mean[CHANGE], alpha=self.server_rate)
        state[CONTROL].add_(mean[CONTROL], alpha=about.returned / about.devices)


def refuse_transformed_steps(local: LocalTraining, why: str) -> None:
    """Raises where a step is not the rate times the gradient.

    Raises:
        ArgumentError: momentum or a clipped gradient.
    """
    if local.momentum or local.clip_grad_norm is not None:
        raise ArgumentError("local", "without momentum and clip_grad_norm", local, why)
