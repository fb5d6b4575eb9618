"""What a model answers, and how well: intent accuracy by scikit-learn, slot F1 by seqeval.

Shape legend: N examples, T words.

A gold label or tag that the model never learned counts as an error: the model cannot give the right answer, and
leaving the example out would flatter it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import nn

from trustnlp import checks
from trustnlp.errors import ArgumentError, CorpusError, ModelError
from trustnlp.models.encoded import Split
from trustnlp.models.heads import LabelModel
from trustnlp.models.protocol import Encoded, TextModel, batches

BATCH_SIZE = 128
OUTSIDE = "O"
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Predictions:
    """Answers beside the gold ones; None where the model has no such head.

    Args:
        labels, gold_labels: N names.
        tags, gold_tags: N rows of one tag per token; tokens that the model does not see are `O`.
        losses: (N,) in nats, float64; NaN where a gold name is unknown to the model, so that no loss exists.
    """

    labels: tuple[str, ...] | None
    tags: tuple[tuple[str, ...], ...] | None
    gold_labels: tuple[str, ...] | None
    gold_tags: tuple[tuple[str, ...], ...] | None
    losses: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """(N,) bool: whether the label is the gold one; false for a gold label the model never learned.

        Raises:
            ModelError: no labels.
        """
        if self.labels is None or self.gold_labels is None:
            raise ModelError("there are no labels to compare", "use a corpus and a model with labels")
        return np.array([a == b for a, b in zip(self.labels, self.gold_labels, strict=True)], dtype=bool)

    @property
    def accuracy(self) -> float:
        """Share of right labels, in [0, 1]; higher is better, ideal 1.

        Raises:
            ModelError: no labels.
        """
        from sklearn.metrics import accuracy_score

        if self.labels is None or self.gold_labels is None:
            raise ModelError("there are no labels to compare", "use a corpus and a model with labels")
        return float(accuracy_score(self.gold_labels, self.labels))

    @property
    def slot_f1(self) -> float:
        """Micro F1 over whole slots, right in place and name, in [0, 1]; higher is better, ideal 1.

        Raises:
            ModelError: no tags, or gold tags that are not BIO (parts of speech are scored by `tag_accuracy`).
        """
        from seqeval.metrics import f1_score

        gold, answered = self._tag_pairs()
        if not self.tags_are_slots:
            raise ModelError("the tags are not BIO tags, so there are no slots", "use tag_accuracy")
        return float(f1_score([list(row) for row in gold], [list(row) for row in answered], zero_division=0))

    @property
    def tag_accuracy(self) -> float:
        """Share of right tags, in [0, 1]; higher is better, ideal 1.

        Raises:
            ModelError: no tags.
        """
        gold, answered = self._tag_pairs()
        right = [a == b for pair in zip(gold, answered, strict=True) for a, b in zip(*pair, strict=True)]
        return float(np.mean(right))

    @property
    def tags_are_slots(self) -> bool:
        """Whether all gold tags are `O`, `B-…` or `I-…`."""
        return all(tag == OUTSIDE or tag[:2] in ("B-", "I-") for row in self.gold_tags or () for tag in row)

    def _tag_pairs(self) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...]]:
        if self.tags is None or self.gold_tags is None:
            raise ModelError("there are no tags to compare", "use a corpus and a model with slot tags")
        return self.gold_tags, self.tags

    def figures(self) -> dict[str, float]:
        """`accuracy`, `slot_f1` or `tag_accuracy`, `loss` (mean of those that exist), and their `score`.

        `score` is the mean of the accuracies and F1 that apply, in [0, 1], higher is better: what to watch.

        Raises:
            CorpusError: no gold answers at all.
        """
        found = {}
        if self.gold_labels is not None:
            found["accuracy"] = self.accuracy
        if self.gold_tags is not None:
            found |= {"slot_f1": self.slot_f1} if self.tags_are_slots else {"tag_accuracy": self.tag_accuracy}
        if not found:
            raise CorpusError("no example has a gold answer to compare with", "give labelled examples")
        known = self.losses[np.isfinite(self.losses)]
        loss = {"loss": float(known.mean())} if len(known) else {}
        return {"score": float(np.mean(list(found.values())))} | found | loss


def predict(model: LabelModel, encoded: Split, *, batch_size: int = BATCH_SIZE) -> Predictions:
    """The model's answers to all examples, in their order; the model's mode is left as it was.

    Raises:
        ArgumentError: no examples.
        CorpusError: gold labels or tags are given for some examples only.
    """
    checks.not_empty("encoded", encoded)
    labels: list[str] = []
    tags: list[tuple[str, ...]] = []
    losses: list[np.ndarray] = []
    texts = [len(example.tokens) for example in encoded.examples]
    with scoring(model) as device:
        for batch in batches(encoded, batch_size):
            here = batch.to(device)
            logits = model.logits(here)
            losses.append(model.losses_of(logits, here).cpu().numpy())
            if "label" in logits:
                labels += [model.schema.labels[i] for i in logits["label"].argmax(-1).tolist()]
            if "tags" in logits:
                best = model.best_tags(logits["tags"], here.inputs["lengths"]).tolist()
                tags += _tag_names(model.schema.tags, best, batch.inputs["lengths"].tolist(), texts[len(tags) :])
    gold_labels = _gold([example.label for example in encoded.examples]) if model.schema.labels else None
    gold_tags = _gold([example.tags for example in encoded.examples]) if model.schema.tags else None
    return Predictions(
        tuple(labels) if model.schema.labels else None,
        tuple(tags) if model.schema.tags else None,
        gold_labels,
        gold_tags,
        np.where(encoded.complete, np.concatenate(losses), np.nan),
    )


class Judged(Protocol):
    """A model that says itself how good its answers are, as those of span question answering and seq2seq do."""

    def figures(self, encoded: Any) -> dict[str, float]:
        """Figures of what its `encode` gave; `score` is in [0, 1], higher is better: what to watch."""
        ...


def evaluate(model: LabelModel | Judged, encoded: Encoded) -> dict[str, float]:
    """How good the model's answers are, for `fit(evaluate=...)`; `score` is in [0, 1], higher is better, ideal 1.

    Of labels and tags these are `predict(...).figures()`; other models say it themselves.
    """
    if isinstance(model, LabelModel):
        return predict(model, cast(Split, encoded)).figures()
    return model.figures(encoded)


def losses(model: nn.Module, encoded: Encoded, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
    """(N,) the loss of every example, float64; NaN where `encoded.complete` says that it means nothing.

    Raises:
        ArgumentError: `model` is not a TextModel, or no examples.
    """
    checks.not_empty("encoded", encoded)
    if not isinstance(model, TextModel):
        raise ArgumentError("model", "a TextModel, with the methods loss and logits", type(model).__name__)
    score = model.loss
    with scoring(model) as device:
        found = [score(batch.to(device)).double().cpu().numpy() for batch in batches(encoded, batch_size)]
    complete = getattr(encoded, "complete", np.ones(len(encoded), dtype=bool))
    return np.where(complete, np.concatenate(found), np.nan)


@contextmanager
def scoring(model: nn.Module) -> Iterator[torch.device]:
    """Inside, the model is in evaluation mode and computes no gradients; yields the device it is on."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield next(model.parameters()).device
    finally:
        model.train(was_training)


def _tag_names(
    names: Sequence[str], best: list[list[int]], seen: list[int], widths: Sequence[int]
) -> list[tuple[str, ...]]:
    """One row of tags per text, as long as the text, with `O` for words beyond those the model saw."""
    return [
        (*(names[tag] for tag in row[:count]), *[OUTSIDE] * (width - count))
        for row, count, width in zip(best, seen, widths, strict=False)
    ]


def _gold(answers: Sequence[Answer | None]) -> tuple[Answer, ...] | None:
    """All gold answers, or None where there is none at all."""
    known = tuple(answer for answer in answers if answer is not None)
    if known and len(known) < len(answers):
        raise CorpusError(
            f"only {len(known)} of {len(answers)} examples have a gold answer", "leave out those without, or label them"
        )
    return known or None
