"""FedBuff: devices train at their own pace, and the server steps whenever its buffer of answers is full.

    w <- w + eta_server / buffer  sum of  change / (1 + staleness)^damping

The staleness of an answer is how many steps the server has made since it sent the weights at which the device began.

Source: Nguyen et al. 2022, arXiv:2106.06639, algorithm 1, with the damping 1 / sqrt(1 + staleness) of its experiments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trustnlp import checks
from trustnlp.federated.algorithm import Algorithm


@dataclass(frozen=True)
class FedBuff(Algorithm):
    """FedAvg without rounds: `rounds` are the server's steps, and `cohort` devices train at any time (concurrency).

    Args:
        buffer: answers of a step, the paper's K; with `cohort` equally fast devices and a buffer as large it is FedAvg.
            The first step waits for `cohort` of them if that is more, to tell by the others which are too long.
        damping: how much less stale answers count, >= 0; 0 counts all alike.
    """

    buffer: int = 10
    damping: float = 0.5

    asynchronous: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.at_least("buffer", self.buffer, 1)
        checks.non_negative("damping", self.damping)

    def discount(self, staleness: int) -> float:
        """What an answer of this staleness, >= 0, counts; 1 if it is fresh."""
        return float((1 + staleness) ** -self.damping)
