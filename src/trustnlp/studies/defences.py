"""Defences against memorisation, alone and combined, and the one training that differs by nothing else.

The model is a joint intent and slot BiLSTM of 100 units a direction with word embeddings from scratch. For the same
streams all trainings begin alike and shuffle alike, and the learning rate does not depend on how many epochs are asked
for, so stopping early gives just the model that so many epochs without stopping would have given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from trustnlp import checks, models
from trustnlp.data.corpus import Corpus, Example
from trustnlp.dp import PrivacyPlan
from trustnlp.errors import ArgumentError
from trustnlp.models import evaluation
from trustnlp.models.protocol import Sampler, Step
from trustnlp.models.training import PlainStep, ShuffledBatches, fit
from trustnlp.randomness import Streams
from trustnlp.studies import corpora, recipes

EPOCHS, PATIENCE = 20, 3
DROPOUT, FILTERS = 0.5, 50
_RATE, _BATCH = 1e-2, 64
_SHAPE = {"hidden": 100, "width": 96, "buckets": 2048, "word_dropout": 0.0}


@dataclass(frozen=True)
class Defence:
    """What a training does against memorising, alone or combined.

    Args:
        dropout: leave out half of the word vectors' and of the hidden states' values at every step.
        early_stopping: keep the epoch that is best on the validation split, and stop when it is `PATIENCE` epochs ago.
        characters: read words also letter by letter, by a CNN of `FILTERS` filters of width 3.
        epsilon: train with differential privacy (one text) and this budget; on its own.

    Raises:
        ArgumentError: epsilon <= 0, or beside another defence.
    """

    dropout: bool = False
    early_stopping: bool = False
    characters: bool = False
    epsilon: float | None = None

    def __post_init__(self) -> None:
        if self.epsilon is not None:
            checks.positive("epsilon", self.epsilon)
            if self._switched_on():
                raise ArgumentError("epsilon", "on its own", self._switched_on(), "study one of them at a time")

    def __str__(self) -> str:
        if self.epsilon is not None:
            return f"privacy, epsilon {self.epsilon:g}"
        names = self._switched_on()
        return "all three" if len(names) == 3 else " + ".join(names) or "none"

    def _switched_on(self) -> tuple[str, ...]:
        names = ("dropout", "early_stopping", "characters")
        return tuple(name.replace("_", " ") for name in names if getattr(self, name))

    def plan(self, examples: int) -> PrivacyPlan | None:
        """How `examples` texts are trained on privately, or None; calibrating the noise takes seconds."""
        if self.epsilon is None:
            return None
        recipe = recipes.private("bilstm", examples)
        return PrivacyPlan.for_budget(
            epsilon=self.epsilon,
            delta=corpora.delta_for(examples),
            examples=examples,
            expected_batch=recipe.batch_size,
            epochs=recipe.epochs,
            clipping=recipe.clipping,
        )


@dataclass(frozen=True)
class Trained:
    """A model, and after how many epochs its weights were taken."""

    model: models.NLUModel
    epochs: int


def train(
    defence: Defence,
    schema: Corpus,
    texts: Sequence[Example],
    valid: Sequence[Example],
    *,
    epochs: int,
    streams: Streams,
    plan: PrivacyPlan | None = None,
) -> Trained:
    """A model trained on `texts` under `defence`.

    Args:
        schema: the corpus whose labels and tags the model answers with.
        valid: what early stopping watches.
        epochs: passes over the texts, at most; a private training has those of its plan.
        plan: of `defence.plan(len(texts))`.
    """
    filters = FILTERS if defence.characters else 0
    dropout = DROPOUT if defence.dropout else 0.0
    model = models.build("bilstm", schema, streams=streams, dropout=dropout, char_filters=filters, **_SHAPE)
    sampler, step = _private(model, plan, streams) if plan else _plain(model, len(texts), epochs, streams)
    history = fit(
        model,
        model.encode(texts, for_training=True),
        sampler,
        step,
        streams=streams,
        evaluate=_watch(model, valid) if defence.early_stopping else None,
        patience=PATIENCE if defence.early_stopping else None,
    )
    return Trained(model, len(history.epochs) if history.best_epoch is None else history.best_epoch + 1)


def _watch(model: models.NLUModel, valid: Sequence[Example]) -> Callable[[], dict[str, float]]:
    held_out = model.encode(valid)
    return lambda: evaluation.evaluate(model, held_out)


def _plain(model: models.NLUModel, size: int, epochs: int, streams: Streams) -> tuple[Sampler, Step]:
    optimizer = torch.optim.Adam(model.parameters(), _RATE)
    step = PlainStep(model, optimizer, clip_grad_norm=recipes.CLIP_GRAD_NORM)
    return ShuffledBatches(size, _BATCH, epochs, streams), step


def _private(model: models.NLUModel, plan: PrivacyPlan, streams: Streams) -> tuple[Sampler, Step]:
    optimizer = torch.optim.Adam(model.parameters(), recipes.private("bilstm", plan.examples).learning_rate)
    return plan.sampler(streams), plan.step(model, optimizer, streams=streams)
