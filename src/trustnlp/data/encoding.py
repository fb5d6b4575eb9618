"""Text to numbers: hashed words for models trained from scratch, subwords for pretrained ones.

Shape legend: N texts, B batch, T words, C characters, H hashes, P pieces (subwords).

A vocabulary that is built from private text tells which words occur in it, and no noise added to the gradients
takes that back. `HashedWords` therefore is **data-independent**: every choice in it is public. `Subwords` takes
its vocabulary from a public tokenizer. What a model can answer (`Schema`) is the corpus's public schema.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import numpy as np

from trustnlp import checks
from trustnlp.data.corpus import Corpus, Example

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NO_TARGET = -100
_TOKEN = re.compile(r"\S+")
_WORD_OR_MARK = re.compile(r"\w+|[^\w\s]")
# Public by construction: printable ASCII. 0 is padding, 1 any other character.
_CHARACTERS = {chr(code): code - 32 + 2 for code in range(32, 127)}
CHARACTERS = len(_CHARACTERS) + 2
_UNKNOWN = 1


@dataclass(frozen=True)
class Schema:
    """What a model can answer: the public names of the labels and of the slot tags; either may be empty."""

    labels: tuple[str, ...]
    tags: tuple[str, ...]

    @classmethod
    def of(cls, corpus: Corpus) -> Schema:
        """The labels and tags of the corpus's training split."""
        return cls(corpus.labels, corpus.tags)


class Ragged:
    """N rows of unequal length, stored end to end; a row's items may be vectors.

    Args:
        rows: one array of shape (length, ...) per row, all of one dtype.
    """

    def __init__(self, rows: Iterable[np.ndarray | Sequence[int]], dtype: type = np.int32) -> None:
        arrays: list[np.ndarray] = [np.asarray(row, dtype=dtype) for row in rows]
        self.lengths = np.array([len(row) for row in arrays], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])[:-1]
        self._values = np.concatenate([*arrays, np.zeros(1, dtype)])  # never empty, so padding can point somewhere

    def __len__(self) -> int:
        return len(self.lengths)

    def padded(self, indices: np.ndarray, fill: int = 0) -> np.ndarray:
        """The rows at `indices`, (B, longest of them and at least 1), filled up at the right."""
        lengths = self.lengths[indices]
        column = np.arange(max(1, int(lengths.max(initial=0))))
        inside = column < lengths[:, None]
        return np.where(inside, self._values[np.where(inside, self._starts[indices, None] + column, 0)], fill)


class Inputs(Protocol):
    """Encoded texts: what a model reads of them, without what it should answer."""

    @property
    def words(self) -> np.ndarray:
        """(N,) how many words of each text the model sees."""
        ...

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The texts at `indices` as arrays with B rows, padded to the longest of them."""
        ...


# --- hashed words ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HashedWords:
    """Words as sums of hashed embeddings (Bloom embeddings, Serrà and Karatzoglou 2017) and as characters.

    A word's lower-cased form is hashed by BLAKE2b to `hashes` of `buckets` public buckets; a model sums their
    embeddings, so two words are confused only if all their buckets agree. Beside them stand the word's first
    characters and its last (endings tell more than middles), out of printable ASCII, others being one 'unknown'.

    Args:
        buckets: how many embeddings there are.
        hashes: how many of them a word has.
        max_words: longer texts are cut here.
        max_chars: of longer words the middle is left out.
        split_marks: words and punctuation marks are separate (`don't!` gives `don ' t !`); only for texts
            without tags, as tags are given per whitespace-separated token.
    """

    buckets: int = 8192
    hashes: int = 2
    max_words: int = 256
    max_chars: int = 16
    split_marks: bool = False

    def __post_init__(self) -> None:
        for name in ("buckets", "hashes", "max_words", "max_chars"):
            checks.at_least(name, getattr(self, name), 1)

    def words(self, text: str) -> list[str]:
        """The words of `text` that a model sees."""
        found = _WORD_OR_MARK.findall(text) if self.split_marks else text.split()
        return found[: self.max_words]

    def places(self, text: str) -> list[tuple[int, int]]:
        """Where each of `words` begins and ends in `text`, in characters."""
        found = (_WORD_OR_MARK if self.split_marks else _TOKEN).finditer(text)
        return [match.span() for match in islice(found, self.max_words)]

    def bucket_ids(self, word: str) -> list[int]:
        """The H buckets of `word`, the same on every machine and in every release."""
        digest = hashlib.blake2b(word.lower().encode(), digest_size=8 * self.hashes, person=b"trustnlp words").digest()
        return [int.from_bytes(digest[i : i + 8], "little") % self.buckets for i in range(0, 8 * self.hashes, 8)]

    def char_ids(self, word: str) -> list[int]:
        """At most `max_chars` character ids of `word`, each in [1, CHARACTERS)."""
        if len(word) > self.max_chars:
            tail = self.max_chars // 2
            word = word[: self.max_chars - tail] + word[len(word) - tail :]
        return [_CHARACTERS.get(character, _UNKNOWN) for character in word]

    def encode(self, texts: Sequence[str]) -> HashedTexts:
        """The texts as numbers; each distinct word is hashed once."""
        return HashedTexts(self, texts)


class HashedTexts:
    """Texts as rows of word numbers, with one table of what each distinct word looks like."""

    def __init__(self, encoding: HashedWords, texts: Sequence[str]) -> None:
        known: dict[str, int] = {}
        self._rows = Ragged([known.setdefault(word, len(known)) for word in encoding.words(text)] for text in texts)
        self._buckets = np.array([encoding.bucket_ids(word) for word in known], dtype=np.int32)
        spelled = Ragged(encoding.char_ids(word) for word in known)
        self._chars = spelled.padded(np.arange(len(known)))
        self._char_counts = spelled.lengths

    @property
    def words(self) -> np.ndarray:
        """(N,) how many words of each text the model sees."""
        return self._rows.lengths

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """`words` (B, T, H), `chars` (B, T, C) with 0 as padding, and `lengths` (B,)."""
        lengths = self._rows.lengths[indices]
        word = self._rows.padded(indices)
        widest = int(self._char_counts[word].max(initial=1))
        chars = self._chars[word][:, :, :widest]
        chars = np.where((np.arange(word.shape[1]) < lengths[:, None])[:, :, None], chars, 0)
        return {"words": self._buckets[word], "chars": chars, "lengths": lengths}


# --- subwords --------------------------------------------------------------------------------------------------


class Subwords:
    """Pieces of a public tokenizer; a word is read at its first piece.

    Args:
        tokenizer: from the `tokenizers` library; its own truncation and padding settings are ignored.
        max_pieces: longer texts are cut here, special pieces included.
        pad: the id that fills up; it is masked, so it never changes a loss.
    """

    def __init__(self, tokenizer: Tokenizer, *, max_pieces: int = 256, pad: int = 0) -> None:
        from tokenizers import Tokenizer

        self.max_pieces = checks.at_least("max_pieces", max_pieces, 3)
        self.pad = pad
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_pieces)

    def to_json(self) -> str:
        """The tokenizer, as the text of a `tokenizer.json`."""
        return self._tokenizer.to_str()

    def places(self, text: str) -> list[tuple[int, int]]:
        """Where each piece begins and ends in `text`, in characters; special pieces stand at (0, 0)."""
        return list(self._tokenizer.encode(text).offsets)

    def encode(self, texts: Sequence[str]) -> SubwordTexts:
        """The texts as pieces, with the first piece of each whitespace-separated word."""
        found = self._tokenizer.encode_batch(list(texts))
        firsts = [_first_pieces(text, piece.offsets) for text, piece in zip(texts, found, strict=True)]
        return SubwordTexts(Ragged(piece.ids for piece in found), Ragged(firsts), self.pad)


class SubwordTexts:
    """Texts as rows of pieces, and as rows of where their words begin."""

    def __init__(self, pieces: Ragged, firsts: Ragged, pad: int) -> None:
        self._pieces = pieces
        self._firsts = firsts
        self._pad = pad

    @property
    def words(self) -> np.ndarray:
        """(N,) how many words of each text the model sees."""
        return self._firsts.lengths

    @property
    def spans(self) -> np.ndarray:
        """(N,) how many pieces each text has."""
        return self._pieces.lengths

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """`pieces` (B, P), each word's `first` (B, T), `lengths` (B,) in words and `spans` (B,) in pieces."""
        return {
            "pieces": self._pieces.padded(indices, self._pad),
            "first": self._firsts.padded(indices),
            "lengths": self._firsts.lengths[indices],
            "spans": self._pieces.lengths[indices],
        }


def _first_pieces(text: str, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """For each word up to the last one reached, its first piece; a word without piece is read at piece 0."""
    spans = [match.span() for match in _TOKEN.finditer(text)]
    firsts: list[int] = [0] * len(spans)
    word, reached = 0, 0
    for piece, (start, end) in enumerate(offsets):
        while word < len(spans) and spans[word][1] <= start:
            word += 1
        # A piece may begin with the space before its word, and special pieces cover nothing.
        if start < end and word < len(spans) and end > spans[word][0] and reached <= word:
            firsts[word] = piece
            reached = word + 1
    return firsts[:reached]


Encoding = HashedWords | Subwords


# --- targets ---------------------------------------------------------------------------------------------------


class Targets:
    """What a model of this schema should answer; NO_TARGET where nothing is known or the schema lacks the name.

    `complete` (N,) tells which examples have every gold answer that the schema asks for, and words that the model
    sees: only their losses mean anything.
    """

    def __init__(self, schema: Schema, examples: Sequence[Example], words: np.ndarray) -> None:
        label_ids = {name: i for i, name in enumerate(schema.labels)}
        tag_ids = {name: i for i, name in enumerate(schema.tags)}
        self._has_labels = bool(schema.labels)
        self._has_tags = bool(schema.tags)
        self._labels = np.array([_id(label_ids, example.label) for example in examples], dtype=np.int64)
        rows = [
            [_id(tag_ids, tag) for tag in example.tags[:seen]] if example.tags else [NO_TARGET] * int(seen)
            for example, seen in zip(examples, words, strict=True)
        ]
        self._tags = Ragged(rows, np.int64)
        label_known = [not label_ids or example.label in label_ids for example in examples]
        tags_known = [not tag_ids or set(example.tags or [None]) <= tag_ids.keys() for example in examples]
        self.complete = np.array(label_known, dtype=bool) & np.array(tags_known, dtype=bool) & (words > 0)

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """`label` (B,) and `tags` (B, T), each only where the schema has such names."""
        targets = {}
        if self._has_labels:
            targets["label"] = self._labels[indices]
        if self._has_tags:
            targets["tags"] = self._tags.padded(indices, NO_TARGET)
        return targets


def _id(ids: Mapping[str, int], name: str | None) -> int:
    return NO_TARGET if name is None else ids.get(name, NO_TARGET)
