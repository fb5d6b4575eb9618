"""What a causal language model says of every token of a text: all that attacks on language models need to know of it.

Shape legend: N texts, B batch, P pieces, V vocabulary, T_i predicted tokens of text i.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trustnlp import checks
from trustnlp.errors import ArgumentError
from trustnlp.models.evaluation import scoring
from trustnlp.models.protocol import Batch, Encoded, batches

Floats = tuple[NDArray[np.float64], ...]
_FIELDS = ("log_probs", "mean", "std", "top_is_right")


class CausalLanguageModel(Protocol):
    """A model whose inputs are `pieces` (B, P) and `spans` (B,), and which scores each piece from those before it."""

    def logits(self, batch: Batch) -> dict[str, Tensor]:
        """`pieces` (B, P-1, V): scores of the second piece and on."""
        ...


@dataclass(frozen=True)
class TokenScores:
    """One array of T_i values per text, one value for each predicted token, in nats where they are logarithms.

    p is the model's own distribution of the next token. A text of one piece has no predicted token, T_i = 0.

    Args:
        log_probs: log p of the token that stands there, <= 0.
        mean: mu = sum over V of p log p, in [-log V, 0]: what log p is on average if the model draws the token.
        std: square root of sum over V of p (log p)^2 - mu^2, >= 0.
        top_is_right: bool, whether the most probable token stands there (of several, the first in the vocabulary).

    Raises:
        ArgumentError: fields that do not match, text by text and token by token.
    """

    log_probs: Floats
    mean: Floats
    std: Floats
    top_is_right: tuple[NDArray[np.bool_], ...]

    def __post_init__(self) -> None:
        shapes = {name: [np.shape(row) for row in getattr(self, name)] for name in _FIELDS}
        for name in _FIELDS:
            if shapes[name] != shapes["log_probs"] or any(len(shape) != 1 for shape in shapes[name]):
                raise ArgumentError(name, "one row per text with one value per token, as log_probs", shapes[name][:3])

    def __len__(self) -> int:
        return len(self.log_probs)

    def __getitem__(self, chosen: slice) -> TokenScores:
        """The scores of some of the texts."""
        return TokenScores(*(getattr(self, name)[chosen] for name in _FIELDS))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) T_i, how many tokens of each text are predicted."""
        return np.array([len(row) for row in self.log_probs], dtype=np.int64)

    @property
    def losses(self) -> NDArray[np.float64]:
        """(N,) mean negative log-likelihood per predicted token, in nats; NaN where there is none."""
        return np.array([-row.mean() if len(row) else np.nan for row in self.log_probs], dtype=np.float64)


def token_scores(model: torch.nn.Module, encoded: Encoded, *, batch_size: int = 32) -> TokenScores:
    """The scores of all texts, in their order; the model's mode is left as it was.

    Probabilities are taken in float64, as a memorised token's log p is rounded to 0 in float32. Each text is scored
    from its own pieces, so neither padding nor its neighbours are in any figure.

    Args:
        model: a `CausalLanguageModel`, such as `LanguageModel` or one that `load_checkpoint` opened.
        encoded: what its `encode` gave.
        batch_size: texts per forward pass; changes nothing but rounding.

    Raises:
        ArgumentError: no texts, batch_size < 1, or a model whose logits are not of pieces.
    """
    checks.not_empty("encoded", encoded)
    checks.at_least("batch_size", batch_size, 1)
    with scoring(model) as device:
        rows = [row for batch in batches(encoded, batch_size) for row in _rows(model, batch.to(device))]
    return TokenScores(*zip(*rows, strict=True))


Row = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]


def _rows(model: torch.nn.Module, batch: Batch) -> Iterator[Row]:
    """The four arrays of each text. Texts are widened to float64 one by one: a whole batch may be gigabytes."""
    logits = model.logits(batch).get("pieces")  # type: ignore[operator]
    if logits is None:
        raise ArgumentError("model", "a causal language model", type(model).__name__)
    for scores, pieces, count in zip(logits, batch.inputs["pieces"], batch.inputs["spans"].tolist(), strict=True):
        predicted = max(count - 1, 0)
        yield _row(scores[:predicted], pieces[1 : predicted + 1].long())


def _row(scores: Tensor, tokens: Tensor) -> Row:
    """The four arrays (T,) of one text from its `scores` (T, V) and the `tokens` (T,) that stand there."""
    log_p = scores.double().log_softmax(-1)
    p = log_p.exp()
    finite = log_p.masked_fill(p == 0, 0.0)  # p log p -> 0 as p -> 0, also where a token is ruled out
    mean = (p * finite).sum(-1)
    # As the mean of squared distances, which rounding cannot make negative.
    std = (p * (finite - mean[:, None]).square()).sum(-1).sqrt()
    own = log_p.gather(-1, tokens[:, None])[:, 0]
    right = scores.argmax(-1) == tokens
    return own.cpu().numpy(), mean.cpu().numpy(), std.cpu().numpy(), right.cpu().numpy()
