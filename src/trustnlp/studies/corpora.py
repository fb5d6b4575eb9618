"""The corpus that a command names: the built-in synthetic one, a public one by name, or a file of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trustnlp import data
from trustnlp.data import synthetic
from trustnlp.data.corpus import Corpus
from trustnlp.errors import CorpusError

_SIZE, _QUICK_SIZE = 20_000, 5_000


def load(
    name: str,
    *,
    limit: int,
    group: str | None = None,
    columns: Mapping[str, str | int] | None = None,
    quick: bool = False,
) -> Corpus:
    """The labelled corpus called `name`. Splits are the same for every seed: what differs is training, not data.

    Args:
        name: `synthetic`, a public corpus's name or a path.
        limit: the most texts to use.
        group: which column names groups.
        columns: column by role, where names are unusual.
        quick: fewer synthetic texts.

    Raises:
        CorpusError: it cannot be read, or has neither labels nor tags, or no test split.
    """
    if name == "synthetic":
        corpus = synthetic.corpus(size=min(limit, _QUICK_SIZE if quick else _SIZE), bias=0.5, canaries=False)
    else:
        corpus = data.load(name, limit=limit, group=group, columns=columns)
    if not corpus.labels and not corpus.tags:
        raise CorpusError(f"corpus {corpus.name!r} has neither labels nor tags", "give a labelled corpus")
    if not corpus.test:
        raise CorpusError(f"corpus {corpus.name!r} has no test split", "give it one; accuracy is measured there")
    return corpus


def delta_for(examples: int) -> float:
    """A delta that suits a training set: N^-1.1, which is below 1/N, and at most 1e-5."""
    return min(1e-5, examples**-1.1)


def about(corpus: Corpus) -> dict[str, Any]:
    """What a run says of the corpus that it has trained on."""
    return {"name": corpus.name, "digest": corpus.digest, "train": len(corpus.train), "test": len(corpus.test)}
