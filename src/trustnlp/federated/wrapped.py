"""An algorithm around another: it changes one hook, and leaves the rest to whatever it is given.

ServerSteps(PseudoLabels(FedProx(rounds=50, cohort=10)), …)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from trustnlp.federated.algorithm import Algorithm, Round
from trustnlp.federated.local_training import LocalTraining, Vectors, Visit
from trustnlp.models.protocol import Batch


@dataclass(frozen=True)
class Wrapped(Algorithm):
    """All hooks and parameters of another algorithm, for subclasses that differ in a few.

    Args:
        base: the other algorithm.
    """

    rounds: int = field(init=False)
    cohort: int = field(init=False)
    local: LocalTraining = field(init=False)
    server_rate: float = field(init=False)
    base: Algorithm

    def __post_init__(self) -> None:
        for name in Algorithm.__annotations__:  # its parameters, and what kind of algorithm it is
            object.__setattr__(self, name, getattr(self.base, name))
        super().__post_init__()

    def state(self, weights: Tensor) -> Vectors:
        """The base's."""
        return self.base.state(weights)

    def sent(self, state: Vectors) -> Vectors:
        """The base's."""
        return self.base.sent(state)

    def begin(self, visit: Visit) -> None:
        """The base's."""
        self.base.begin(visit)

    def loss(self, visit: Visit, batch: Batch) -> Tensor:
        """The base's."""
        return self.base.loss(visit, batch)

    def correct(self, visit: Visit) -> None:
        """The base's."""
        self.base.correct(visit)

    def finish(self, visit: Visit) -> Vectors:
        """The base's."""
        return self.base.finish(visit)

    def update(self, weights: Tensor, mean: Vectors, state: Vectors, about: Round) -> None:
        """The base's."""
        self.base.update(weights, mean, state, about)

    def figures(self, state: Vectors) -> Mapping[str, float]:
        """The base's."""
        return self.base.figures(state)


def supervised(base: Algorithm, visit: Visit, batch: Batch, known: Tensor) -> Tensor | float:
    """(B,) the base's losses, which are 0 where nothing is known unless the base adds more than the model's loss.

    Args:
        known: (B,) which texts have any target.
    """
    if not bool(known.any()) and type(base).loss is Algorithm.loss:
        return 0.0
    return base.loss(visit, batch)
