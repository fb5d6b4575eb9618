"""What a federated algorithm may decide: a few hooks on devices and on the server, and FedAvg's answer to each.

    server   state(weights)                      once
    server   sent(state)                         each round: what goes to devices beside the weights
    device     begin(visit)                      with the server's weights in the model
    device     loss(visit, batch), correct(visit)    each local step: the loss, and its gradient before the step
    device     finish(visit)                     vectors to be added up, each with the cohort's weight of this device
    server   update(weights, mean, state, round)     one step from what came back
    server   figures(state)                      what is told of the step

An algorithm is a frozen record of its parameters in a module of its own, and overrides the hooks in which it differs.
The same hooks run wherever devices are, so their figures do not depend on that.

Shape legend: P entries of all trained parameters, B texts of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, cast

from torch import Tensor

from trustnlp import checks
from trustnlp.federated.local_training import LocalTraining, Vectors, Visit
from trustnlp.models.protocol import Batch, TextModel

CHANGE = "change"


@dataclass(frozen=True)
class Round:
    """What a server knows of a round beside the sums.

    Args:
        number: 0-based.
        devices: K, of the whole population.
        returned: devices of the cohort that came back with something usable.
        weight: sum of the cohort's weights, 1 unless they are importances.
    """

    number: int
    devices: int
    returned: int
    weight: float = 1.0


@dataclass(frozen=True)
class Algorithm:
    """Every hook as FedAvg has it.

    Args:
        rounds: how many.
        cohort: devices of a round, m.
        local: what each of them does.
        server_rate: how far the server follows the mean change; 1 averages weights.
    """

    rounds: int
    cohort: int
    local: LocalTraining = field(default_factory=LocalTraining)
    server_rate: float = 1.0

    remembers: ClassVar[bool] = False  # whether devices keep something between visits
    sends: ClassVar[tuple[str, ...]] = (CHANGE,)  # what `finish` gives
    asynchronous: ClassVar[bool] = False  # whether the server steps while devices of earlier steps still train

    def __post_init__(self) -> None:
        checks.at_least("rounds", self.rounds, 1)
        checks.at_least("cohort", self.cohort, 1)
        checks.positive("server_rate", self.server_rate)

    def state(self, weights: Tensor) -> Vectors:
        """What the server keeps between rounds, at the first weights (P,)."""
        del weights
        return {}

    def sent(self, state: Vectors) -> Vectors:
        """What every device of a round receives beside the weights."""
        del state
        return {}

    def begin(self, visit: Visit) -> None:
        """Prepares a visit, before its first step."""

    def loss(self, visit: Visit, batch: Batch) -> Tensor:
        """(B,) the loss of each text."""
        return cast(TextModel, visit.model).loss(batch)

    def correct(self, visit: Visit) -> None:
        """Changes `visit.parameters.gradient` before the step, in place."""

    def finish(self, visit: Visit) -> Vectors:
        """What is sent back: vectors of which the server needs only the weighted mean."""
        return {CHANGE: visit.lent_change}

    def update(self, weights: Tensor, mean: Vectors, state: Vectors, about: Round) -> None:
        """Takes the server's step: `weights` (P,) and `state` are changed in place.

        Args:
            mean: sum of the cohort's weights times what `finish` gave.
        """
        del state, about
        weights.add_(mean[CHANGE], alpha=self.server_rate)

    def figures(self, state: Vectors) -> Mapping[str, float]:
        """What the records tell of the newest step; nothing, unless an algorithm has something of its own to say."""
        del state
        return {}
