"""Training on a device without labels: on the model's own answers, where it is confident.

    a text ── the server's model ──> answer, confidence > threshold?
      └─ a changed copy ── the model in training ──> loss against that answer

So the model learns to give a text and its changed copy one answer (consistency). As in SemiFL, answers are those of the
weights that the server has sent and stay the same throughout a visit; FixMatch asks the weights in training. The server
anchors them by labels of its own: see `server_steps`. The confidence of a text's tags is that of its least certain
word.

Thresholds of each label's own (FlexMatch, with its warm-up and its convex mapping): where s(c) is the share of texts
answered c with a confidence above tau, T(c) = tau b / (2 - b), b = s(c) / max(max s, 1 - sum s), so that easy labels do
not starve those that are harder to learn. Devices send s, and the server keeps a moving mean of it.

Source: Sohn et al. 2020, FixMatch, arXiv:2001.07685, equation 4; Diao et al. 2022, SemiFL, arXiv:2106.01432; Zhang et
al. 2021, FlexMatch, arXiv:2110.08263. All three change images; words here are lost or swapped.

Shape legend: N texts, B batch, T words, K labels, S slot tags.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trustnlp import checks
from trustnlp.data.corpus import Example
from trustnlp.data.encoding import NO_TARGET, Ragged
from trustnlp.data.perturbation import perturbed_places
from trustnlp.errors import ArgumentError, ModelError
from trustnlp.federated.algorithm import Round
from trustnlp.federated.local_training import Vectors, Visit
from trustnlp.federated.wrapped import Wrapped, supervised
from trustnlp.models.evaluation import BATCH_SIZE, scoring
from trustnlp.models.heads import LabelModel, word_mask
from trustnlp.models.protocol import Batch, Encoded, batches

CONFIDENT = "confident"
SOURCE = "source"
_COPY = "copy"
_MEMORY = 0.9  # of the moving mean of s, from round to round


@dataclass(frozen=True)
class PseudoLabels(Wrapped):
    """An algorithm whose devices answer their own texts where nobody has labelled them.

    Texts come from `Copies`. A text that has a label is learned as the base does, and not answered.

    Args:
        base: any algorithm.
        threshold: tau in [0, 1]: answers of a higher confidence are learned. At 1 nothing is, at 0 everything.
        weight: of the losses of such answers, >= 0; FixMatch's lambda.
        labels: K for a threshold of each label's own; one for all if None. Devices then send K shares beside their
            change, which a plan of user-level privacy does not cover and refuses.

    Raises:
        ArgumentError: a field breaks its rule.
    """

    threshold: float = 0.95
    weight: float = 1.0
    labels: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.within("threshold", self.threshold, 0, 1)
        checks.non_negative("weight", self.weight)
        if self.labels is not None:
            checks.at_least("labels", self.labels, 2)
            object.__setattr__(self, "sends", (*self.base.sends, CONFIDENT))

    def state(self, weights: Tensor) -> Vectors:
        """The base's, and s, of which nothing is known yet."""
        own = {} if self.labels is None else {CONFIDENT: torch.zeros(self.labels, device=weights.device)}
        return self.base.state(weights) | own

    def sent(self, state: Vectors) -> Vectors:
        """The base's, and s."""
        own = {} if self.labels is None else {CONFIDENT: state[CONFIDENT]}
        return self.base.sent(state) | own

    def loss(self, visit: Visit, batch: Batch) -> Tensor:
        """(B,) the base's loss where there is a label or there are tags; elsewhere that of the changed copy.

        Raises:
            ModelError: a model without labels or tags, or with a CRF, whose scores of words are no probabilities.
            ArgumentError: texts without copies.
        """
        model = _checked(visit.model)
        own, copy = _drawn(batch)
        known = _known(own.targets)
        with _servers_weights(visit), scoring(model):
            answers = model.logits(own)
        targets = self._targets(visit, model, answers, own, copy, known)
        learned = Batch(copy, {name: target for name, target in targets.items() if name in own.targets})
        losses = self.weight * model.losses_of(model.logits(learned), learned)
        return losses + supervised(self.base, visit, own, known)

    def finish(self, visit: Visit) -> Vectors:
        """The base's, and the device's own s."""
        sent = self.base.finish(visit)
        return sent if self.labels is None else sent | {CONFIDENT: visit.notes[CONFIDENT] / visit.notes["answered"]}

    def update(self, weights: Tensor, mean: Vectors, state: Vectors, about: Round) -> None:
        """The base's, and the moving mean of s."""
        if self.labels is not None:
            state[CONFIDENT].lerp_(mean[CONFIDENT] / about.weight, 1 - _MEMORY)
        self.base.update(weights, mean, state, about)

    def _targets(
        self,
        visit: Visit,
        model: LabelModel,
        answers: Mapping[str, Tensor],
        own: Batch,
        copy: Mapping[str, Tensor],
        known: Tensor,
    ) -> dict[str, Tensor]:
        """What copies are to be answered; NO_TARGET where the model is not confident, or the text has a target."""
        found = {}
        if "label" in answers:
            confidence, label = answers["label"].softmax(-1).max(-1)
            confident = confidence > self._thresholds(visit, label, confidence)
            found["label"] = label.where(confident & ~known, NO_TARGET)
        if "tags" in answers:
            lengths = own.inputs["lengths"]
            confident = _least_certain(answers["tags"], lengths) > self.threshold
            tags = model.best_tags(answers["tags"], lengths)
            found["tags"] = _carried(tags, lengths, copy).where((confident & ~known)[:, None], NO_TARGET)
        return found

    def _thresholds(self, visit: Visit, label: Tensor, confidence: Tensor) -> Tensor | float:
        """(B,) that each answer has to surpass; takes note of the answers above tau."""
        if self.labels is None:
            return self.threshold
        counts = visit.notes.setdefault(CONFIDENT, torch.zeros(self.labels, device=label.device))
        counts += torch.bincount(label[confidence > self.threshold], minlength=self.labels)
        visit.notes["answered"] = visit.notes.get("answered", 0) + len(label)
        return adaptive_thresholds(visit.received[CONFIDENT], self.threshold)[label]


def adaptive_thresholds(shares: Tensor, threshold: float) -> Tensor:
    """(K,) the threshold of each label, in [0, threshold].

    Args:
        shares: (K,) of texts that are confidently answered so, of all texts; together at most 1.
        threshold: that of the label which is learned best.
    """
    progress = shares / torch.maximum(shares.max(), 1 - shares.sum())
    return threshold * progress / (2 - progress)


# --- texts and their changed copies ------------------------------------------------------------------------------


class Copies:
    """Encoded texts, each with changed copies beside it, for any population.

    Which copy a step reads is drawn on the device; they are made once, so that a device has the same at every visit.

    Args:
        model: a LabelModel; its encoding and what it answers.
        examples: N texts, with or without targets.
        generator: draws the changes.
        copies: of each text, >= 1.
        share: of a text's words that a copy has lost or swapped, in (0, 1].
    """

    def __init__(
        self,
        model: LabelModel,
        examples: Sequence[Example],
        generator: np.random.Generator,
        *,
        copies: int = 4,
        share: float = 0.2,
    ) -> None:
        checks.at_least("copies", copies, 1)
        places = [
            perturbed_places(len(example.tokens), share, generator) for _ in range(copies) for example in examples
        ]
        texts = [
            Example(" ".join(example.tokens[place] for place in kept))
            for kept, example in zip(places, [*examples] * copies, strict=True)
        ]
        self._own, self._copies = model.encode(examples), model.encode(texts)
        self._sources = Ragged(places, np.int64) if model.schema.tags else None

    def __len__(self) -> int:
        return len(self._own)

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The texts at `indices`; `copy/I/NAME` among the inputs is input NAME of their copy I."""
        chosen = np.asarray(indices, dtype=np.int64)
        own = self._own.batch(chosen)
        inputs: dict[str, Tensor] = {}
        for number in range(len(self._copies) // len(self)):
            there = chosen + number * len(self)
            copy = dict(self._copies.batch(there).inputs)
            if self._sources is not None:
                widest = max(1, int(copy["lengths"].max()))
                copy[SOURCE] = torch.from_numpy(self._sources.padded(there)[:, :widest])
            inputs |= {f"{_COPY}/{number}/{name}": tensor for name, tensor in copy.items()}
        return Batch({**own.inputs, **inputs}, own.targets)


def without_labels(examples: Sequence[Example]) -> list[Example]:
    """The same texts, of which nobody has said what they mean."""
    return [replace(example, label=None, tags=None) for example in examples]


@dataclass(frozen=True)
class Labelled:
    """Labels that a model has given.

    Args:
        labels: (N,) their numbers in the model's schema.
        confidence: (N,) in [0, 1].
    """

    labels: NDArray[np.int64]
    confidence: NDArray[np.float64]


def label(model: LabelModel, encoded: Encoded) -> Labelled:
    """The labels that a device would learn from, and how confident the model is.

    Raises:
        ModelError: a model that answers no labels.
        ArgumentError: no texts.
    """
    checks.not_empty("encoded", encoded)
    if not model.schema.labels:
        raise ModelError("the model answers no labels", "build it from a corpus that has some")
    with scoring(model) as device:
        found = [
            model.logits(batch.to(device))["label"].double().softmax(-1).max(-1)
            for batch in batches(encoded, BATCH_SIZE)
        ]
    confidence, labels = (torch.cat([each[part] for each in found]).cpu().numpy() for part in (0, 1))
    return Labelled(labels, confidence)


def _checked(model: object) -> LabelModel:
    if not isinstance(model, LabelModel):
        raise ModelError(f"{type(model).__name__} answers neither labels nor tags", "use a model that does")
    if getattr(model, "crf", None) is not None:
        raise ModelError("a CRF's scores of single words are no probabilities", "build the model without crf")
    return model


def _drawn(batch: Batch) -> tuple[Batch, dict[str, Tensor]]:
    """The texts, and the inputs of one of their copies, drawn from PyTorch's generator of the visit."""
    found = {name.split("/")[1] for name in batch.inputs if name.startswith(f"{_COPY}/")}
    if not found:
        raise ArgumentError("texts", "with changed copies", "texts alone", "encode them by pseudo_labels.Copies")
    prefix = f"{_COPY}/{int(torch.randint(len(found), ()))}/"
    copy = {name.removeprefix(prefix): each for name, each in batch.inputs.items() if name.startswith(prefix)}
    own = {name: each for name, each in batch.inputs.items() if not name.startswith(f"{_COPY}/")}
    return Batch(own, batch.targets), copy


def _known(targets: Mapping[str, Tensor]) -> Tensor:
    """(B,) whether anything is known of each text."""
    return torch.stack([(target != NO_TARGET).flatten(1).any(1) for target in map(_wide, targets.values())]).any(0)


def _wide(target: Tensor) -> Tensor:
    return target[:, None] if target.ndim == 1 else target


def _least_certain(scores: Tensor, lengths: Tensor) -> Tensor:
    """(B,) the confidence in the least certain word of each text, by scores (B, T, S)."""
    words = scores.softmax(-1).amax(-1)
    return words.where(word_mask(lengths, words.shape[1]), torch.inf).amin(1)


def _carried(tags: Tensor, lengths: Tensor, copy: Mapping[str, Tensor]) -> Tensor:
    """(B, T') each word's tag (B, T) on the copy, to which it has moved; NO_TARGET where there is none."""
    source = copy[SOURCE]
    moved = tags.gather(1, source.clamp(max=tags.shape[1] - 1))
    there = word_mask(copy["lengths"], source.shape[1]) & (source < lengths[:, None])
    return moved.where(there, NO_TARGET)


@contextmanager
def _servers_weights(visit: Visit) -> Iterator[None]:
    """Inside, the model has the weights that the server sent."""
    if not visit.steps:
        yield
        return
    own = visit.parameters.values.clone()
    visit.parameters.values.copy_(visit.start)
    try:
        yield
    finally:
        visit.parameters.values.copy_(own)
