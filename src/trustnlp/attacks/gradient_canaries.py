"""Gradient canaries: made-up examples that show a private training engine at its worst, to somebody who sees all of it.

Each canary has a direction of its own among the weights, in which it pulls far harder than clipping allows. A canary
that a coin left out is a blank, an example without gradient, so that the size of the data says nothing. The spy sees
the weights after every step and scores every canary; a one-run bound (`one_run`) then tells how much of epsilon that
has shown.

    canaries = GradientCanaries(included)              # (m,) fair coins; m + 1 examples
    seen = watch(canaries, lambda model: plan.step(model, SGD(...), streams=...), plan.sampler(streams))
    unseen = watch(canaries.blank(), ...)              # another run, without any
    scores = views(seen, unseen)                       # what to look at -> (m,)

Half of a canary lies in an embedding, half in a linear layer, in opposite directions: noise that is missing in one
of them shows there, and noise that both share cancels.

Source: Nasr et al. 2021, arXiv:2101.04535, section 4 (gradient canaries); Steinke et al. 2023, arXiv:2305.08846,
section 6.1 (orthogonal ones, many in one run).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trustnlp import checks
from trustnlp.errors import ArgumentError
from trustnlp.models.protocol import Batch, Draw, Encoded

PULL = 100.0  # length of a canary's gradient in either layer, far above any clip norm
LEARNING_RATE = 1.0

TakeStep = Callable[[Encoded, Draw], object]
Movements = NDArray[np.float64]
Views = Mapping[str, NDArray[np.float64]]


class CanaryModel(nn.Module):
    """A loss that is linear in its weights: one row of an embedding and one input of a linear layer for each example.

    Args:
        examples: of the data.
    """

    def __init__(self, examples: int) -> None:
        super().__init__()
        self.rows = nn.Embedding(examples, 1)
        self.columns = nn.Linear(examples, 1, bias=False)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def loss(self, batch: Batch) -> Tensor:
        """(B,) each example's pull on its own two weights, 0 for a blank."""
        numbers, pull = batch.inputs["numbers"], batch.inputs["pull"]
        one_hot = nn.functional.one_hot(numbers, self.rows.num_embeddings).to(pull)
        return pull * (self.rows(numbers) - self.columns(one_hot))[:, 0]

    def logits(self, batch: Batch) -> dict[str, Tensor]:
        """(B, 1) the loss, so that the model can be trained by whatever trains text models."""
        return {"label": self.loss(batch)[:, None]}


@dataclass(frozen=True)
class GradientCanaries:
    """The data of an audit: m examples, each a canary or a blank, and one that always pulls and is never scored.

    Without the last one, an engine that notices weights that never move would refuse a run of blanks alone.

    Args:
        included: (m,) bool, m >= 2 independent fair coins.

    Raises:
        ArgumentError: not a list of at least two booleans.
    """

    included: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.included.dtype != bool or self.included.ndim != 1:
            raise ArgumentError("included", "a list of booleans", f"{self.included.dtype} of {self.included.shape}")
        checks.at_least("canaries", len(self.included), 2)

    def __len__(self) -> int:
        return len(self.included) + 1

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> Batch:
        """The canaries and blanks at `indices`."""
        numbers = torch.as_tensor(np.asarray(indices, dtype=np.int64))
        pull = PULL * torch.as_tensor(np.append(self.included, True)[numbers.numpy()]).float()
        return Batch({"numbers": numbers, "pull": pull}, {})

    def blank(self) -> GradientCanaries:
        """As many blanks."""
        return GradientCanaries(np.zeros_like(self.included))


def watch(canaries: GradientCanaries, step_of: Callable[[CanaryModel], TakeStep], draws: Iterable[Draw]) -> Movements:
    """(steps, 2, m) how far every step moved each canary's two weights, in its own direction.

    Args:
        canaries: the data.
        step_of: makes the step that trains a model, with plain SGD at LEARNING_RATE.
        draws: its sampler's.
    """
    model = CanaryModel(len(canaries))
    step, seen = step_of(model), [_pulled(model)]
    for draw in draws:
        step(canaries, draw)
        seen.append(_pulled(model))
    return np.diff(np.stack(seen)[:, :, :-1], axis=0)


def views(seen: Movements, blank: Movements) -> Views:
    """What a spy may look at -> scores (m,), higher = more like a canary that was in.

    | view           | sees                                                                       |
    |----------------|----------------------------------------------------------------------------|
    | whole          | what is released at all: the sum of all movements                          |
    | embedding      | noise missing in the linear layer's share of what is released, or too small |
    | linear         | the same of the embedding                                                  |
    | spread         | noise that repeats from step to step while the drawn examples change       |
    | against-blank  | noise that repeats from run to run                                         |

    Args:
        seen: (steps, 2, m) movements of the audited run.
        blank: of a run of the same plan, with a seed of its own, in which all canaries were blanks.

    Raises:
        ArgumentError: the two differ in shape.
    """
    if seen.shape != blank.shape:
        raise ArgumentError("blank", f"movements of shape {seen.shape}", blank.shape)
    whole = seen.sum((0, 1))
    found = {"whole": whole, "embedding": seen[:, 0].sum(0), "linear": seen[:, 1].sum(0)}
    if len(seen) > 1:
        found["spread"] = seen.sum(1).var(0)
    return {**found, "against-blank": whole - blank.sum((0, 1))}


def _pulled(model: CanaryModel) -> Movements:
    """(2, m + 1) how far each example has pulled its two weights: descent lowers one and raises the other."""
    rows, columns = model.rows.weight[:, 0], model.columns.weight[0]
    return torch.stack([-rows, columns]).detach().double().cpu().numpy().copy()
