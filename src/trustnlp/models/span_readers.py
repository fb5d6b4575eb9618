"""Readers for span question answering: from a question and a context to scores of the answer's two ends.

    HashedReader       from scratch, over hashed words of question and context
    PretrainedReader   any Hugging Face encoder over question and context as a pair of texts

Shape legend: B batch, Q words of the question, T positions (words of the context, or pieces of the pair), D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from trustnlp import checks
from trustnlp.data.corpus import Example
from trustnlp.data.encoding import HashedWords, Ragged, Subwords
from trustnlp.errors import ModelError
from trustnlp.models.bilstm import reverse
from trustnlp.models.heads import word_mask
from trustnlp.models.words import WordVectors


class Contexts(Protocol):
    """Encoded questions and contexts: what a reader reads, and where in the text its positions are."""

    @property
    def places(self) -> Sequence[np.ndarray]:
        """For each example (T, 2), where its positions begin and end in the context, in characters; 0 outside of it."""
        ...

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The examples at `indices` as arrays of B rows; `context` (B, T) tells where the context stands."""
        ...


class Reader(nn.Module):
    """A module that scores beginning and end at every position; no layer of it may mix the examples of a batch."""

    def encode(self, examples: Sequence[Example]) -> Contexts:
        """Questions and contexts, as this reader reads them."""
        raise NotImplementedError

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(B, T, 2) scores; what stands outside of the context is never read."""
        raise NotImplementedError


def questions(examples: Sequence[Example]) -> list[str]:
    """The examples' questions.

    Raises:
        ModelError: an example without one.
    """
    asked = [example.question for example in examples]
    if None in asked:
        raise ModelError(f"example {asked.index(None)} asks no question", "give examples of span question answering")
    return [question for question in asked if question is not None]


# --- from scratch ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReaderOptions:
    """Size and regularisation of a reader trained from scratch.

    Args:
        buckets, hashes: of the hashed word embedding, see `HashedWords`.
        max_words: longer contexts and questions are cut here.
        width: of a word's hashed embedding.
        char_width, char_filters: of the character CNN.
        hidden: of each direction of the LSTMs.
        dropout: of word vectors and hidden states.
        word_dropout: see `WordVectors`.
    """

    buckets: int = 32768
    hashes: int = 2
    max_words: int = 1024
    width: int = 64
    char_width: int = 16
    char_filters: int = 32
    hidden: int = 64
    dropout: float = 0.2
    word_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("width", "char_width", "hidden"):
            checks.at_least(name, getattr(self, name), 1)
        checks.at_least("char_filters", self.char_filters, 0)
        checks.within("dropout", self.dropout, 0, 1)
        checks.within("word_dropout", self.word_dropout, 0, 1)

    @property
    def encoding(self) -> HashedWords:
        """Words and marks apart, so that an answer may end before a comma."""
        return HashedWords(self.buckets, self.hashes, self.max_words, split_marks=True)


class HashedContexts:
    """Questions and contexts as hashed words; names of the question's arrays begin with `question_`."""

    def __init__(self, encoding: HashedWords, examples: Sequence[Example]) -> None:
        # Several questions are asked of one context, which is kept once.
        numbers: dict[str, int] = {}
        self._asked_of = np.array([numbers.setdefault(example.text, len(numbers)) for example in examples], dtype=int)
        self._contexts = encoding.encode(list(numbers))
        places = [np.array(encoding.places(text), dtype=np.int32).reshape(-1, 2) for text in numbers]
        self.places = [places[number] for number in self._asked_of]
        self._questions = encoding.encode(questions(examples))

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """`words`, `chars` and `lengths` of both, see `HashedTexts.batch`, and `context` (B, T)."""
        found = self._contexts.batch(self._asked_of[indices])
        context = np.arange(found["words"].shape[1]) < found["lengths"][:, None]
        asked = {f"question_{name}": array for name, array in self._questions.batch(indices).items()}
        return {**found, **asked, "context": context}


class HashedReader(Reader):
    """DrQA's document reader (Chen et al. 2017, arXiv:1704.00051, section 3.2) over hashed words.

    A context word is read with the question words it resembles (an attention over their vectors) and with those that
    it **is**: of these it gets the learned weights, as to meet `the` again means less than to meet a name. Beginning
    and end are scored by a bilinear form of its state and of the question's.
    """

    def __init__(self, options: ReaderOptions, encoding: HashedWords) -> None:
        super().__init__()
        self._encoding = encoding
        self.words = WordVectors(
            encoding, options.width, options.char_width, options.char_filters, options.word_dropout
        )
        width, state = self.words.width, 2 * options.hidden
        self.dropout = nn.Dropout(options.dropout)
        self.likeness = nn.Linear(width, options.hidden)
        self.weight = nn.Linear(width, 1)
        self.asks = TwoWays(width, options.hidden)
        self.asked = nn.Linear(state, 1)
        self.reads = TwoWays(2 * width + 2, options.hidden)
        self.ends = nn.Linear(state, 2 * state)

    def encode(self, examples: Sequence[Example]) -> HashedContexts:
        """Questions and contexts as hashed words."""
        return HashedContexts(self._encoding, examples)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(B, T, 2) scores of beginning and end."""
        question = {name: inputs[f"question_{name}"] for name in ("words", "chars", "lengths")}
        asked = word_mask(question["lengths"], question["words"].shape[1])
        ours, theirs = self.dropout(self.words(inputs)), self.dropout(self.words(question))
        same = (inputs["words"][:, :, None] == question["words"][:, None]).all(-1) & asked[:, None]
        met = _softmax(self.weight(theirs).transpose(1, 2), asked[:, None])
        alike = self.likeness(ours).relu() @ self.likeness(theirs).relu().mT
        aligned = _softmax(alike, asked[:, None]) @ theirs
        features = torch.stack([same.any(-1).to(ours.dtype), (same * met).sum(-1)], -1)
        states = self.dropout(self.reads(torch.cat([ours, aligned, features], -1), inputs["lengths"]))
        heard = self.dropout(self.asks(theirs, question["lengths"]))
        summary = (_softmax(self.asked(heard).transpose(1, 2), asked[:, None]) @ heard)[:, 0]
        wanted = self.ends(summary).view(len(states), states.shape[2], 2)
        return states @ wanted


class TwoWays(nn.Module):
    """An LSTM in each direction; backwards from a text's own last word."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.forwards = nn.LSTM(width, hidden, batch_first=True)
        self.backwards = nn.LSTM(width, hidden, batch_first=True)

    def forward(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """States (B, T, 2 hidden) of `vectors` (B, T, D)."""
        ahead, _ = self.forwards(vectors)
        back, _ = self.backwards(reverse(vectors, lengths))
        return torch.cat([ahead, reverse(back, lengths)], -1)


def _softmax(scores: Tensor, real: Tensor) -> Tensor:
    """Over the last dimension, of what is `real`; even where nothing is."""
    return scores.masked_fill(~real, torch.finfo(scores.dtype).min).softmax(-1)


# --- pretrained --------------------------------------------------------------------------------------------------


class PairContexts:
    """Questions and contexts as pairs of texts, in pieces; contexts alone are cut."""

    def __init__(self, encoding: Subwords, examples: Sequence[Example]) -> None:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(encoding.to_json())
        tokenizer.no_padding()
        # The question may take half of the room, so that some of the context is always read.
        tokenizer.enable_truncation(encoding.max_pieces // 2)
        asked = [tokenizer.encode(question, add_special_tokens=False) for question in questions(examples)]
        short = [
            question[: piece.offsets[-1][1]] if piece.offsets else question
            for question, piece in zip(questions(examples), asked, strict=True)
        ]
        tokenizer.enable_truncation(encoding.max_pieces, strategy="only_second")
        texts = [example.text for example in examples]
        found = tokenizer.encode_batch(list(zip(short, texts, strict=True)))
        context = [[part == 1 for part in piece.sequence_ids] for piece in found]
        self.places = [
            np.array(piece.offsets, dtype=np.int32).reshape(-1, 2) * np.array(row, dtype=bool)[:, None]
            for piece, row in zip(found, context, strict=True)
        ]
        self._pad = encoding.pad
        self._pieces = Ragged(piece.ids for piece in found)
        self._types = Ragged(piece.type_ids for piece in found)
        self._context = Ragged(context, bool)

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """`pieces`, `types` and `context` (B, T), and `spans` (B,) in pieces."""
        return {
            "pieces": self._pieces.padded(indices, self._pad),
            "types": self._types.padded(indices),
            "context": self._context.padded(indices, False),
            "spans": self._pieces.lengths[indices],
        }


class PretrainedReader(Reader):
    """A Hugging Face encoder over pairs; beginning and end are read from its last states (Devlin et al. 2019, 4.2)."""

    def __init__(self, encoder: Any, encoding: Subwords, dropout: float) -> None:
        super().__init__()
        self._encoding = encoding
        self.encoder = encoder
        self.dropout = nn.Dropout(checks.within("dropout", dropout, 0, 1))
        self.ends = nn.Linear(int(encoder.config.hidden_size), 2)
        self._typed = getattr(encoder.config, "type_vocab_size", 0) > 1

    def encode(self, examples: Sequence[Example]) -> PairContexts:
        """Questions and contexts as pairs of texts."""
        return PairContexts(self._encoding, examples)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(B, T, 2) scores of beginning and end."""
        pieces = inputs["pieces"].long()
        types = {"token_type_ids": inputs["types"].long()} if self._typed else {}
        mask = word_mask(inputs["spans"], pieces.shape[1]).long()
        states = self.encoder(input_ids=pieces, attention_mask=mask, **types).last_hidden_state
        scores: Tensor = self.ends(self.dropout(states))
        return scores
