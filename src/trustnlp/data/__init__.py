"""Corpora: readers of public formats, the registry, the synthetic corpus, canaries, groups and encoding."""

from trustnlp.data.corpus import Corpus, Example
from trustnlp.data.loading import load

__all__ = ["Corpus", "Example", "load"]
