"""MOON: devices keep what the model makes of a text near what the server's weights make of it, and away from their own
at the last visit.

    loss + mu * l,    l = -log( exp(cos(z, z_server) / t) / (exp(cos(z, z_server) / t) + exp(cos(z, z_last) / t)) )

z is the representation of a text under the weights that are trained, z_server under those that the server sent, z_last
under those with which the device ended its last visit. At a device's first visit there are none, and no term.

Source: Li et al. 2021, arXiv:2103.16257, equations 3 to 5 and algorithm 1.

Shape legend: P entries of all trained parameters, B texts of a batch, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from trustnlp import checks
from trustnlp.errors import ModelError
from trustnlp.federated.algorithm import Algorithm
from trustnlp.federated.local_training import Vectors, Visit
from trustnlp.models.protocol import Batch

LAST = "last"


class Represents(Protocol):
    """A model that tells what it makes of a text."""

    def representation(self, batch: Batch) -> Tensor:
        """(B, D), for each text from this text alone."""
        ...


@dataclass(frozen=True)
class Moon(Algorithm):
    """FedAvg with a contrastive term between representations, for models that have a method `representation`.

    The fixed representations are computed without dropout. The trained one is computed beside the loss, in a pass of
    its own, so a step costs about twice FedAvg's. The losses that are told of include the term.

    Args:
        mu: weight of the term, >= 0; 0 is FedAvg.
        temperature: t, > 0.
    """

    mu: float = 1.0
    temperature: float = 0.5

    remembers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.non_negative("mu", self.mu)
        checks.positive("temperature", self.temperature)

    def begin(self, visit: Visit) -> None:
        """Refuses what has no representation.

        Raises:
            ModelError: the model lacks the method.
        """
        if not callable(getattr(visit.model, "representation", None)):
            raise ModelError(
                f"{type(visit.model).__name__} has no representation of texts to contrast",
                "give it a method representation(batch) that returns (B, D), or use another algorithm",
            )

    def loss(self, visit: Visit, batch: Batch) -> Tensor:
        """(B,) the loss of each text and its contrastive term."""
        if not self.mu or LAST not in visit.kept:
            return super().loss(visit, batch)
        server, last = (_fixed(visit, weights, batch) for weights in (visit.start, visit.kept[LAST]))
        own = cast(Represents, visit.model).representation(batch)
        return super().loss(visit, batch) + self.mu * contrast(own, server, last, self.temperature)

    def finish(self, visit: Visit) -> Vectors:
        """The change; the device keeps the weights where it ends."""
        visit.kept[LAST] = visit.parameters.values.clone()
        return super().finish(visit)


def contrast(own: Tensor, near: Tensor, far: Tensor, temperature: float) -> Tensor:
    """(B,) how much nearer `own` is to `far` than to `near`, all (B, D); equation 3, in nats, > 0, lower is nearer."""
    similar, dissimilar = (F.cosine_similarity(own, other, dim=-1) for other in (near, far))
    return F.softplus((dissimilar - similar) / temperature)


def _fixed(visit: Visit, weights: Tensor, batch: Batch) -> Tensor:
    """(B, D) under other weights, without dropout and without a gradient."""
    visit.model.eval()
    with torch.no_grad(), visit.parameters.reading(weights):
        found = cast(Represents, visit.model).representation(batch)
    visit.model.train()
    return found
