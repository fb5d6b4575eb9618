"""From hidden states to answers: joint intent and slot labelling, text classification, tagging.

Shape legend: B batch, T words, D width, K labels, S slot tags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trustnlp.data.corpus import Example
from trustnlp.data.encoding import NO_TARGET, Encoding, Schema
from trustnlp.errors import ModelError
from trustnlp.models import bio
from trustnlp.models.crf import LinearChainCRF
from trustnlp.models.encoded import Split
from trustnlp.models.protocol import Batch


class Hidden(NamedTuple):
    """What a backbone makes of a batch: `words` (B, T, D) and `text` (B, D)."""

    words: Tensor
    text: Tensor


class Backbone(nn.Module):
    """A module that reads inputs into `Hidden` of `width`; no layer of it may mix the examples of a batch.

    It reads in two steps, so that an attack can put vectors between them that belong to no word.
    """

    width: int

    def __call__(self, inputs: Mapping[str, Tensor]) -> Hidden:
        """Hidden states; what stands at padding is never read."""
        hidden: Hidden = super().__call__(inputs)
        return hidden

    def forward(self, inputs: Mapping[str, Tensor]) -> Hidden:
        """Hidden states of words and text."""
        return self.read(self.embed(inputs), inputs)

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Vectors (B, T, D) of words, or (B, P, D) of pieces, each of which depends on its own word or piece alone."""
        raise NotImplementedError

    def read(self, vectors: Tensor, inputs: Mapping[str, Tensor]) -> Hidden:
        """Hidden states of texts whose words, or pieces, have these vectors; `inputs` says how long they are."""
        raise NotImplementedError


class LabelModel(nn.Module):
    """A model that answers labels, tags or both; its loss is their cross-entropy.

    Args:
        encoding: text to the model's inputs.
        schema: what it answers.
    """

    def __init__(self, encoding: Encoding, schema: Schema) -> None:
        super().__init__()
        self.encoding = encoding
        self.schema = schema

    def encode(self, examples: Sequence[Example], for_training: bool = False) -> Split:
        """The examples, ready for `loss`.

        Raises:
            ModelError: `for_training`, and an example has no target or one the model cannot answer.
        """
        inputs = self.encoding.encode([example.text for example in examples])
        return Split(examples, inputs, self.schema, for_training=for_training)

    def logits(self, batch: Batch) -> dict[str, Tensor]:
        """Unnormalised scores: `label` (B, K) and `tags` (B, T, S), each where the model has such a head."""
        raise NotImplementedError

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Vectors (B, T, D) of words, or (B, P, D) of pieces, each of which depends on its own word or piece alone."""
        raise NotImplementedError

    def logits_of_vectors(self, vectors: Tensor, batch: Batch) -> dict[str, Tensor]:
        """`logits` of the batch's texts with `vectors`, shaped as `embed` makes them, in place of their own."""
        raise NotImplementedError

    def best_tags(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) numbers of the tags answered for `tags` logits (B, T, S); beyond `lengths` (B,) they mean nothing."""
        del lengths
        return scores.argmax(-1)

    def losses_of(self, logits: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """(B,) cross-entropy of the label plus the mean over words of the tags' cross-entropy, in nats.

        What `logits` leaves out has no loss.
        """
        return cross_entropies(logits, batch.targets)

    def loss(self, batch: Batch) -> Tensor:
        """(B,) `losses_of` the model's own logits."""
        return self.losses_of(self.logits(batch), batch)


class NLUModel(LabelModel):
    """A backbone with a label head, a tag head or both, as the schema says.

    The tag head reads each word beside its whole text, as which slots occur depends on the intent. Of all tag
    sequences that are valid BIO, the best one is answered.

    Args:
        backbone: the module that reads.
        encoding: text to the backbone's inputs.
        schema: the labels and tags it answers; at least one of them not empty.
        config: all that is needed to build the same model again, JSON-able.
        crf: score tags as whole sequences, by a CRF over the tag head's scores.

    Raises:
        ModelError: a schema without labels and without tags, or without tags for a CRF.
    """

    def __init__(
        self, backbone: Backbone, encoding: Encoding, schema: Schema, config: Mapping[str, Any], *, crf: bool = False
    ) -> None:
        super().__init__(encoding, schema)
        if not (schema.labels or schema.tags):
            raise ModelError("the corpus has neither labels nor tags to learn", "give it a label column")
        if crf and not schema.tags:
            raise ModelError("the corpus has no tags for a CRF to score", "leave out the option crf")
        self.backbone = backbone
        self.config = config
        self.label_head = nn.Linear(backbone.width, len(schema.labels)) if schema.labels else None
        self.tag_head = nn.Linear(2 * backbone.width, len(schema.tags)) if schema.tags else None
        self.crf = LinearChainCRF(len(schema.tags)) if crf else None

    def logits(self, batch: Batch) -> dict[str, Tensor]:
        """Unnormalised scores: `label` (B, K) and `tags` (B, T, S), each where the model has such a head."""
        return self._answers(self.backbone(batch.inputs))

    def representation(self, batch: Batch) -> Tensor:
        """(B, D) what the backbone makes of each text."""
        return self.backbone(batch.inputs).text

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Vectors (B, T, D) of words, or (B, P, D) of pieces, each of which depends on its own word or piece alone."""
        return self.backbone.embed(inputs)

    def logits_of_vectors(self, vectors: Tensor, batch: Batch) -> dict[str, Tensor]:
        """`logits` of the batch's texts with `vectors`, shaped as `embed` makes them, in place of their own."""
        return self._answers(self.backbone.read(vectors, batch.inputs))

    def _answers(self, hidden: Hidden) -> dict[str, Tensor]:
        scores = {}
        if self.label_head is not None:
            scores["label"] = self.label_head(hidden.text)
        if self.tag_head is not None:
            text = hidden.text[:, None].expand_as(hidden.words)
            scores["tags"] = self.tag_head(torch.cat([hidden.words, text], -1))
        return scores

    def best_tags(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) numbers of the tags answered for `tags` logits (B, T, S): the best valid BIO sequence."""
        if self.crf is not None:
            return self.crf.decode(scores, lengths, bio.following(self.schema.tags, scores.device))
        return bio.decode(scores, lengths, self.schema.tags)

    def losses_of(self, logits: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """(B,) cross-entropy of the label plus that of the tags, in nats per word; a CRF's is of the whole sequence."""
        if self.crf is None or "tags" not in logits:
            return super().losses_of(logits, batch)
        lengths, tags = batch.inputs["lengths"], batch.targets["tags"]
        sequences = self.crf(_wide(logits["tags"]), tags.clamp(min=0), lengths) / lengths
        tagged = sequences.where((tags != NO_TARGET).any(1), 0.0)
        labels = {name: scores for name, scores in logits.items() if name != "tags"}
        return tagged + cross_entropies(labels, batch.targets) if labels else tagged


def cross_entropies(logits: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
    """(B,) sum over `label` and `tags` of the cross-entropy, each a mean over its targets, in nats.

    Training scores in float32. Without gradients scores are float64, since attacks rank by losses that float32
    rounds to 0; so they are of a model that computes in float64.
    """
    return torch.stack([_cross_entropy(logits[name], targets[name]) for name in logits]).sum(0)


def _wide(logits: Tensor) -> Tensor:
    narrowest = torch.float32 if torch.is_grad_enabled() else torch.float64
    return logits.to(torch.promote_types(logits.dtype, narrowest))


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    logits = _wide(logits)
    losses = F.cross_entropy(logits.flatten(0, -2), target.flatten(), ignore_index=NO_TARGET, reduction="none")
    known = (target != NO_TARGET).reshape(len(target), -1)
    return losses.reshape(known.shape).sum(1) / known.sum(1).clamp(min=1)


def word_mask(lengths: Tensor, width: int) -> Tensor:
    """(B, width) true for the first `lengths` (B,) positions."""
    return torch.arange(width, device=lengths.device) < lengths[:, None]
