"""Canaries that somebody else has planted: a file that says what they are, one JSON object a line.

    {"prefix": "my pin code is", "secret": "4 8 1 7", "label": "GiveCode", "repetitions": 10}

`label` and `tags` are needed where the model answers them. `repetitions` is 1 where it is left out, and 0 names a
control that was never planted. `alphabet` is what each token of the secret was drawn from: `digits` (the default),
`colours`, or a list of tokens. An attack's figures hold for secrets that were drawn uniformly from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trustnlp import checks
from trustnlp.data import json_lines
from trustnlp.data.canaries import ALPHABETS, Canary
from trustnlp.errors import ArgumentError, CorpusNotFoundError, MalformedCorpusError

_KEYS = ("prefix", "secret", "label", "tags", "repetitions", "alphabet")


def read(path: str | Path) -> tuple[Canary, ...]:
    """The canaries of a file. No error shows a secret.

    Raises:
        CorpusNotFoundError: there is no such file.
        MalformedCorpusError: with path and line: no JSON object, a key that breaks its rule, or no canary at all.
    """
    path = Path(path)
    if not path.is_file():
        raise CorpusNotFoundError(f"there is no file of canaries {path}", "give JSON lines with prefix and secret")
    found = tuple(_canary(path, line, row) for line, row in json_lines.rows(path))
    if not found:
        raise MalformedCorpusError(path, None, "no canary in this file", "write one JSON object a line")
    return found


def _canary(path: Path, line: int, row: Mapping[Any, Any]) -> Canary:
    try:
        for key in row:
            checks.one_of("key", key, _KEYS)
        prefix, secret = (_tokens(key, row.get(key)) for key in ("prefix", "secret"))
        alphabet = _alphabet(row.get("alphabet", "digits"))
        if not set(secret) <= set(alphabet):  # said here, as the check of Canary shows what it was given
            raise ArgumentError("secret", "tokens of the alphabet", "others", "name the alphabet it was drawn from")
        tags = None if row.get("tags") is None else _tokens("tags", row["tags"])
        return Canary(prefix, secret, _label(row.get("label")), tags, row.get("repetitions", 1), alphabet)
    except ArgumentError as error:
        raise MalformedCorpusError(path, line, error.reason, error.mend) from None


def _tokens(key: str, value: Any) -> tuple[str, ...]:
    words = value.split() if isinstance(value, str) else value
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise ArgumentError(key, "a text, or a list of tokens", type(value).__name__)
    return tuple(words)


def _alphabet(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return ALPHABETS[checks.one_of("alphabet", value, tuple(ALPHABETS))]
    return _tokens("alphabet", value)


def _label(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ArgumentError("label", "a text", type(value).__name__)
    return value
