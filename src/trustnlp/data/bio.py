"""The BIO tagging scheme: `B-x` begins a span of kind x, `I-x` goes on with it, `O` is outside of every span.

Ramshaw and Marcus 1995, "Text chunking using transformation-based learning" (the IOB2 variant).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from trustnlp.errors import MalformedCorpusError

_TAG = re.compile(r"O|[BI]-\S+")


@lru_cache(maxsize=4096)
def is_tag(tag: str) -> bool:
    """Whether `tag` is `O`, `B-something` or `I-something`."""
    return _TAG.fullmatch(tag) is not None


def check(path: Path, line: int, tags: Iterable[str]) -> tuple[str, ...]:
    """`tags` as a tuple.

    Raises:
        MalformedCorpusError: one of them is not a BIO tag.
    """
    tags = tuple(tags)
    for tag in tags:
        if not is_tag(tag):
            raise MalformedCorpusError(path, line, f"{tag[:40]!r} is not a BIO tag", "write B-slot, I-slot or O")
    return tags
