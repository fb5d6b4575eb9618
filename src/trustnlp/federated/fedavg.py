"""FedAvg: the server's weights become the weighted mean of what devices have trained.

Source: McMahan et al. 2017, arXiv:1602.05629, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from trustnlp.federated.algorithm import Algorithm


@dataclass(frozen=True)
class FedAvg(Algorithm):
    """Local descent and weighted averaging; with one step over all texts of a device it is gradient descent."""
