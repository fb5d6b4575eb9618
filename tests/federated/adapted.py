"""Least squares of two answers by a linear layer with an adapter, in float64."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from trustnlp.federated import low_rank
from trustnlp.models.protocol import Batch
from trustnlp.randomness import Streams

ANSWERS = np.array([1.0, -0.5, 0.3])


class Linear(nn.Module):
    """Answers a row x by W x, W (3, 3); the right answers are y times `ANSWERS`."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3, bias=False, dtype=torch.float64)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor(np.random.default_rng(1).normal(size=(3, 3))))

    def loss(self, batch: Batch) -> Tensor:
        """(B,) half the squared distance."""
        wanted = batch.targets["y"][:, None] * torch.from_numpy(ANSWERS)
        return (self.layer(batch.inputs["x"]) - wanted).square().sum(1) / 2

    def logits(self, batch: Batch) -> dict[str, Tensor]:
        """(B, 3) the answers."""
        return {"label": self.layer(batch.inputs["x"])}


def adapted(rank: int, alpha: float | None = None, *, b: bool = True) -> Linear:
    """With an adapter whose B is zero, or already something if `b`."""
    model = Linear()
    low_rank.adapt(model, rank, alpha=alpha, streams=Streams(3))
    if b:
        with torch.no_grad():
            model.layer.b.copy_(torch.tensor(np.random.default_rng(2).normal(size=(3, rank))))
    return model


def gradient(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    """(3, 3) of the mean loss by the whole matrix W."""
    return (x @ w.T - y[:, None] * ANSWERS).T @ x / len(y)
