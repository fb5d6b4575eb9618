"""FedOpt: the server takes the mean change for a gradient and follows it by an optimiser of its own.

    momentum   v <- beta1 v + d                        w <- w + eta v
    adagrad    s <- s + d^2                            w <- w + eta v / (sqrt(s) + tau)
    adam       s <- beta2 s + (1 - beta2) d^2          with v <- beta1 v + (1 - beta1) d in all three
    yogi       s <- s - (1 - beta2) d^2 sign(s - d^2)

d is the mean change of the cohort, s begins at tau^2, and there is no correction of bias, as in the paper.

Source: Reddi et al. 2021, arXiv:2003.00295, algorithm 2; momentum is FedAvgM of Hsu et al. 2019, arXiv:1909.06335.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trustnlp import checks
from trustnlp.federated.algorithm import CHANGE, Algorithm, Round
from trustnlp.federated.local_training import Vectors

OPTIMISERS = ("adam", "yogi", "adagrad", "momentum")


@dataclass(frozen=True)
class FedOpt(Algorithm):
    """FedAvg with a server that remembers where it was heading; `server_rate` is its eta.

    Args:
        optimiser: `adam`, `yogi`, `adagrad` or `momentum`.
        beta1: how much of the direction is kept from round to round, in [0, 1).
        beta2: how much of the squares, in [0, 1); read by adam and yogi.
        tau: degree of adaptivity, > 0; the smaller, the more.
    """

    server_rate: float = 0.01
    optimiser: str = "adam"
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of("optimiser", self.optimiser, OPTIMISERS)
        for name in ("beta1", "beta2"):
            if checks.within(name, getattr(self, name), 0, 1) == 1:
                checks.inside(name, getattr(self, name), 0, 1)
        checks.positive("tau", self.tau)

    def state(self, weights: Tensor) -> Vectors:
        """No direction yet, and squares of tau."""
        direction = {"direction": torch.zeros_like(weights)}
        if self.optimiser == "momentum":
            return direction
        return direction | {"squares": torch.full_like(weights, self.tau**2)}

    def update(self, weights: Tensor, mean: Vectors, state: Vectors, about: Round) -> None:
        """One step of the optimiser along the mean change."""
        del about
        change, direction = mean[CHANGE], state["direction"]
        if self.optimiser == "momentum":
            weights.add_(direction.mul_(self.beta1).add_(change), alpha=self.server_rate)
            return
        direction.lerp_(change, 1 - self.beta1)
        self._adapt(state["squares"], change.square())
        weights.addcdiv_(direction, state["squares"].sqrt().add_(self.tau), value=self.server_rate)

    def _adapt(self, squares: Tensor, newest: Tensor) -> None:
        if self.optimiser == "adagrad":
            squares.add_(newest)
        elif self.optimiser == "adam":
            squares.lerp_(newest, 1 - self.beta2)
        else:
            squares.addcmul_(newest, torch.sign(squares - newest), value=-(1 - self.beta2))
