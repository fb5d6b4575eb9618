"""Texts whose last words are blank, scored by a model with whatever stands there: words, or mixtures of words.

A word's vector is what the model makes of it by itself, be it hashed, spelled or looked up, before it reads the word
beside others. So each candidate is embedded once, and a mixture with all its weight on one word is that word exactly.

Shape legend: C canaries, B texts, T words or pieces of a text, n words of a secret, V candidates, D width.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from trustnlp import checks
from trustnlp.data.canaries import Canary
from trustnlp.data.corpus import Example
from trustnlp.data.encoding import NO_TARGET, Subwords
from trustnlp.errors import ArgumentError, GuaranteeError, ModelError
from trustnlp.models.heads import LabelModel
from trustnlp.models.protocol import Batch, batches

OBJECTIVES: Mapping[str, tuple[str, ...]] = {"joint": ("label", "tags"), "label": ("label",), "tags": ("tags",)}
_TEXTS = 1000  # embedded at a time
_ROUNDING = 1e-5  # of a vector, in float32


class Blanks:
    """The texts of C canaries with n blanks for their secrets, which are never looked at.

    Args:
        model: as `frozen` makes it.
        canaries: with secrets of one length.
        words: the V candidates.
        objective: what the loss is of: the `label`, the `tags`, or `joint`, whichever the model answers.

    Attributes:
        vectors: (V, D) of the candidates.

    Raises:
        ArgumentError: `objective` is none of OBJECTIVES.
        ModelError: the model lacks a head for the objective, does not know the label or a tag, reads less than the
            whole text, or reads some candidates as several pieces (see `single_words`).
    """

    def __init__(self, model: LabelModel, canaries: Sequence[Canary], words: Sequence[str], objective: str) -> None:
        self.model, self.canaries, self.words = model, tuple(canaries), tuple(words)
        self.length = len(canaries[0].secret)
        self.device = next(model.parameters()).device
        self._parts = _parts(model, objective)
        _refuse_long(model, canaries)
        self._batch = self._encoded([[words[0]] * self.length for _ in canaries])
        _refuse_unknown(canaries, self._batch, self._parts)
        self.vectors, single = _looked_up(model, " ".join(canaries[0].prefix), self.words)
        if not single.all():
            raise ModelError(
                f"{int((~single).sum())} of {len(words)} candidates are several pieces, or none, to the model",
                "keep those that 'single_words' gives",
            )
        self._places = _last_words(self._batch, self.length)
        with torch.no_grad():
            self._around = model.embed(self._batch.inputs)
        self._refuse_dependent()

    def losses(self, texts: Tensor, vectors: Tensor) -> Tensor:
        """(B,) losses of the texts of canaries `texts` (B,) with `vectors` (B, n, D) in their blanks, in nats."""
        inputs, targets = (
            {name: values[texts] for name, values in part.items()} for part in (self._batch.inputs, self._batch.targets)
        )
        batch = Batch(inputs, targets)
        logits = self.model.logits_of_vectors(self._filled(texts, vectors), batch)
        return self.model.losses_of({part: logits[part] for part in self._parts}, batch)

    def score(self, texts: Tensor, numbers: Tensor) -> Tensor:
        """(B,) losses of the texts of canaries `texts` (B,) with candidates `numbers` (B, n), without gradients.

        Raises:
            GuaranteeError: a loss is NaN or infinite.
        """
        with torch.no_grad():
            found = self.losses(texts, self.vectors[numbers])
        bad = int((~found.isfinite()).sum())
        if bad:
            raise GuaranteeError(f"{bad} of {len(found)} texts have a loss that is NaN or infinite", "mend the model")
        return found

    def _filled(self, texts: Tensor, vectors: Tensor) -> Tensor:
        places = self._places[texts][:, :, None].expand_as(vectors)
        return self._around[texts].scatter(1, places, vectors)

    def _encoded(self, secrets: Sequence[Sequence[str]]) -> Batch:
        examples = [
            Example(" ".join((*canary.prefix, *secret)), canary.label, canary.tags)
            for canary, secret in zip(self.canaries, secrets, strict=True)
        ]
        return self.model.encode(examples).batch(range(len(examples))).to(self.device)

    def _refuse_dependent(self) -> None:
        """Raises unless texts of words have the very vectors that are put into their blanks."""
        texts = torch.arange(len(self.canaries), device=self.device)
        numbers = (texts[:, None] + torch.arange(self.length, device=self.device)) % len(self.words)
        batch = self._encoded([[self.words[number] for number in row] for row in numbers.tolist()])
        with torch.no_grad():
            found, expected = self.model.embed(batch.inputs), self._filled(texts, self.vectors[numbers])
        if found.shape != expected.shape or (found - expected).abs().max() > _ROUNDING * found.abs().max():
            raise ModelError(
                "a word's vector depends on the words beside it, so it cannot be searched by itself",
                "score whole texts instead, by exposure.score_candidates",
            )


def frozen(model: LabelModel, dtype: torch.dtype = torch.float64) -> LabelModel:
    """A copy in evaluation mode; in float64, even the loss of a memorised text has a slope.

    Raises:
        ArgumentError: `model` answers neither labels nor tags.
    """
    if not isinstance(model, LabelModel):
        raise ArgumentError("model", "one that answers labels or tags", type(model).__name__)
    copied: LabelModel = copy.deepcopy(model).to(dtype).eval().requires_grad_(False)
    return copied


def single_words(model: LabelModel, words: Iterable[str]) -> tuple[str, ...]:
    """Those of `words` that can be candidates: one word, or one piece, to the model. Each once, in their order.

    Raises:
        ArgumentError: no words.
    """
    distinct = tuple(dict.fromkeys(words))
    checks.not_empty("words", distinct)
    _, single = _looked_up(model, "a", distinct)
    return tuple(word for word, one in zip(distinct, single.tolist(), strict=True) if one)


def _parts(model: LabelModel, objective: str) -> tuple[str, ...]:
    heads = {"label": model.schema.labels, "tags": model.schema.tags}
    asked = OBJECTIVES[checks.one_of("objective", objective, tuple(OBJECTIVES))]
    parts = tuple(part for part in asked if heads[part])
    if not parts:
        raise ModelError(f"the model answers no {objective}", "use the objective 'joint'")
    return parts


def _refuse_long(model: LabelModel, canaries: Sequence[Canary]) -> None:
    limit = model.encoding.max_pieces if isinstance(model.encoding, Subwords) else model.encoding.max_words
    prefixes = model.encode([Example(" ".join(canary.prefix)) for canary in canaries]).batch(range(len(canaries)))
    longest = int(_lengths(prefixes).max()) + len(canaries[0].secret)
    if longest > limit:
        raise ModelError(
            f"the model reads {limit} words or pieces of a text, and a canary has {longest} or more",
            "shorten the canary, or build the model to read more",
        )


def _refuse_unknown(canaries: Sequence[Canary], batch: Batch, parts: Sequence[str]) -> None:
    for part in parts:
        known = (batch.targets[part] != NO_TARGET).reshape(len(canaries), -1).sum(1)
        wanted = batch.inputs["lengths"] if part == "tags" else torch.ones_like(known)
        lacking = [canary for canary, lacks in zip(canaries, (known < wanted).tolist(), strict=True) if lacks]
        if lacking:
            raise ModelError(
                f"the model cannot answer the {part} of the canary {' '.join(lacking[0].prefix)!r}",
                "build it from a corpus that has them, or choose another objective",
            )


def _looked_up(model: LabelModel, prefix: str, words: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Vectors (V, D) of `words` after `prefix`, and (V,) whether each of them is one word or piece to the model."""
    device = next(model.parameters()).device
    alone = model.encode([Example(prefix)]).batch([0])
    vectors, single = [], []
    for batch in batches(model.encode([Example(f"{prefix} {word}") for word in words]), _TEXTS):
        single.append((_lengths(batch) == _lengths(alone) + 1) & (batch.inputs["lengths"] > alone.inputs["lengths"]))
        here = batch.to(device)
        with torch.no_grad():
            last = _last_words(here, 1)[:, 0]
            vectors.append(model.embed(here.inputs)[torch.arange(len(here), device=device), last])
    return torch.cat(vectors), torch.cat(single)


def _lengths(batch: Batch) -> Tensor:
    """(B,) how many vectors `embed` makes of each text."""
    return batch.inputs.get("spans", batch.inputs["lengths"])


def _last_words(batch: Batch, count: int) -> Tensor:
    """(B, count) where the vectors of each text's last words are."""
    lengths = batch.inputs["lengths"]
    words = lengths[:, None] - torch.arange(count, 0, -1, device=lengths.device)
    return batch.inputs["first"].long().gather(1, words) if "first" in batch.inputs else words
