"""Transformer encoders: a small one over hashed words, from a configuration, or any pretrained one.

Shape legend: B batch, T words, P pieces, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from trustnlp import checks
from trustnlp.data.encoding import HashedWords
from trustnlp.errors import ArgumentError
from trustnlp.models.heads import Backbone, Hidden, word_mask
from trustnlp.models.words import WordVectors

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class TransformerOptions:
    """Size and regularisation of a transformer trained from scratch.

    Args:
        buckets, hashes: of the hashed word embedding, see `HashedWords`.
        char_width, char_filters: of the character CNN; the filters are part of `width`.
        width: of the hidden states.
        layers, heads: how many of each.
        max_words: longer texts are cut here; as many positions are learned.
        dropout: of hidden states and attention.
        word_dropout: see `WordVectors`.
    """

    buckets: int = 8192
    hashes: int = 2
    char_width: int = 16
    char_filters: int = 48
    width: int = 128
    layers: int = 2
    heads: int = 4
    max_words: int = 256
    dropout: float = 0.1
    word_dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("char_width", "layers", "heads"):
            checks.at_least(name, getattr(self, name), 1)
        checks.at_least("char_filters", self.char_filters, 0)
        checks.at_least("width", self.width, self.char_filters + 1)
        if self.width % self.heads:
            raise ArgumentError("width", f"a multiple of 'heads' ({self.heads})", self.width)
        checks.within("dropout", self.dropout, 0, 1)
        checks.within("word_dropout", self.word_dropout, 0, 1)


class Transformer(Backbone):
    """BERT's encoder over word vectors with learned positions; a text is the mean of its words."""

    def __init__(self, options: TransformerOptions, encoding: HashedWords) -> None:
        from transformers import BertConfig, BertModel

        super().__init__()
        width = options.width - options.char_filters
        self.words = WordVectors(encoding, width, options.char_width, options.char_filters, options.word_dropout)
        config = BertConfig(
            vocab_size=1,
            hidden_size=options.width,
            num_hidden_layers=options.layers,
            num_attention_heads=options.heads,
            intermediate_size=4 * options.width,
            max_position_embeddings=encoding.max_words,
            type_vocab_size=1,
            hidden_dropout_prob=options.dropout,
            attention_probs_dropout_prob=options.dropout,
        )
        self.encoder = BertModel(config, add_pooling_layer=False)
        # Words come from WordVectors; a parameter without gradient must not look trainable to a private step.
        self.encoder.embeddings.word_embeddings.requires_grad_(False)
        self.width = options.width

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Vectors (B, T, D) of words, without their positions."""
        vectors: Tensor = self.words(inputs)
        return vectors

    def read(self, vectors: Tensor, inputs: Mapping[str, Tensor]) -> Hidden:
        """Hidden states of words and text; of `inputs`, only `lengths` (B,) is read."""
        mask = word_mask(inputs["lengths"], vectors.shape[1])
        states = self.encoder(inputs_embeds=vectors, attention_mask=mask.long()).last_hidden_state
        return Hidden(states, mean(states, mask))


class PretrainedEncoder(Backbone):
    """A Hugging Face encoder; a word is read at its first piece, and a text is the mean of its pieces."""

    def __init__(self, encoder: PreTrainedModel, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(checks.within("dropout", dropout, 0, 1))
        self.width = int(encoder.config.hidden_size)

    def forward(self, inputs: Mapping[str, Tensor]) -> Hidden:
        """Hidden states of words and text."""
        pieces = inputs["pieces"]
        mask = word_mask(inputs["spans"], pieces.shape[1])
        states = self.dropout(self.encoder(input_ids=pieces, attention_mask=mask.long()).last_hidden_state)
        return Hidden(at_words(states, inputs["first"]), mean(states, mask))

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Vectors (B, P, D) of pieces, without their positions."""
        return piece_vectors(self.encoder, inputs["pieces"])

    def read(self, vectors: Tensor, inputs: Mapping[str, Tensor]) -> Hidden:
        """Hidden states of words and text."""
        with looked_up(self.encoder, vectors):
            return self(inputs)


def piece_vectors(model: PreTrainedModel, pieces: Tensor) -> Tensor:
    """Vectors (B, P, D) of `pieces` (B, P) in the table of a Hugging Face model."""
    vectors: Tensor = model.get_input_embeddings()(pieces)
    return vectors


@contextmanager
def looked_up(model: PreTrainedModel, vectors: Tensor) -> Iterator[None]:
    """Inside, the model's table answers `vectors` (B, P, D), whatever pieces it is asked for.

    Right for every architecture, where `inputs_embeds` is not: some tell padding or positions by the pieces.
    """
    handle = model.get_input_embeddings().register_forward_hook(lambda *_: vectors)
    try:
        yield
    finally:
        handle.remove()


def mean(states: Tensor, mask: Tensor) -> Tensor:
    """(B, D) mean of `states` (B, T, D) where `mask` (B, T) is true; 0 where it never is."""
    return (states * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def at_words(states: Tensor, first: Tensor) -> Tensor:
    """(B, T, D) the `states` (B, P, D) of the piece that each word begins with, `first` (B, T)."""
    return states.gather(1, first.long()[:, :, None].expand(-1, -1, states.shape[2]))
