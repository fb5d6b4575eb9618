"""A small model of token sequences and its data, in float64, for every test of this room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from trustnlp.models.protocol import Batch

VOCABULARY = 11


@dataclass(frozen=True)
class Texts:
    """Token ids of unequal length, 0 is padding; a label in {0, 1, 2} each."""

    ids: tuple[tuple[int, ...], ...]
    labels: tuple[int, ...]

    @classmethod
    def random(cls, count: int, seed: int = 0) -> Texts:
        rng = np.random.default_rng(seed)
        ids = tuple(tuple(map(int, rng.integers(1, VOCABULARY, rng.integers(1, 6)))) for _ in range(count))
        return cls(ids, tuple(map(int, rng.integers(0, 3, count))))

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        rows = [self.ids[i] for i in indices]
        width = max(map(len, rows))
        padded = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
        return Batch({"ids": padded}, {"label": torch.tensor([self.labels[i] for i in indices])})


class Tagger(nn.Module):
    """Embedding, LSTM, maximum over words, linear head."""

    def __init__(self, width: int = 4, seed: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.embedding = nn.Embedding(VOCABULARY, width, padding_idx=0)
            self.lstm = nn.LSTM(width, width, batch_first=True)
            self.head = nn.Linear(width, 3)
        self.dropout = nn.Dropout(dropout)
        self.double()

    def logits(self, batch: Batch) -> dict[str, Tensor]:
        ids = batch.inputs["ids"]
        states, _ = self.lstm(self.dropout(self.embedding(ids)))
        pooled = states.masked_fill((ids == 0)[:, :, None], -torch.inf).amax(1)
        return {"label": self.head(self.mix(self.dropout(pooled)))}

    def mix(self, pooled: Tensor) -> Tensor:
        """Where tests plant a leak between examples."""
        return pooled

    def loss(self, batch: Batch) -> Tensor:
        scores = self.logits(batch)["label"]
        return nn.functional.cross_entropy(scores, batch.targets["label"], reduction="none")


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def flat(gradients: dict[str, Tensor]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients.values()])
