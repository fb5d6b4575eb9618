"""Every task alike: which one a corpus is for, and a model for it.

`models.evaluate` gives a `score` in [0, 1] of each, higher is better:

    classification, tagging, both    label accuracy, slot F1 or tag accuracy, or the mean of the two
    span question answering          F1 of SQuAD 1.1
    sequence to sequence             ROUGE-L
    causal language modelling        the probability of a token, the exponential of minus the loss
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from trustnlp import models
from trustnlp.data.corpus import Corpus
from trustnlp.data.registry import Task
from trustnlp.randomness import Streams


def task_of(corpus: Corpus) -> Task:
    """What the corpus's first training example has to learn from decides."""
    first = corpus.train[0]
    if first.answers is not None:
        return Task.SPAN_QA
    if first.target is not None:
        return Task.SEQ2SEQ
    if first.label is not None and first.tags is not None:
        return Task.SLOTS
    if first.label is not None:
        return Task.CLASSIFICATION
    return Task.LANGUAGE if first.tags is None else Task.TAGGING


def build(model: str | Path | None, corpus: Corpus, *, streams: Streams, **options: Any) -> nn.Module:
    """A model for the corpus's task, with weights drawn from the stream `init`.

    Args:
        model: a kind from scratch (`bilstm`, `transformer`), `minilm`, a folder or hub name; None for the small one
            that the task has from scratch.
        options: of that kind of model.
    """
    task = task_of(corpus)
    if task is Task.SPAN_QA:
        return models.build_span_model(*_given(model), streams=streams, **options)
    if task is Task.SEQ2SEQ:
        return models.build_seq2seq_model(*_given(model), streams=streams, **options)
    if task is Task.LANGUAGE:
        return models.build_language_model(*_given(model), streams=streams, **options)
    return models.build(model or "bilstm", corpus, streams=streams, **options)


def _given(model: str | Path | None) -> tuple[str | Path, ...]:
    return () if model is None else (model,)
