"""A text as the mean of its words' vectors: the smallest model that learns from text, and the fastest to train.

Sources: Iyyer et al. 2015, Deep unordered composition rivals syntactic methods for text classification, section 2;
Joulin et al. 2017, arXiv:1607.01759.

For studies of many trainings; `builder` and checkpoints do not know it.

Shape legend: B batch, T words, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from trustnlp import checks
from trustnlp.data.corpus import Corpus
from trustnlp.data.encoding import HashedWords, Schema
from trustnlp.models.builder import checked_options, seeded
from trustnlp.models.heads import Backbone, Hidden, NLUModel, word_mask
from trustnlp.models.words import WordVectors
from trustnlp.randomness import Streams

_POWERS = {"mean": 1.0, "root": 0.5}  # of the number of words, by which their sum is divided


@dataclass(frozen=True)
class BagOfWordsOptions:
    """Size.

    Args:
        buckets, hashes: of the hashed word embedding, see `HashedWords`.
        max_words: longer texts are cut here.
        width: of a word's vector.
        pooling: `mean`, or `root`, the sum over the root of the number of words: long texts then learn, and weigh, as
            much as short ones.
    """

    buckets: int = 4096
    hashes: int = 2
    max_words: int = 256
    width: int = 64
    pooling: str = "mean"

    def __post_init__(self) -> None:
        checks.at_least("width", self.width, 1)
        checks.one_of("pooling", self.pooling, tuple(_POWERS))


class BagOfWords(Backbone):
    """Word vectors and their mean; the order of words is lost."""

    def __init__(self, options: BagOfWordsOptions, encoding: HashedWords) -> None:
        super().__init__()
        self.words = WordVectors(encoding, options.width, 1, 0, 0.0)
        self.width = options.width
        self._power = _POWERS[options.pooling]

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Vectors (B, T, D) of words."""
        vectors: Tensor = self.words(inputs)
        return vectors

    def read(self, vectors: Tensor, inputs: Mapping[str, Tensor]) -> Hidden:
        """Hidden states of words and text; of `inputs`, only `lengths` (B,) is read."""
        lengths = inputs["lengths"]
        present = word_mask(lengths, vectors.shape[1])[..., None]
        pooled = (vectors * present).sum(1) / lengths.clamp(min=1)[:, None] ** self._power
        return Hidden(vectors, pooled.to(vectors.dtype))


def build(corpus: Corpus, *, streams: Streams, **options: Any) -> NLUModel:
    """A model for the corpus's labels and tags, with weights drawn from the stream `init`.

    Args:
        corpus: its training split gives the labels and tags; its texts are not looked at.
        streams: same seed, same weights; the global generator is left as it was.
        options: fields of `BagOfWordsOptions`.

    Raises:
        ArgumentError: an option that it does not have, or a value out of range.
        ModelError: no labels and no tags.
    """
    chosen = checked_options(BagOfWordsOptions, options)
    schema = Schema.of(corpus)
    words = HashedWords(chosen.buckets, chosen.hashes, chosen.max_words, split_marks=not schema.tags)
    config = {
        "kind": "bag-of-words",
        "options": asdict(chosen),
        "labels": list(schema.labels),
        "tags": list(schema.tags),
    }
    with seeded(streams):
        return NLUModel(BagOfWords(chosen, words), words, schema, config)
