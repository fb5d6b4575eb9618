"""FedProx: devices are held near the server's weights, so that unlike devices drift apart less.

Each local loss gains mu / 2 |w - w_server|^2.

Source: Li et al. 2020, arXiv:1812.06127, equation 2.
"""

from __future__ import annotations

from dataclasses import dataclass

from trustnlp import checks
from trustnlp.federated.algorithm import Algorithm
from trustnlp.federated.local_training import Visit


@dataclass(frozen=True)
class FedProx(Algorithm):
    """FedAvg with a proximal term.

    Args:
        mu: its weight, >= 0; 0 is FedAvg.
    """

    mu: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.non_negative("mu", self.mu)

    def correct(self, visit: Visit) -> None:
        """Adds the gradient of the proximal term."""
        gradient = visit.parameters.gradient
        gradient.add_(visit.parameters.values, alpha=self.mu).sub_(visit.start, alpha=self.mu)
