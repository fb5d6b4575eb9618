"""One token per line, a blank line after each sentence: CoNLL columns (BIO tags) and CoNLL-U (parts of speech).

CoNLL columns: Tjong Kim Sang and De Meulder 2003, the first column is the token and the last its tag.
CoNLL-U: https://universaldependencies.org/format.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from trustnlp.data import bio
from trustnlp.data.corpus import Example
from trustnlp.data.lines import lines
from trustnlp.errors import MalformedCorpusError

LONGEST_SENTENCE = 10_000
"""The most lines without a blank one, so that a file of another format cannot fill the memory."""

_UNIVERSAL_COLUMNS = 10
_ID, _FORM, _UPOS = 0, 1, 3


def read_columns(path: Path) -> Iterator[Example]:
    """Sentences of a file of columns parted by tabs or spaces, with a BIO tag in the last column.

    `-DOCSTART-` lines and comments (`# …` without a tag) are left out.

    Raises:
        MalformedCorpusError: with path and line: a line has another number of columns than the first one, or a tag
            that is not BIO.
    """
    width = 0
    for sentence in _sentences(path):
        tokens: list[str] = []
        tags: list[str] = []
        for number, line in sentence:
            columns = line.split("\t") if "\t" in line else line.split()
            if columns[0] == "-DOCSTART-" or (line.startswith("# ") and not bio.is_tag(columns[-1])):
                continue
            width = width or len(columns)
            if len(columns) != width or width < 2:
                expected = f" where the lines before have {width}" if width > 1 else ""
                mend = "each line needs a token first and its tag last"
                raise MalformedCorpusError(path, number, f"{len(columns)} column(s){expected}", mend)
            tokens.append(_token(path, number, columns[0]))
            tags.extend(bio.check(path, number, columns[-1:]))
        if tokens:
            yield Example(" ".join(tokens), tags=tuple(tags))


def read_universal(path: Path, *, genres: bool = False) -> Iterator[Example]:
    """Sentences of a CoNLL-U file: words joined by spaces, universal parts of speech as tags, documents as users.

    Lines of multiword tokens (`3-4`) and of empty nodes (`8.1`) are left out, since their words have their own lines.

    Args:
        path: the file.
        genres: whether documents are named `genre-…`, as in English EWT, and the genre is to be the group.

    Raises:
        MalformedCorpusError: with path and line: a line has not ten columns, or no part of speech.
    """
    document: str | None = None
    for sentence in _sentences(path):
        document = _document(sentence, document)
        words = list(_words(path, sentence))
        if words:
            group = document.partition("-")[0] if genres and document else None
            text = " ".join(form for form, _ in words)
            yield Example(text, tags=tuple(part for _, part in words), user=document, group=group)


def _sentences(path: Path) -> Iterator[list[tuple[int, str]]]:
    sentence: list[tuple[int, str]] = []
    for number, line in lines(path):
        if line.strip():
            sentence.append((number, line.rstrip("\r\n")))
            if len(sentence) > LONGEST_SENTENCE:
                reason = f"no blank line in {LONGEST_SENTENCE:,} lines"
                raise MalformedCorpusError(path, number, reason, "put a blank line after each sentence")
        elif sentence:
            yield sentence
            sentence = []
    if sentence:
        yield sentence


def _document(sentence: Iterable[tuple[int, str]], before: str | None) -> str | None:
    named = [line.partition("=")[2].strip() for _, line in sentence if line.startswith("# newdoc")]
    return (named[-1] or None) if named else before


def _words(path: Path, sentence: Iterable[tuple[int, str]]) -> Iterator[tuple[str, str]]:
    for number, line in sentence:
        if line.startswith("#"):
            continue
        columns = line.split("\t")
        if len(columns) != _UNIVERSAL_COLUMNS:
            reason = f"{len(columns)} column(s), CoNLL-U has {_UNIVERSAL_COLUMNS} parted by tabs"
            raise MalformedCorpusError(path, number, reason, "give a file of other columns the ending .conll")
        if not columns[_ID].isdigit():
            continue
        if columns[_UPOS] in ("", "_"):
            raise MalformedCorpusError(path, number, "no part of speech in column 4", "use an annotated treebank")
        yield _token(path, number, columns[_FORM]), columns[_UPOS]


def _token(path: Path, number: int, token: str) -> str:
    if len(token.split()) != 1:
        raise MalformedCorpusError(path, number, "a token that is empty or holds a space", "write it without spaces")
    return token.strip()
