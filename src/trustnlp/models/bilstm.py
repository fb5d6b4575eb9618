"""A bidirectional LSTM over hashed words and characters.

Shape legend: B batch, T words, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trustnlp import checks
from trustnlp.data.encoding import HashedWords
from trustnlp.models.heads import Backbone, Hidden, word_mask
from trustnlp.models.words import WordVectors


@dataclass(frozen=True)
class BiLSTMOptions:
    """Size and regularisation.

    Args:
        buckets, hashes: of the hashed word embedding, see `HashedWords`.
        max_words: longer texts are cut here.
        width: of a word's hashed embedding.
        char_width, char_filters: of the character CNN.
        hidden: of each direction of the LSTM.
        dropout: of word vectors and of the LSTM's output.
        word_dropout: see `WordVectors`.
        crf: score tags as whole sequences, see `LinearChainCRF`.
    """

    buckets: int = 8192
    hashes: int = 2
    max_words: int = 256
    width: int = 96
    char_width: int = 16
    char_filters: int = 48
    hidden: int = 128
    dropout: float = 0.4
    word_dropout: float = 0.1
    crf: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "char_width", "hidden"):
            checks.at_least(name, getattr(self, name), 1)
        checks.at_least("char_filters", self.char_filters, 0)
        checks.within("dropout", self.dropout, 0, 1)
        checks.within("word_dropout", self.word_dropout, 0, 1)


class BiLSTM(Backbone):
    """Word vectors read forwards and backwards; a text is the maximum over its words.

    The backward direction is an LSTM over each text reversed **within its own length**, so that it starts at the
    text's last word and never at padding.
    """

    def __init__(self, options: BiLSTMOptions, encoding: HashedWords) -> None:
        super().__init__()
        self.words = WordVectors(
            encoding, options.width, options.char_width, options.char_filters, options.word_dropout
        )
        self.dropout = nn.Dropout(options.dropout)
        self.forwards = nn.LSTM(self.words.width, options.hidden, batch_first=True)
        self.backwards = nn.LSTM(self.words.width, options.hidden, batch_first=True)
        self.width = 2 * options.hidden

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Vectors (B, T, D) of words."""
        vectors: Tensor = self.words(inputs)
        return vectors

    def read(self, vectors: Tensor, inputs: Mapping[str, Tensor]) -> Hidden:
        """Hidden states of words and text; of `inputs`, only `lengths` (B,) is read."""
        vectors = self.dropout(vectors)
        lengths = inputs["lengths"]
        ahead, _ = self.forwards(vectors)
        back, _ = self.backwards(reverse(vectors, lengths))
        states = self.dropout(torch.cat([ahead, reverse(back, lengths)], -1))
        mask = word_mask(lengths, states.shape[1])
        pooled = states.masked_fill(~mask[:, :, None], -torch.inf).amax(1)
        return Hidden(states, pooled)


def reverse(states: Tensor, lengths: Tensor) -> Tensor:
    """`states` (B, T, D), each row's first `lengths` steps reversed; doing it twice changes nothing."""
    steps = torch.arange(states.shape[1], device=states.device)
    order = (lengths[:, None] - 1 - steps) % states.shape[1]
    return states.gather(1, order[:, :, None].expand_as(states))
