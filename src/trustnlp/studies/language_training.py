"""How studies train small language models: one to compare with, some that fit their texts, and a private one.

Figures were chosen on WikiText-2, which is public. Optimiser and batches are the same for all but the private one; what
differs is how long they train.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trustnlp.data import registry
from trustnlp.data.corpus import Example
from trustnlp.dp import FlatClipping, Ledger, PrivacyPlan
from trustnlp.errors import ArgumentError
from trustnlp.models import LanguageModel, PlainStep, ShuffledBatches, build_language_model, fit, losses
from trustnlp.progress import Progress
from trustnlp.randomness import Streams
from trustnlp.results import Finding
from trustnlp.studies import corpora, recipes
from trustnlp.studies.recipes import PrivateRecipe, Recipe
from trustnlp.studies.regimes import epsilon_finding

REFERENCE, FITTED, MEMORISED, PRIVATE = "reference", "fitted", "memorised", "private"
EPSILON = 8.0
BYTES, GPT2 = "bytes", "gpt2"
_PLAIN = {
    REFERENCE: Recipe(2e-3, 8, 30, patience=2),
    FITTED: Recipe(2e-3, 8, 30, patience=2),
    MEMORISED: Recipe(2e-3, 8, 20),
}
_BY_HEART = {"dropout": 0.0}
_PRIVATE = PrivateRecipe(2e-3, 256, 8, FlatClipping(1.0), {"dropout": 0.0})
_SHAPE = {"width": 128, "layers": 2, "heads": 4, "max_pieces": 256}
_MERGES = 1024  # of GPT-2's: with more, such a small model spends its time on the vocabulary


@dataclass(frozen=True)
class Trained:
    """A model in evaluation mode, and what its training found: the budget spent, if any."""

    model: LanguageModel
    findings: tuple[Finding, ...] = ()


def train(
    training: str,
    texts: Sequence[Example],
    valid: Sequence[Example],
    *,
    vocabulary: str,
    streams: Streams,
    folder: Path,
    device: str,
    progress: Progress,
) -> Trained:
    """Trains a language model in `folder`, goes on there, or takes what was trained there.

    Args:
        training: `reference` and `fitted`, which stop when they get no better on `valid`; `memorised`, which does not;
            `private`, whose number of steps is fixed, as `valid` has no guarantee.
        texts: what it learns from.
        valid: held-out texts.
        vocabulary: `bytes`, `gpt2` (the first merges of those in $TRUSTNLP_DATA), or a public tokenizer's folder.
        streams: the training's own.
        folder: of its checkpoints.
        device: where it is trained.
        progress: hears of every step.
    """
    if training == PRIVATE:
        return _private(texts, vocabulary, streams, folder, device, progress)
    options = _BY_HEART if training == MEMORISED else {}
    recipe, model = _PLAIN[training], build(vocabulary, streams, **options).to(device)
    held_out = model.encode(valid)
    sampler = ShuffledBatches(len(texts), recipe.batch_size, recipe.epochs, streams)
    optimizer = torch.optim.Adam(model.parameters(), recipe.learning_rate)
    fit(
        model,
        model.encode(texts, for_training=True),
        sampler,
        PlainStep(model, optimizer, clip_grad_norm=recipes.CLIP_GRAD_NORM),
        streams=streams,
        evaluate=lambda: {"score": -float(losses(model, held_out).mean())},
        patience=None if training == MEMORISED else recipe.patience,
        folder=folder,
        progress=progress,
        stage=folder.name,
    )
    return Trained(model)


def _private(
    texts: Sequence[Example], vocabulary: str, streams: Streams, folder: Path, device: str, progress: Progress
) -> Trained:
    recipe, model = _PRIVATE, build(vocabulary, streams, **_PRIVATE.options).to(device)
    plan = PrivacyPlan.for_budget(
        epsilon=EPSILON,
        delta=corpora.delta_for(len(texts)),
        examples=len(texts),
        expected_batch=min(recipe.batch_size, len(texts) // 5),
        epochs=recipe.epochs,
        clipping=recipe.clipping,
    )
    ledger = Ledger.open(folder / "ledger.jsonl", plan)
    optimizer = torch.optim.Adam(model.parameters(), recipe.learning_rate)
    fit(
        model,
        model.encode(texts, for_training=True),
        plan.sampler(streams),
        plan.step(model, optimizer, streams=streams, ledger=ledger),
        streams=streams,
        folder=folder,
        checkpoint_every=recipes.CHECKPOINT_EVERY,
        progress=progress,
        stage=folder.name,
    )
    return Trained(model, (epsilon_finding(ledger, plan.statement(), EPSILON),))


def build(vocabulary: str, streams: Streams, **options: Any) -> LanguageModel:
    """A new model over that vocabulary, see `train`.

    Raises:
        ArgumentError: `gpt2` without $TRUSTNLP_DATA.
        ModelError: no tokenizer there.
    """
    shape: dict[str, Any] = {**_SHAPE, **options}
    if vocabulary == BYTES:
        shape["max_pieces"] *= 2  # a text has more bytes than pieces
    if vocabulary != GPT2:
        return build_language_model(vocabulary, streams=streams, **shape)
    root = registry.root()
    if root is None:
        rule = f"'bytes' or a folder where {registry.VARIABLE} is not set"
        raise ArgumentError("vocabulary", rule, vocabulary)
    return build_language_model(root / "tokenizers" / GPT2, streams=streams, merges=_MERGES, **shape)
