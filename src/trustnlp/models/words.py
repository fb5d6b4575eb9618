"""Word vectors without a vocabulary: hashed embeddings, and a character CNN for words never seen.

Shape legend: B batch, T words, C characters, H hashes, D width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trustnlp.data.encoding import CHARACTERS, HashedWords

_INITIAL_STD = 0.1


class WordVectors(nn.Module):
    """Vectors (B, T, D) of hashed words; each depends on its own word alone.

    Args:
        encoding: how words are hashed.
        width: of the hashed embedding.
        char_width: of a character's embedding.
        char_filters: of the convolution over three characters (Ma and Hovy 2016); 0 leaves characters out.
        word_dropout: how often, in training, a word's hashed embedding is left out, so that the model learns to
            read an unknown word from its characters and its neighbours.
    """

    def __init__(
        self, encoding: HashedWords, width: int, char_width: int, char_filters: int, word_dropout: float
    ) -> None:
        super().__init__()
        self.hashed = nn.Embedding(encoding.buckets, width)
        # Small, as an unknown word shares its buckets with others: what those have not learned must not drown the rest.
        nn.init.normal_(self.hashed.weight, std=_INITIAL_STD * encoding.hashes**-0.5)
        self.word_dropout = word_dropout
        self.width = width + char_filters
        if char_filters:
            self.characters = nn.Embedding(CHARACTERS, char_width)
            self.filters = nn.Linear(3 * char_width, char_filters)
        self.char_filters = char_filters

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Vectors (B, T, D) of `words` (B, T, H) and `chars` (B, T, C)."""
        vectors = self.hashed(inputs["words"]).sum(2)
        if self.training and self.word_dropout:
            kept = torch.rand(vectors.shape[:2], device=vectors.device) >= self.word_dropout
            vectors = vectors * kept[:, :, None]
        return torch.cat([vectors, self._spelled(inputs["chars"])], -1) if self.char_filters else vectors

    def _spelled(self, chars: Tensor) -> Tensor:
        # A convolution written as a linear layer over windows: faster on CPUs for such small widths. Padding is
        # masked before (its embedding is a free parameter) and after (its bias), so it never shows.
        present = (chars != 0)[..., None]
        letters = nn.functional.pad(self.characters(chars) * present, (0, 0, 1, 1))
        windows = torch.cat([letters[:, :, :-2], letters[:, :, 1:-1], letters[:, :, 2:]], -1)
        return (self.filters(windows).relu() * present).amax(2)
