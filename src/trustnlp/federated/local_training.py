"""What a device does with its own texts: a few steps of gradient descent from the weights that the server sent.

    server's weights --copy--> values --begin--> [loss -> gradient -> correct -> step] ... --finish--> what is sent back

Which of these an algorithm changes is up to its hooks (`algorithm`); the loop is this one for all of them.

Shape legend: P entries of all trained parameters, n texts of the device, B texts of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trustnlp import checks
from trustnlp.federated.flat_parameters import FlatParameters
from trustnlp.models.protocol import Encoded
from trustnlp.models.training import seeded
from trustnlp.randomness import Streams

if TYPE_CHECKING:
    from trustnlp.federated.algorithm import Algorithm

Vectors = dict[str, Tensor]


@dataclass(frozen=True)
class LocalTraining:
    """Gradient descent on a device.

    Args:
        rate: of learning, > 0.
        batch_size: texts of a step, the last of a pass perhaps fewer.
        epochs: passes over the device's texts, each in a new order.
        steps: if given, exactly so many steps in place of `epochs`, through as many passes as that takes.
        momentum: in [0, 1); begins anew on every visit.
        clip_grad_norm: ceiling of each step's gradient in 2-norm, for stability; it gives no privacy.
        rate_decay: the rate in round r is `rate * rate_decay**r`, in (0, 1].
    """

    rate: float = 0.1
    batch_size: int = 16
    epochs: int = 1
    steps: int | None = None
    momentum: float = 0.0
    clip_grad_norm: float | None = None
    rate_decay: float = 1.0

    def __post_init__(self) -> None:
        checks.positive("rate", self.rate)
        checks.at_least("batch_size", self.batch_size, 1)
        checks.at_least("epochs", self.epochs, 1)
        if self.steps is not None:
            checks.at_least("steps", self.steps, 1)
        if self.momentum:
            checks.inside("momentum", self.momentum, 0, 1)
        if self.clip_grad_norm is not None:
            checks.positive("clip_grad_norm", self.clip_grad_norm)
        if self.rate_decay != 1:
            checks.inside("rate_decay", self.rate_decay, 0, 1)

    def steps_of(self, texts: int) -> int:
        """How many steps a device with so many texts makes."""
        return self.steps or self.epochs * -(-texts // self.batch_size)

    def texts_of(self, texts: int) -> int:
        """How many texts they are of in all, each pass counted."""
        if self.steps is None:
            return self.epochs * texts
        passes, rest = divmod(self.steps, -(-texts // self.batch_size))
        return passes * texts + rest * self.batch_size

    def draws(self, texts: int, generator: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """The texts of each step."""
        left = self.steps_of(texts)
        while left:
            order = generator.permutation(texts)
            for start in range(0, texts, self.batch_size)[:left]:
                yield order[start : start + self.batch_size]
                left -= 1


@dataclass
class Visit:
    """One device in one round, as an algorithm's hooks see it.

    Args:
        model: with the server's weights at first; trained in place.
        parameters: its flat vectors.
        start: (P,) the server's weights; never written to.
        received: what the algorithm sends beside the weights.
        kept: what this device has kept since its last visit, empty at the first; hooks may put new tensors into it.
        rate: of learning, in this round.
        texts: n.
        steps: made so far.
        notes: whatever the hooks need within the visit.
    """

    model: nn.Module
    parameters: FlatParameters
    start: Tensor
    received: Vectors
    kept: Vectors
    rate: float
    texts: int
    steps: int = 0
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def change(self) -> Tensor:
        """(P,) how far the weights have moved from the server's; a new tensor."""
        return self.parameters.values - self.start

    @property
    def lent_change(self) -> Tensor:
        """The same in memory that the next visit overwrites: to be sent, not to be kept."""
        return self.parameters.change(self.start)


@dataclass(frozen=True)
class Answer:
    """What a device sends back.

    Args:
        vectors: to be added up over the cohort.
        loss: mean over its texts in this visit's steps, before each step.
        steps: made.
    """

    vectors: Vectors
    loss: float
    steps: int


def visit(
    algorithm: Algorithm,
    model: nn.Module,
    parameters: FlatParameters,
    data: Encoded,
    *,
    start: Tensor,
    received: Vectors,
    kept: Vectors,
    number: int,
    device: int,
    streams: Streams,
) -> Answer:
    """Trains on one device's texts, beginning at the server's weights `start` (P,).

    Batches come from the stream `batches` and dropout from `dropout`, both at (round, device), so a visit is the same
    wherever and in whatever order visits are made.

    Args:
        algorithm: its hooks and its `local` training.
        model, parameters: the worker's own, overwritten.
        data: the device's texts, at least one.
        received, kept: see `Visit`; `kept` is changed in place.
        number: of the round.
        device: its number in the population.
    """
    local = algorithm.local
    here = Visit(
        model,
        parameters,
        start,
        received,
        kept,
        local.rate * local.rate_decay**number,
        checks.at_least("texts", len(data), 1),
    )
    parameters.values.copy_(start)
    velocity = torch.zeros_like(start) if local.momentum else None
    where, total, seen = start.device, 0.0, 0
    model.train()
    with seeded(streams.key("dropout", number, device), model), parameters.lookups.kept():
        algorithm.begin(here)
        for chosen in local.draws(len(data), streams.numpy("batches", number, device)):
            parameters.gradient.zero_()
            batch = data.batch(chosen)
            losses = algorithm.loss(here, batch if where.type == "cpu" else batch.to(where))
            losses.mean().backward()
            parameters.lookups.add()
            total, seen = total + float(losses.detach().sum()), seen + len(chosen)
            algorithm.correct(here)
            _step(parameters, here.rate, velocity, local)
            here.steps += 1
        vectors = algorithm.finish(here)
    return Answer(vectors, total / seen, here.steps)


def _step(parameters: FlatParameters, rate: float, velocity: Tensor | None, local: LocalTraining) -> None:
    direction = parameters.gradient
    if local.clip_grad_norm is not None:
        length = torch.linalg.vector_norm(direction)
        direction.mul_((local.clip_grad_norm / length).clamp(max=1.0))
    if velocity is not None:
        direction = velocity.mul_(local.momentum).add_(direction)
    parameters.values.add_(direction, alpha=-rate)
