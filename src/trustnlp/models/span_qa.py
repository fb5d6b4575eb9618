"""Span question answering: where in a text the answer to a question begins and ends.

Shape legend: B batch, T positions (words of the context, or pieces of question and context).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trustnlp import checks
from trustnlp.data.corpus import Answer, Example
from trustnlp.data.encoding import NO_TARGET, HashedWords, Subwords
from trustnlp.errors import CorpusError, ModelError
from trustnlp.models import text_scores
from trustnlp.models.builder import PretrainedOptions, checked_options, seeded
from trustnlp.models.evaluation import losses, scoring
from trustnlp.models.protocol import Batch, batches
from trustnlp.models.span_readers import Contexts, HashedReader, PretrainedReader, Reader, ReaderOptions
from trustnlp.randomness import Streams

KIND, PRETRAINED_KIND = "span-qa", "span-qa-pretrained"
READER = "reader"
LONGEST_ANSWER = 15
"""Positions that an answer may have, as in DrQA (Chen et al. 2017, section 3.2)."""


class SpanSplit:
    """Examples in the order they were given, as `protocol.Encoded` wants them.

    Args:
        examples: each with a question.
        contexts: the same, encoded.
        for_training: refuse examples without an answer that the model sees.

    Raises:
        ModelError: an example without a question, or `for_training` and one that no loss can be computed for.
    """

    def __init__(self, examples: Sequence[Example], contexts: Contexts, *, for_training: bool) -> None:
        self.examples = tuple(examples)
        self.places = contexts.places
        self._contexts = contexts
        found = [_positions(example, places) for example, places in zip(examples, contexts.places, strict=True)]
        self._targets = np.array(found, dtype=np.int64).reshape(-1, 2)
        if for_training and not self.complete.all():
            raise ModelError(
                f"{int((~self.complete).sum())} training examples, the first of them {int(np.argmin(self.complete))}, "
                "have no answer in the part of the context that the model sees",
                "leave out those that `encode(examples).complete` tells, or let the model see more",
            )

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def complete(self) -> np.ndarray:
        """(N,) whether the first answer lies in what the model sees, so that the loss means something."""
        return self._targets[:, 0] != NO_TARGET

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The examples at `indices`, padded to the longest of them; padding never changes a loss."""
        chosen = np.asarray(indices, dtype=np.int64)
        inputs = {name: torch.from_numpy(array) for name, array in self._contexts.batch(chosen).items()}
        start, end = torch.from_numpy(self._targets[chosen]).unbind(1)
        return Batch(inputs, {"start": start, "end": end})


def _positions(example: Example, places: np.ndarray) -> tuple[int, int]:
    """First and last position of the first answer; NO_TARGET twice where not all of it is seen."""
    if not example.answers:
        return NO_TARGET, NO_TARGET
    start, text = example.answers[0]
    end = start + len(text.rstrip())
    start += len(text) - len(text.lstrip())
    inside = np.flatnonzero((places[:, 0] < end) & (places[:, 1] > start))
    seen = len(inside) > 0 and places[inside[0], 0] <= start and places[inside[-1], 1] >= end
    return (int(inside[0]), int(inside[-1])) if seen else (NO_TARGET, NO_TARGET)


class SpanModel(nn.Module):
    """A reader that answers spans; its loss is the mean of the cross-entropies of beginning and end.

    Args:
        reader: the module that reads.
        encoding: text to numbers.
        config: all that is needed to build the same model again, JSON-able.
    """

    def __init__(self, reader: Reader, encoding: HashedWords | Subwords, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.reader = reader
        self.encoding = encoding
        self.config = config

    def encode(self, examples: Sequence[Example], for_training: bool = False) -> SpanSplit:
        """The examples, ready for `loss`.

        Raises:
            ModelError: no question, or `for_training` and no answer in what the model sees.
        """
        return SpanSplit(examples, self.reader.encode(examples), for_training=for_training)

    def logits(self, batch: Batch) -> dict[str, Tensor]:
        """`start` and `end` (B, T); the least finite number outside of the context."""
        scores = self.reader(batch.inputs)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        scores = scores.masked_fill(~batch.inputs["context"][:, :, None], torch.finfo(scores.dtype).min)
        return {"start": scores[:, :, 0], "end": scores[:, :, 1]}

    def loss(self, batch: Batch) -> Tensor:
        """(B,) half the negative log-likelihoods of the answer's beginning and end, in nats; 0 without an answer."""
        parts = [
            F.cross_entropy(scores, batch.targets[name], ignore_index=NO_TARGET, reduction="none")
            for name, scores in self.logits(batch).items()
        ]
        return torch.stack(parts).mean(0)

    def answers(self, encoded: SpanSplit, *, longest: int = LONGEST_ANSWER, batch_size: int = 64) -> tuple[Answer, ...]:
        """The best span of every example, as long as the text it covers; the model's mode is left as it was.

        Raises:
            ArgumentError: no examples, or `longest` < 1.
        """
        checks.not_empty("encoded", encoded)
        found: list[Answer] = []
        with scoring(self) as device:
            for batch in batches(encoded, batch_size):
                logits = self.logits(batch.to(device))
                for start, end in best_spans(logits["start"], logits["end"], longest).tolist():
                    text, places = encoded.examples[len(found)].text, encoded.places[len(found)]
                    begin, stop = int(places[start, 0]), int(places[end, 1])
                    found.append(Answer(begin, text[begin:stop]))
        return tuple(found)

    def figures(self, encoded: SpanSplit) -> dict[str, float]:
        """`score` (the F1), `f1` and `exact_match`, in [0, 1], higher is better, and `loss` where there is one.

        Raises:
            ArgumentError: no examples.
            CorpusError: an example without an answer to compare with.
        """
        checks.not_empty("encoded", encoded)
        if any(example.answers is None for example in encoded.examples):
            raise CorpusError("an example has no right answer to compare with", "give answered questions")
        found = [answer.text for answer in self.answers(encoded)]
        right = [[answer.text for answer in example.answers or ()] for example in encoded.examples]
        f1 = text_scores.token_f1(found, right)
        known = losses(self, encoded)[encoded.complete]
        loss = {"loss": float(known.mean())} if len(known) else {}
        return {"score": f1, "f1": f1, "exact_match": text_scores.exact_match(found, right)} | loss


def best_spans(start: Tensor, end: Tensor, longest: int) -> Tensor:
    """(B, 2) first and last position of the span of at most `longest` positions with the highest sum of scores (B, T).

    Raises:
        ArgumentError: `longest` < 1.
    """
    checks.at_least("longest", longest, 1)
    width = start.shape[1]
    least = torch.finfo(start.dtype).min / 2
    # Column k of the sums: spans of k + 1 positions.
    ends = F.pad(end.clamp(min=least), (0, longest - 1), value=-torch.inf).unfold(1, width, 1)
    sums = start.clamp(min=least)[:, None] + ends
    best = sums.transpose(1, 2).flatten(1).argmax(1)
    first, more = best // longest, best % longest
    return torch.stack([first, first + more], 1)


# --- building ----------------------------------------------------------------------------------------------------


def build_span_model(model: str | Path = READER, *, streams: Streams, **options: Any) -> SpanModel:
    """A model that answers questions by pieces of a text, with weights drawn from the stream `init`.

    Args:
        model: `reader` (from scratch), `minilm` (the packaged encoder), the folder of a pretrained Hugging Face
            encoder, or its hub name; only the two layers' worth of start and end are new on a pretrained one.
        streams: same seed, same weights; the global generator is left as it was.
        options: fields of `ReaderOptions` or `builder.PretrainedOptions`.

    Raises:
        ArgumentError: an option that the model does not have, or a value out of range.
        ModelError: a pretrained encoder that cannot be opened or is not safe to.
        MissingExtraError: `minilm` without its package.
    """
    with seeded(streams):
        if model == READER:
            chosen = checked_options(ReaderOptions, options)
            return rebuild({"kind": KIND, "options": asdict(chosen)})
        return _fine_tuned(model, checked_options(PretrainedOptions, options))


def _fine_tuned(source: str | Path, tuning: PretrainedOptions) -> SpanModel:
    from trustnlp.models import pretrained

    source = pretrained.minilm() if source == "minilm" else source
    encoder = pretrained.open_encoder(source)
    encoding = pretrained.open_subwords(source, encoder.config, max_pieces=tuning.max_pieces)
    options = asdict(replace(tuning, max_pieces=encoding.max_pieces))
    described = pretrained.config_dict(encoder.config)
    config = {"kind": PRETRAINED_KIND, "options": options, "encoder": described}
    return SpanModel(PretrainedReader(encoder, encoding, tuning.dropout), encoding, config)


def rebuild(config: Mapping[str, Any], tokenizer: str | None = None) -> SpanModel:
    """The model of a `SpanModel.config`, with weights from the global generator, to be loaded from elsewhere.

    Args:
        config: as `build_span_model` made it.
        tokenizer: the text of `tokenizer.json`, for pretrained encoders.
    """
    if config["kind"] == KIND:
        options = ReaderOptions(**config["options"])
        return SpanModel(HashedReader(options, options.encoding), options.encoding, config)
    from tokenizers import Tokenizer

    from trustnlp.models.pretrained import encoder_from, pad_of

    tuning = PretrainedOptions(**config["options"])
    encoder = encoder_from(config["encoder"])
    pieces = Tokenizer.from_str(tokenizer or "")
    encoding = Subwords(pieces, max_pieces=tuning.max_pieces, pad=pad_of(encoder.config))
    return SpanModel(PretrainedReader(encoder, encoding, tuning.dropout), encoding, config)
