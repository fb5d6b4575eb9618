"""A convex problem on devices: least squares, whose optimum and gradients are known in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from trustnlp.federated.population import Partitioned
from trustnlp.models.protocol import Batch


class Regression(nn.Module):
    """A text's loss is half the squared error of x w; there is no text."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(width, dtype=torch.float64))

    def loss(self, batch: Batch) -> Tensor:
        """(B,) half the squared error."""
        return (batch.inputs["x"] @ self.w - batch.targets["y"]).square() / 2

    def logits(self, batch: Batch) -> dict[str, Tensor]:
        """(B, 1) the predictions."""
        return {"label": (batch.inputs["x"] @ self.w)[:, None]}


@dataclass(frozen=True)
class Rows:
    """x (N, D) and y (N,), as `protocol.Encoded` wants them."""

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The rows at `indices`."""
        chosen = np.asarray(indices, dtype=np.int64)
        return Batch({"x": torch.from_numpy(self.x[chosen])}, {"y": torch.from_numpy(self.y[chosen])})


@dataclass(frozen=True)
class Problem:
    """Rows on devices; `spread` is how far the devices' own optima lie from each other."""

    rows: Rows
    population: Partitioned

    @property
    def optimum(self) -> np.ndarray:
        """Where the mean loss of all rows is least."""
        return np.linalg.lstsq(self.rows.x, self.rows.y, rcond=None)[0]

    def gradient(self, w: np.ndarray, device: int) -> np.ndarray:
        """Of the mean loss of one device."""
        own = self.population.devices[device]
        x, y = self.rows.x[own], self.rows.y[own]
        return x.T @ (x @ w - y) / len(y)


def problem(sizes: Sequence[int], *, width: int = 3, spread: float = 0.0, seed: int = 0) -> Problem:
    """Devices of these sizes, each with an optimum of its own if `spread` > 0."""
    generator = np.random.default_rng(seed)
    ends = np.cumsum(sizes)
    x = generator.normal(size=(ends[-1], width))
    truth = generator.normal(size=width) + spread * generator.normal(size=(len(sizes), width))
    of = np.repeat(np.arange(len(sizes)), sizes)
    y = (x * truth[of]).sum(1) + 0.1 * generator.normal(size=len(x))
    rows = Rows(x, y)
    return Problem(rows, Partitioned(rows, tuple(np.split(np.arange(len(x)), ends[:-1]))))
