"""Reader of word vectors in the text format of word2vec, and of the rows of an embedding matrix.

347 300                                  a header, words and dimensions, which GloVe's files lack
management -0.153 0.104 …                a word and its numbers, parted by spaces
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustnlp.data.lines import lines
from trustnlp.errors import ArgumentError, MalformedCorpusError

Array = NDArray[np.float64]


def read_word_vectors(path: str | Path, words: Collection[str] | None = None) -> dict[str, Array]:
    """The vector, (d,), of each word of a text file.

    Args:
        path: a file in the text format of word2vec or GloVe.
        words: read these alone; all without it. Nothing else is held in memory.

    Raises:
        CorpusNotFoundError: the file cannot be opened.
        MalformedCorpusError: no words, a line of another length than the first, something that is no finite number,
            or a word that comes twice.
    """
    path, wanted = Path(path), None if words is None else set(words)
    vectors: dict[str, Array] = {}
    width: int | None = None
    for number, line in lines(path):
        parts = line.split()
        if number == 1 and len(parts) == 2 and all(part.isdecimal() for part in parts):
            width = int(parts[1])
            continue
        if not parts:
            continue
        width = len(parts) - 1 if width is None else width
        if width < 1 or len(parts) <= width:
            raise MalformedCorpusError(path, number, f"{len(parts) - 1} numbers instead of {width}", "mend the line")
        word = " ".join(parts[:-width])
        if wanted is not None and word not in wanted:
            continue
        if word in vectors:
            raise MalformedCorpusError(path, number, "a word comes twice", "keep one of them")
        vectors[word] = _numbers(path, number, parts[-width:])
    if width is None:
        raise MalformedCorpusError(path, None, "no word vectors", "give a text file of word2vec or GloVe")
    return vectors


def embedding_vectors(matrix: ArrayLike, vocabulary: Mapping[str, int]) -> dict[str, Array]:
    """The row of an embedding matrix (V, d) that stands for each word of a vocabulary.

    Raises:
        ArgumentError: a matrix without two dimensions, or a word whose number is not in 0..V-1.
    """
    rows = np.asarray(matrix, dtype=float)
    if rows.ndim != 2:
        raise ArgumentError("matrix", "of shape (V, d)", rows.shape)
    outside = next((number for number in vocabulary.values() if not 0 <= number < len(rows)), None)
    if outside is not None:
        raise ArgumentError("vocabulary", f"of numbers from 0 to {len(rows) - 1}", outside)
    return {word: rows[number] for word, number in vocabulary.items()}


def _numbers(path: Path, line: int, parts: list[str]) -> Array:
    try:
        vector = np.array(parts, dtype=float)
    except ValueError:
        raise MalformedCorpusError(path, line, "something that is no number", "mend the line") from None
    if not np.isfinite(vector).all():
        raise MalformedCorpusError(path, line, "a number that is not finite", "mend the line")
    return vector
