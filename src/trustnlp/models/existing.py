"""Existing Hugging Face checkpoints, audited without training.

Shape legend: B batch, P pieces, T words, K labels, S tags.

A checkpoint is taken for the task it was trained for, as its `architectures` and its weights say. A checkpoint
without the head of a task is refused: Transformers would draw that head at random, and an audit of it would be
an audit of nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from trustnlp import checks
from trustnlp.data.corpus import Example
from trustnlp.data.encoding import Schema, Subwords
from trustnlp.errors import ModelError
from trustnlp.models import checkpoint
from trustnlp.models.encoded import Split
from trustnlp.models.heads import LabelModel
from trustnlp.models.language_model import LanguageModel, piece_logits
from trustnlp.models.pretrained import open_config, open_subwords, open_weights, pad_of
from trustnlp.models.protocol import Batch
from trustnlp.models.transformer import at_words, looked_up, piece_vectors

CLASSIFICATION, TAGGING, LANGUAGE_MODEL = "classification", "tagging", "language-model"
_HEADS = {
    "ForSequenceClassification": CLASSIFICATION,
    "ForTokenClassification": TAGGING,
    "ForCausalLM": LANGUAGE_MODEL,
    "LMHeadModel": LANGUAGE_MODEL,
}


class ExistingLabeller(LabelModel):
    """A text classifier or token classifier; gold labels may be given by name or by number.

    Args:
        model: with logits (B, K), or (B, P, S) for a tagger.
        encoding: its tokenizer.
        task: `classification` or `tagging`.
    """

    def __init__(self, model: PreTrainedModel, encoding: Subwords, task: str) -> None:
        names = _names(model.config)
        super().__init__(encoding, Schema(names, ()) if task == CLASSIFICATION else Schema((), names))
        self.model = model

    def encode(self, examples: Sequence[Example], for_training: bool = False) -> Split:
        """The examples, ready for `loss`; a label that is a number stands for the name with that number."""
        return super().encode([self._named(example) for example in examples], for_training)

    def _named(self, example: Example) -> Example:
        names, label = self.schema.labels, example.label
        if label is None or label in names or not label.isdecimal() or int(label) >= len(names):
            return example
        return replace(example, label=names[int(label)])

    def logits(self, batch: Batch) -> dict[str, Tensor]:
        """`label` (B, K), or `tags` (B, T, S) read at each word's first piece."""
        logits = piece_logits(self.model, batch)
        return {"tags": at_words(logits, batch.inputs["first"])} if self.schema.tags else {"label": logits}

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Vectors (B, P, D) of pieces, without their positions."""
        return piece_vectors(self.model, inputs["pieces"])

    def logits_of_vectors(self, vectors: Tensor, batch: Batch) -> dict[str, Tensor]:
        """`logits` of the batch's texts with `vectors`, shaped as `embed` makes them, in place of their own."""
        with looked_up(self.model, vectors):
            return self.logits(batch)


class ExistingLanguageModel(LanguageModel):
    """A causal language model that was trained elsewhere."""


def load_checkpoint(source: str | Path, task: str | None = None) -> LabelModel | LanguageModel:
    """The trained model at `source`, a Hugging Face folder or hub name, or a folder that trustnlp wrote.

    Args:
        source: needs safetensors weights and a fast tokenizer.
        task: `classification`, `tagging` or `language-model`; None takes what the checkpoint was trained for.

    Raises:
        ModelError: it has no head for the task, or cannot be opened, or is not safe to open.
    """
    if task is not None:
        checks.one_of("task", task, (CLASSIFICATION, TAGGING, LANGUAGE_MODEL))
    if checkpoint.is_ours(source):
        return _audited(source, checkpoint.load(source))
    config = open_config(source)
    trained_for = _task_of(source, config)
    if task is not None and task != trained_for:
        raise ModelError(
            f"{str(source)!r} has no {task} head, but one for {trained_for}", f"give one with a {task} head"
        )
    if trained_for == LANGUAGE_MODEL:
        return ExistingLanguageModel(_whole(source, AutoModelForCausalLM), open_subwords(source, config)).eval()
    auto = AutoModelForSequenceClassification if trained_for == CLASSIFICATION else AutoModelForTokenClassification
    _refuse_other_targets(source, config)
    return ExistingLabeller(_whole(source, auto), open_subwords(source, config), trained_for).eval()


def _audited(source: str | Path, model: checkpoint.Saved) -> LabelModel | LanguageModel:
    if not isinstance(model, LabelModel | LanguageModel):
        reason = f"{str(source)!r} is a {type(model).__name__}, which is neither a labeller nor a language model"
        raise ModelError(reason, "open it with models.load")
    return model


def _task_of(source: str | Path, config: PretrainedConfig) -> str:
    architectures = config.architectures or []
    for architecture in architectures:
        for ending, task in _HEADS.items():
            if architecture.endswith(ending) and not config.is_encoder_decoder:
                return task
    found = ", ".join(architectures) or "no architecture"
    raise ModelError(
        f"{str(source)!r} has no task head that can be audited ({found})",
        "give a checkpoint of a sequence classifier, a token classifier or a causal language model; "
        "an encoder alone can be trained with build",
    )


def _refuse_other_targets(source: str | Path, config: PretrainedConfig) -> None:
    if config.num_labels < 2 or config.problem_type in ("regression", "multi_label_classification"):
        raise ModelError(f"{str(source)!r} does not choose one of several labels", "give a single-label classifier")


def _whole(source: str | Path, auto: Any) -> PreTrainedModel:
    model, lacking = open_weights(source, auto)
    if lacking:
        raise ModelError(
            f"{str(source)!r} lacks weights that its architecture needs, such as {min(lacking)!r}",
            "give the whole checkpoint; weights drawn at random would make every figure meaningless",
        )
    if model.config.pad_token_id is None:
        model.config.pad_token_id = pad_of(model.config)  # classifiers on decoders look for the last real piece
    return model


def _names(config: PretrainedConfig) -> tuple[str, ...]:
    """Label names in the order of their numbers."""
    return tuple(str(config.id2label[number]) for number in range(config.num_labels))
