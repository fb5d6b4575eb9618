"""Membership by single words: taggers have a loss for every word, and one word may give its whole text away.

    losses, lengths = token_losses(model, encoded)                      every word of every text, one after another
    scores = lira.score(losses, shadow_losses, of_words(inside, lengths))   or any other score, of words
    by_text(scores, lengths, "mean")                                    one score for each text again
    one_word_each(scores, lengths, generator)                           independent words, to be judged by `evaluate`

Words of one text were trained on together or not at all, so they are no independent cases: judged all at once, their
intervals would be too narrow.

Shape legend: N texts, W words of all texts together, K shadow models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch.nn import functional as F

from trustnlp import checks
from trustnlp.data.encoding import NO_TARGET
from trustnlp.errors import ArgumentError, GuaranteeError, ModelError
from trustnlp.models import LabelModel
from trustnlp.models.encoded import Split
from trustnlp.models.evaluation import BATCH_SIZE, scoring
from trustnlp.models.protocol import batches

Array = NDArray[Any]

_OF_TEXT: Mapping[str, Callable[[Array, Array], Array]] = {
    "mean": lambda scores, starts: np.add.reduceat(scores, starts) / np.diff(np.append(starts, len(scores))),
    "sum": np.add.reduceat,
    "max": np.maximum.reduceat,
}


def token_losses(model: LabelModel, encoded: Split) -> tuple[Array, Array]:
    """The cross-entropy of every word's tag, (W,), in nats, and how many words each text has, (N,).

    The mean over a text's words is what tags add to `LabelModel.loss`. Words beyond what the model reads have none.

    Raises:
        ModelError: a model without tags, or one that scores them as a whole, so that no word has a loss of its own.
        GuaranteeError: a text without words or tags that the model knows.
    """
    if not model.schema.tags or getattr(model, "crf", None) is not None:
        raise ModelError("this model has no loss for single words", "use its loss for whole texts")
    losses, lengths = [], []
    with scoring(model) as device:
        for batch in batches(encoded, BATCH_SIZE):
            here = batch.to(device)
            scores, tags = model.logits(here)["tags"].double(), here.targets["tags"]
            known = tags != NO_TARGET
            losses.append(F.cross_entropy(scores[known], tags[known], reduction="none").cpu().numpy())
            lengths.append(known.sum(1).cpu().numpy())
    return np.concatenate(losses), _lengths(np.concatenate(lengths))


def of_words(values: ArrayLike, lengths: ArrayLike) -> Array:
    """What is said of texts, (..., N), said of each of their words, (..., W).

    Raises:
        ArgumentError: not one length for each text.
        GuaranteeError: a text without words.
    """
    array, counts = np.asarray(values), _lengths(lengths)
    if array.ndim == 0 or array.shape[-1] != len(counts):
        raise ArgumentError("values", f"of shape (..., {len(counts)})", array.shape)
    return np.repeat(array, counts, axis=-1)


def by_text(scores: ArrayLike, lengths: ArrayLike, how: str = "mean") -> Array:
    """One score for each text, (N,), of those of its words, (W,).

    Args:
        scores: of words, higher = more member-like.
        lengths: (N,) words of each text.
        how: `mean`; `sum`, which of log likelihood ratios is that of the text if its words were independent; or `max`,
            the word that gives most away.

    Raises:
        ArgumentError: shapes that do not fit, or an unknown `how`.
        GuaranteeError: a text without words.
    """
    array, counts = _of_words(scores, lengths)
    reduce = _OF_TEXT[checks.one_of("how", how, tuple(_OF_TEXT))]
    return reduce(array, np.cumsum(counts) - counts)


def one_word_each(scores: ArrayLike, lengths: ArrayLike, generator: np.random.Generator) -> Array:
    """The score of one random word of each text, (N,): independent cases, as `membership.evaluate` needs them.

    Raises:
        ArgumentError: shapes that do not fit.
        GuaranteeError: a text without words.
    """
    array, counts = _of_words(scores, lengths)
    return array[np.cumsum(counts) - counts + generator.integers(counts)]


def _of_words(scores: ArrayLike, lengths: ArrayLike) -> tuple[Array, Array]:
    array, counts = np.asarray(scores, dtype=float), _lengths(lengths)
    if array.shape != (counts.sum(),):
        raise ArgumentError("scores", f"of shape ({counts.sum()},), one for each word", array.shape)
    return array, counts


def _lengths(lengths: ArrayLike) -> Array:
    counts = np.asarray(lengths)
    if counts.ndim != 1 or counts.size == 0 or not np.issubdtype(counts.dtype, np.integer):
        raise ArgumentError("lengths", "a non-empty list of whole numbers", f"{counts.dtype} of shape {counts.shape}")
    empty = int((counts < 1).sum())
    if empty:
        raise GuaranteeError(f"{empty} of {len(counts)} texts have no word with a known tag", "leave these texts out")
    return counts
