"""The contracts between data, models, training steps and attacks.

Shape legend: B batch, T tokens, K classes, S slot tags.

    Encoded --batch(indices)--> Batch --TextModel.loss--> (B,) one loss per example
                                      --TextModel.logits--> {"label": (B, K), "tags": (B, T, S)}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Tensors of one batch, every one with the B examples along its first dimension.

    Args:
        inputs: what the model reads (ids, masks).
        targets: what it should answer, such as `label` (B,) and `tags` (B, T); -100 marks positions without target.
    """

    inputs: Mapping[str, Tensor]
    targets: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def to(self, device: str | torch.device) -> Batch:
        """The same batch on `device`."""
        return replace(
            self,
            inputs={name: tensor.to(device) for name, tensor in self.inputs.items()},
            targets={name: tensor.to(device) for name, tensor in self.targets.items()},
        )


class Encoded(Protocol):
    """A split ready for a model: examples in the order they were given, collated into batches on demand."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The examples at `indices`, padded to the longest of them; padding never changes a loss."""
        ...


@runtime_checkable
class TextModel(Protocol):
    """A model with one loss per example. Any `torch.nn.Module` becomes one with these two methods."""

    def loss(self, batch: Batch) -> Tensor:
        """Loss of each example, (B,); example i's loss depends on example i alone."""
        ...

    def logits(self, batch: Batch) -> dict[str, Tensor]:
        """Unnormalised scores: `label` (B, K) and, where slots are labelled, `tags` (B, T, S)."""
        ...


@dataclass(frozen=True)
class Draw:
    """The examples that one training step is made from.

    Args:
        step: 0-based step of the run.
        indices: which examples; may be empty under Poisson sampling.
        source: the sampler that drew it; a private step accepts only its own plan's.
    """

    step: int
    indices: np.ndarray
    source: object


class Sampler(Protocol):
    """Which examples each step sees; a draw depends on the step alone, so resuming needs no state."""

    @property
    def steps(self) -> int:
        """How many steps the whole run has."""
        ...

    @property
    def steps_per_epoch(self) -> int:
        """After how many steps to evaluate and show progress."""
        ...

    def draw(self, step: int) -> Draw:
        """The examples of step `step`, 0 <= step < steps."""
        ...


class Step(Protocol):
    """One update of the model: plain, private and federated-local training differ only here."""

    def __call__(self, data: Encoded, draw: Draw) -> float:
        """Updates the model from the drawn examples and returns a loss to show (not to be published)."""
        ...

    def resume_at(self, step: int) -> int:
        """The step to go on with when the newest checkpoint was made before step `step`; never smaller."""
        ...

    def state(self) -> dict[str, Any]:
        """Optimiser state to put in a checkpoint: tensors and plain numbers, nested in dictionaries."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave."""
        ...


def batches(data: Encoded, size: int) -> Iterator[Batch]:
    """All examples in order, `size` at a time; for evaluation and scoring."""
    for start in range(0, len(data), size):
        yield data.batch(range(start, min(start + size, len(data))))
