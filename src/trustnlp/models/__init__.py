"""Models that give one loss per example, the one loop that trains them, and what they answer.

Names are loaded when they are first used: the contracts in `protocol` must not cost the import of everything.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trustnlp.models.builder import build as build
    from trustnlp.models.checkpoint import load as load
    from trustnlp.models.checkpoint import save as save
    from trustnlp.models.evaluation import Predictions as Predictions
    from trustnlp.models.evaluation import evaluate as evaluate
    from trustnlp.models.evaluation import losses as losses
    from trustnlp.models.evaluation import predict as predict
    from trustnlp.models.existing import load_checkpoint as load_checkpoint
    from trustnlp.models.heads import LabelModel as LabelModel
    from trustnlp.models.heads import NLUModel as NLUModel
    from trustnlp.models.language_model import LanguageModel as LanguageModel
    from trustnlp.models.language_model import build_language_model as build_language_model
    from trustnlp.models.masked_language_model import MaskedLanguageModel as MaskedLanguageModel
    from trustnlp.models.masked_language_model import build_masked_language_model as build_masked_language_model
    from trustnlp.models.masked_language_model import load_masked_language_model as load_masked_language_model
    from trustnlp.models.pretrained_seq2seq import load_seq2seq as load_seq2seq
    from trustnlp.models.seq2seq import Seq2SeqModel as Seq2SeqModel
    from trustnlp.models.seq2seq import build_seq2seq_model as build_seq2seq_model
    from trustnlp.models.span_qa import SpanModel as SpanModel
    from trustnlp.models.span_qa import build_span_model as build_span_model
    from trustnlp.models.training import History as History
    from trustnlp.models.training import PlainStep as PlainStep
    from trustnlp.models.training import ShuffledBatches as ShuffledBatches
    from trustnlp.models.training import fit as fit

_HOMES = {
    "History": "training",
    "LabelModel": "heads",
    "LanguageModel": "language_model",
    "MaskedLanguageModel": "masked_language_model",
    "NLUModel": "heads",
    "PlainStep": "training",
    "Predictions": "evaluation",
    "Seq2SeqModel": "seq2seq",
    "ShuffledBatches": "training",
    "SpanModel": "span_qa",
    "build": "builder",
    "build_language_model": "language_model",
    "build_masked_language_model": "masked_language_model",
    "build_seq2seq_model": "seq2seq",
    "build_span_model": "span_qa",
    "evaluate": "evaluation",
    "fit": "training",
    "load": "checkpoint",
    "load_checkpoint": "existing",
    "load_masked_language_model": "masked_language_model",
    "load_seq2seq": "pretrained_seq2seq",
    "losses": "evaluation",
    "predict": "evaluation",
    "save": "checkpoint",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 (a list of the table's names)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
