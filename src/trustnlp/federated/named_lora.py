"""Low-rank adapters by the name that a command line gives them: `lora-merged:rank=4,trained=label_head.*`.

The factors of an algorithm of `lora` are places in one model, so a name alone gives what is still `ToAdapt`;
`for_model` adapts the model and gives the algorithm itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from trustnlp import checks
from trustnlp.errors import ArgumentError
from trustnlp.federated.algorithm import Algorithm
from trustnlp.federated.local_training import Vectors
from trustnlp.federated.lora import AveragedLora, FrozenLora, Lora, MergedLora, ProjectedLora
from trustnlp.federated.low_rank import adapt
from trustnlp.randomness import Streams


@dataclass(frozen=True)
class ToAdapt(Algorithm):
    """An algorithm of `lora` before there is a model.

    Args:
        rank: of the adapters, >= 1.
        alpha: the adapters count alpha / rank; 1 if None.
        layers: patterns of the linear layers that get one, joined by `+`.
        trained: patterns of parameters that are trained as they are, such as `label_head.*`, joined by `+`.
    """

    rank: int = 8
    alpha: float | None = None
    layers: str = "*"
    trained: str = ""

    kind: ClassVar[type[Lora]]

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.at_least("rank", self.rank, 1)
        if self.alpha is not None:
            checks.positive("alpha", self.alpha)

    def adapted(self, model: nn.Module, streams: Streams) -> Lora:
        """Puts the adapters into `model`, all else of which is frozen, and gives the algorithm that trains them.

        Raises:
            ArgumentError, ModelError: see `low_rank.adapt` and `Lora.of`.
        """
        trained = [pattern for pattern in self.trained.split("+") if pattern]
        adapt(model, self.rank, layers=self.layers.split("+"), trained=trained, alpha=self.alpha, streams=streams)
        return self.kind.of(model, self.rounds, self.cohort, local=self.local, server_rate=self.server_rate)

    def state(self, weights: Tensor) -> Vectors:
        """Refuses to train without adapters.

        Raises:
            ArgumentError: always.
        """
        del weights
        raise ArgumentError("algorithm", "made for the model by `named_lora.for_model`", type(self).__name__)


class AveragedToAdapt(ToAdapt):
    """FedAvg of both factors."""

    kind = AveragedLora


class FrozenToAdapt(ToAdapt):
    """FedAvg of B."""

    kind = FrozenLora


class MergedToAdapt(ToAdapt):
    """The mean product joins the weights."""

    kind = MergedLora


class ProjectedToAdapt(ToAdapt):
    """The product nearest to the mean product."""

    kind = ProjectedLora


KINDS: Mapping[str, type[ToAdapt]] = {
    "lora-averaged": AveragedToAdapt,
    "lora-frozen": FrozenToAdapt,
    "lora-merged": MergedToAdapt,
    "lora-projected": ProjectedToAdapt,
}


def for_model(algorithm: Algorithm, model: nn.Module, streams: Streams) -> Algorithm:
    """The algorithm that trains `model`, into which adapters are put where it is one of adapters."""
    return algorithm.adapted(model, streams) if isinstance(algorithm, ToAdapt) else algorithm
