"""Sequence to sequence: translation, summaries, replies. A small GRU with attention, or any checkpoint of Transformers.

    Seq2SeqModel.encode(examples) -> PairSplit --batch--> pieces of text and target
                .loss(batch) -> (B,) mean nats per target piece
                .generate(encoded, width=1) -> texts, by greedy or beam search

A vocabulary learned from private text tells what occurs in it, so the GRU reads bytes or the pieces of a public
tokenizer, see `language_model.open_tokenizer`; texts and targets share it.

Shape legend: B batch, S pieces of the text, T pieces of the target, V vocabulary, D width, W width of the beam.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from trustnlp import checks
from trustnlp.data.corpus import Example
from trustnlp.data.encoding import NO_TARGET, Ragged
from trustnlp.errors import CorpusError, ModelError
from trustnlp.models import text_scores
from trustnlp.models.bilstm import reverse
from trustnlp.models.builder import checked_options, seeded
from trustnlp.models.evaluation import losses, scoring
from trustnlp.models.heads import cross_entropies, word_mask
from trustnlp.models.language_model import BYTES, open_tokenizer
from trustnlp.models.protocol import Batch, batches
from trustnlp.randomness import Streams

if TYPE_CHECKING:
    from tokenizers import Tokenizer

KIND = "seq2seq"


# --- examples ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairs:
    """Texts and targets as pieces of one tokenizer; one piece more stands at both ends of a target.

    Args:
        tokenizer: from the `tokenizers` library; its own special pieces, truncation and padding are not used, except
            where `special` asks for the first.
        begin, end: ids of what begins and ends a target; a text has the end, too.
        pad: the id that fills up; it is masked, so it never changes a loss.
        max_pieces: longer texts and targets are cut here.
        special: whether the tokenizer puts the ends there itself, as those of checkpoints do.
    """

    tokenizer: Tokenizer
    begin: int
    end: int
    pad: int
    max_pieces: int
    special: bool = False

    def rows(self, texts: Sequence[str]) -> Ragged:
        """The pieces of each text, the end included where it was not cut off."""
        found = self.tokenizer.encode_batch(list(texts), add_special_tokens=self.special)
        ends = [] if self.special else [self.end]
        return Ragged([*piece.ids, *ends][: self.max_pieces] for piece in found)

    def text(self, pieces: Sequence[int]) -> str:
        """The text of `pieces` up to the first end, without special pieces."""
        upto = pieces[: pieces.index(self.end)] if self.end in pieces else pieces
        known = [piece for piece in upto if piece < self.tokenizer.get_vocab_size()]
        return self.tokenizer.decode(known, skip_special_tokens=True).strip()

    def to_json(self) -> str:
        """The tokenizer, as the text of a `tokenizer.json`."""
        return self.tokenizer.to_str()


class PairSplit:
    """Examples in the order they were given, as `protocol.Encoded` wants them.

    Args:
        examples: whose texts are read and whose targets are written.
        pairs: how they become pieces.
        for_training: refuse examples without target.

    Raises:
        ModelError: `for_training`, and an example has no target.
    """

    def __init__(self, examples: Sequence[Example], pairs: Pairs, *, for_training: bool) -> None:
        self.examples = tuple(examples)
        self.complete = np.array([example.target is not None for example in examples], dtype=bool)
        if for_training and not self.complete.all():
            place = int(np.argmin(self.complete))
            raise ModelError(f"training example {place} has no target", "leave it out, or name its column")
        self._pairs = pairs
        self._texts = pairs.rows([example.text for example in examples])
        self._targets = pairs.rows([example.target or "" for example in examples])

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def longest_target(self) -> int:
        """Pieces of the longest target; where to stop a model that never ends."""
        return int(self._targets.lengths.max(initial=1))

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The examples at `indices`, padded to the longest of them; padding never changes a loss.

        Inputs are `pieces` (B, S), `spans` (B,) in pieces, and `previous` (B, T): what stands before each piece of the
        target. Targets are `pieces` (B, T).
        """
        chosen = np.asarray(indices, dtype=np.int64)
        targets = np.where(self.complete[chosen, None], self._targets.padded(chosen, NO_TARGET), NO_TARGET)
        previous = np.full_like(targets, self._pairs.begin)
        previous[:, 1:] = np.where(targets[:, :-1] == NO_TARGET, self._pairs.pad, targets[:, :-1])
        inputs = {
            "pieces": self._texts.padded(chosen, self._pairs.pad).astype(np.int64),
            "spans": self._texts.lengths[chosen],
            "previous": previous.astype(np.int64),
        }
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        return Batch(tensors, {"pieces": torch.from_numpy(targets.astype(np.int64))})


# --- the model ---------------------------------------------------------------------------------------------------


class Seq2SeqModel(nn.Module):
    """A model that writes a text for a text.

    Args:
        encoding: text to pieces.
        config: all that is needed to build the same model again, JSON-able; empty where that is not known.
    """

    def __init__(self, encoding: Pairs, config: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.encoding = encoding
        self.config = dict(config or {})

    def encode(self, examples: Sequence[Example], for_training: bool = False) -> PairSplit:
        """The examples, ready for `loss`.

        Raises:
            ModelError: `for_training`, and an example has no target.
        """
        return PairSplit(examples, self.encoding, for_training=for_training)

    @abstractmethod
    def logits(self, batch: Batch) -> dict[str, Tensor]:
        """`pieces` (B, T, V): scores of each piece of the target, given the text and the pieces before it."""

    @abstractmethod
    def search(self, batch: Batch, width: int, longest: int) -> list[list[int]]:
        """For each of B texts the pieces of the likeliest target found; without what begins it, with what ends it."""

    def loss(self, batch: Batch) -> Tensor:
        """(B,) mean negative log-likelihood per piece of the target, its end included, in nats."""
        return cross_entropies(self.logits(batch), batch.targets)

    def generate(
        self, encoded: PairSplit, *, width: int = 1, longest: int | None = None, batch_size: int = 64
    ) -> tuple[str, ...]:
        """A target for every text, in their order; the model's mode is left as it was.

        Args:
            encoded: texts; their targets are not looked at.
            width: of the beam; 1 is greedy search.
            longest: the most pieces written; the model's `max_pieces` if None.
            batch_size: texts at a time.

        Raises:
            ArgumentError: no texts, or a number below 1.
        """
        checks.not_empty("encoded", encoded)
        checks.at_least("width", width, 1)
        longest = checks.at_least("longest", self.encoding.max_pieces if longest is None else longest, 1)
        with scoring(self) as device:
            found = [self.search(batch.to(device), width, longest) for batch in batches(encoded, batch_size)]
        return tuple(self.encoding.text(pieces) for several in found for pieces in several)

    def figures(self, encoded: PairSplit, *, width: int = 1) -> dict[str, float]:
        """`score` (ROUGE-L in [0, 1]), `rouge_l`, `bleu` and `chrf` (both in [0, 100]), higher is better, and `loss`.

        Raises:
            ArgumentError: no examples.
            CorpusError: an example without target.
        """
        targets = [example.target for example in encoded.examples if example.target is not None]
        if len(targets) < len(encoded):
            raise CorpusError("an example has no target to compare with", "give examples with targets")
        found = self.generate(encoded, width=width, longest=encoded.longest_target)
        rouge = text_scores.rouge_l(found, targets)
        scores = {"bleu": text_scores.bleu(found, targets), "chrf": text_scores.chrf(found, targets)}
        return {"score": rouge, "rouge_l": rouge, **scores, "loss": float(losses(self, encoded).mean())}


# --- from scratch ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seq2SeqOptions:
    """Size and regularisation of a model trained from scratch.

    Args:
        width: of a piece's vector; the embedding and the head share their weights.
        hidden: of each direction of the encoder, and half that of the decoder.
        max_pieces: longer texts and targets are cut here.
        dropout: of vectors and of what the head reads.
    """

    width: int = 128
    hidden: int = 128
    max_pieces: int = 256
    dropout: float = 0.2

    def __post_init__(self) -> None:
        for name in ("width", "hidden"):
            checks.at_least(name, getattr(self, name), 1)
        checks.at_least("max_pieces", self.max_pieces, 2)
        checks.within("dropout", self.dropout, 0, 1)


class Memory(NamedTuple):
    """What a decoder looks at: states (B, S, D) of a text's pieces, which of them are `real` (B, S)."""

    states: Tensor
    real: Tensor


class AttentiveGRU(Seq2SeqModel):
    """GRUs read and write; each state of the writer looks at all of the text (Luong et al. 2015, general attention).

    The writer's states do not depend on what was looked at before, so all of a target is scored in one call.

    Args:
        options: sizes.
        tokenizer: public.
        config: see `Seq2SeqModel`.
    """

    def __init__(self, options: Seq2SeqOptions, tokenizer: Tokenizer, config: Mapping[str, Any]) -> None:
        ends = tokenizer.get_vocab_size()  # a piece that no text holds: it begins and ends targets, and fills up
        super().__init__(Pairs(tokenizer, ends, ends, ends, options.max_pieces), config)
        state = 2 * options.hidden
        self.vectors = nn.Embedding(ends + 1, options.width)
        nn.init.normal_(self.vectors.weight, std=options.width**-0.5)
        self.dropout = nn.Dropout(options.dropout)
        self.ahead = nn.GRU(options.width, options.hidden, batch_first=True)
        self.back = nn.GRU(options.width, options.hidden, batch_first=True)
        self.start = nn.Linear(state, state)
        self.writer = nn.GRU(options.width, state, batch_first=True)
        self.look = nn.Linear(state, state, bias=False)
        self.combine = nn.Linear(2 * state, options.width)
        self.head = nn.Linear(options.width, ends + 1)
        self.head.weight = self.vectors.weight
        nn.init.zeros_(self.head.bias)

    def logits(self, batch: Batch) -> dict[str, Tensor]:
        """`pieces` (B, T, V)."""
        memory, state = self._read(batch.inputs)
        return {"pieces": self._write(batch.inputs["previous"], memory, state)[0]}

    def _embed(self, pieces: Tensor) -> Tensor:
        """Vectors (B, ·, D); what is small enough for a head is scaled up for what reads it (Vaswani et al. 2017)."""
        vectors: Tensor = self.dropout(self.vectors(pieces) * self.vectors.embedding_dim**0.5)
        return vectors

    def _read(self, inputs: Mapping[str, Tensor]) -> tuple[Memory, Tensor]:
        """The text's states, and the state (1, B, D) that the writer starts from."""
        lengths = inputs["spans"]
        vectors = self._embed(inputs["pieces"])
        ahead, _ = self.ahead(vectors)
        back, _ = self.back(reverse(vectors, lengths))
        states = torch.cat([ahead, reverse(back, lengths)], -1)
        real = word_mask(lengths, states.shape[1])
        mean = (states * real[:, :, None]).sum(1) / lengths[:, None]
        return Memory(self.dropout(states), real), self.start(mean).tanh()[None]

    def _write(self, previous: Tensor, memory: Memory, state: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, T, V) of what follows `previous` (B, T), and the writer's last state."""
        wrote, last = self.writer(self._embed(previous), state)
        likeness = self.look(wrote) @ memory.states.mT
        likeness = likeness.masked_fill(~memory.real[:, None], torch.finfo(likeness.dtype).min)
        seen = likeness.softmax(-1) @ memory.states
        combined = self.combine(torch.cat([wrote, seen], -1)).tanh()
        return self.head(self.dropout(combined)), last

    def search(self, batch: Batch, width: int, longest: int) -> list[list[int]]:
        """For each text the pieces of the best target: that of the highest mean log-likelihood per piece."""
        memory, state = self._read(batch.inputs)
        size, end = len(batch), self.encoding.end
        memory = Memory(*(part.repeat_interleave(width, 0) for part in memory))
        state = state.repeat_interleave(width, 1)
        found = torch.full((size * width, 1), self.encoding.begin, device=state.device)
        # At first all of a beam are alike, so only one of them counts.
        total = state.new_full((size, width), -torch.inf, dtype=torch.float64)
        total[:, 0] = 0
        count = torch.zeros_like(total)
        done = torch.zeros_like(total, dtype=torch.bool)
        first = torch.arange(size, device=state.device)[:, None] * width
        for _ in range(longest):
            scores, state = self._write(found[:, -1:], memory, state)
            scores = scores[:, 0].double().log_softmax(-1).view(size, width, -1)
            vocabulary = scores.shape[-1]
            # What has ended goes on with its end alone, at no cost.
            scores = scores.masked_fill(done[:, :, None], -torch.inf)
            scores[:, :, end] = scores[:, :, end].masked_fill(done, 0.0)
            totals = (total[:, :, None] + scores).flatten(1)
            counts = (count + ~done)[:, :, None].expand(-1, -1, vocabulary).flatten(1)
            _, chosen = (totals / counts).topk(width, -1)
            total, count = totals.gather(1, chosen), counts.gather(1, chosen)
            rows = (first + chosen // vocabulary).flatten()
            piece = chosen % vocabulary
            done = done.flatten()[rows].view(size, width) | (piece == end)
            state = state[:, rows]
            found = torch.cat([found[rows], piece.view(-1, 1)], 1)
            if done.all():
                break
        best = first[:, 0] + (total / count).argmax(1)
        return [_ended(row[1:], end) for row in found[best].tolist()]


def _ended(pieces: list[int], end: int) -> list[int]:
    """Up to the first end, which is included."""
    return pieces[: pieces.index(end) + 1] if end in pieces else pieces


def build_seq2seq_model(
    tokenizer: str | Path = BYTES, *, streams: Streams, merges: int | None = None, **options: Any
) -> AttentiveGRU:
    """A small GRU with attention, with weights drawn from the stream `init`.

    Args:
        tokenizer: `bytes`, or where a **public** tokenizer is, see `open_tokenizer`.
        streams: same seed, same weights; the global generator is left as it was.
        merges: keep only so many of a byte-pair tokenizer's merges.
        options: fields of `Seq2SeqOptions`.

    Raises:
        ArgumentError: an option that the model does not have, or a value out of range.
        ModelError: no tokenizer there.
    """
    config = {"kind": KIND, "options": asdict(checked_options(Seq2SeqOptions, options))}
    pieces = open_tokenizer(tokenizer, merges).to_str()
    with seeded(streams):
        return rebuild(config, pieces)


def rebuild(config: Mapping[str, Any], tokenizer: str | None) -> AttentiveGRU:
    """The model of an `AttentiveGRU.config`, with weights from the global generator, to be loaded from elsewhere.

    Args:
        config: as `build_seq2seq_model` made it.
        tokenizer: the text of `tokenizer.json`.
    """
    from tokenizers import Tokenizer

    pieces = Tokenizer.from_str(tokenizer or "")
    pieces.no_padding()
    pieces.no_truncation()
    return AttentiveGRU(Seq2SeqOptions(**config["options"]), pieces, config)
