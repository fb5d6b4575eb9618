"""Gradients as one likes, and what a private step releases of them: the ground on which sensitivities are checked.

Shape legend: N examples, K layers, D weights of a layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

import numpy as np
import torch
from rows import Rows
from torch import Tensor, nn

from trustnlp.dp import PoissonSampler, PrivacyPlan, PrivateStep
from trustnlp.models.protocol import Batch, Draw
from trustnlp.randomness import Streams

STREAMS = Streams(5)


class Planted(nn.Module):
    """K linear layers whose gradient, for an example x of shape (K, D), is x, whatever the weights."""

    def __init__(self, layers: int = 1, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, 1, bias=False).double() for _ in range(layers))
        for layer in self.layers:
            nn.init.zeros_(layer.weight)

    def loss(self, batch: Batch) -> Tensor:
        return sum(layer(batch.inputs["x"][:, k])[:, 0] for k, layer in enumerate(self.layers))

    def logits(self, batch: Batch) -> dict[str, Tensor]:
        return {}


def gradients(values: Sequence | np.ndarray | Tensor) -> Rows:
    """Examples with these gradients, (N, K, D)."""
    return Rows({"x": torch.as_tensor(np.asarray(values), dtype=torch.float64)})


class Recorder:
    """In the place of an engine's noise: keeps what is released, adds nothing, and divides."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.stds: dict[str, float] = {}
        self.divisor = 0.0
        self.blocks: list[int] = []

    def release_(self, sums, block, stds, divisor, parts=None) -> None:
        self.sums = {name: tensor.detach().clone().double() for name, tensor in sums.items()}
        self.stds, self.divisor = dict(stds), divisor
        self.blocks.append(block)
        for tensor in sums.values():
            tensor.div_(divisor)

    def scaled(self) -> Tensor:
        """All that was released as one vector, every entry in units of its noise."""
        return torch.cat([tensor.flatten() / self.stds[name] for name, tensor in self.sums.items()])


class Places:
    """Streams whose micro-batches are given."""

    def __init__(self, places: Sequence[int]) -> None:
        self._places = np.asarray(places)

    def integers(self, count: int, size: int) -> np.ndarray:
        assert size == len(self._places)
        return self._places % count


@contextmanager
def drawing(indices: Sequence[int], places: Sequence[int] | None = None) -> Iterator[None]:
    """Inside, every draw is `indices`, and example indices[i] goes to micro-batch places[i]."""
    real = Streams.numpy

    def numpy(self, name, *index):
        return Places(places) if name == "micro-batches" and places is not None else real(self, name, *index)

    def draw(self, step):
        return Draw(step, np.asarray(indices, int), self)

    with mock.patch.object(PoissonSampler, "draw", draw), mock.patch.object(Streams, "numpy", numpy):
        yield


@contextmanager
def without_probes() -> Iterator[None]:
    """Inside, fast paths and models are not probed: that takes nine tenths of the time and has tests of its own."""
    with (
        mock.patch("trustnlp.dp.book_keeping.disagreement", return_value=""),
        mock.patch("trustnlp.dp.validation.check_independence"),
    ):
        yield


def step_of(plan: PrivacyPlan, model: nn.Module, rate: float = 1.0, **options) -> PrivateStep:
    """A step of SGD at `rate`."""
    return plan.step(
        model, torch.optim.SGD(model.parameters(), rate), **{"streams": STREAMS, "loss": model.loss, **options}
    )


def released(
    plan: PrivacyPlan, data: Rows, indices: Sequence[int], places: Sequence[int] | None = None, model=None, **options
) -> Recorder:
    """What one step of the real engine releases of these examples, before noise."""
    step = step_of(plan, model or Planted(*data.tensors["x"].shape[1:]), **options)
    step._noise, step._moved = Recorder(), True
    with drawing(indices, places), without_probes():
        step(data, plan.sampler(STREAMS).draw(0))
    return step._noise


def movements(
    plan: PrivacyPlan, data: Rows, indices: Sequence[int], places: Sequence[int] | None = None, **options
) -> list[float]:
    """For each drawn example: how far the release moves without it, where 1 is all that the accountant allows."""
    options = {"rate": 0.0, **options}  # so that a model of one's own stays as it is
    sigma, moved = plan.event(0).noise_multiplier, []
    places = range(len(indices)) if places is None else places
    whole = released(plan, data, indices, places, **options).scaled()
    for out in range(len(indices)):
        rest = [[*values[:out], *values[out + 1 :]] for values in (indices, places)]
        less = released(plan, data, *rest, **options).scaled()
        moved.append(sigma * float((whole - less).norm()))
    return moved
