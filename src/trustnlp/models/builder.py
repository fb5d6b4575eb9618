"""One function from a model's name and a corpus to a model ready to train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from trustnlp.data.corpus import Corpus
from trustnlp.data.encoding import HashedWords, Schema, Subwords
from trustnlp.errors import ArgumentError
from trustnlp.models.bilstm import BiLSTM, BiLSTMOptions
from trustnlp.models.heads import NLUModel
from trustnlp.models.transformer import PretrainedEncoder, Transformer, TransformerOptions
from trustnlp.randomness import Streams

_FROM_SCRATCH = {"bilstm": (BiLSTMOptions, BiLSTM), "transformer": (TransformerOptions, Transformer)}
PRETRAINED = "pretrained"
Options = TypeVar("Options")


@dataclass(frozen=True)
class PretrainedOptions:
    """How a pretrained encoder is fine-tuned.

    Args:
        dropout: of its last hidden states; inside it has its own.
        max_pieces: longer texts are cut here, or at the encoder's own limit.
    """

    dropout: float = 0.1
    max_pieces: int = 256


def build(model: str | Path, corpus: Corpus, *, streams: Streams, **options: Any) -> NLUModel:
    """A model for the corpus's labels and tags, with weights drawn from the stream `init`.

    Args:
        model: `bilstm`, `transformer` (small, from scratch), `minilm` (the packaged encoder), the folder of a
            pretrained Hugging Face encoder, or its hub name.
        corpus: its training split gives the labels and tags; its texts are not looked at.
        streams: same seed, same weights; the global generator is left as it was.
        options: fields of `BiLSTMOptions`, `TransformerOptions` or `PretrainedOptions`.

    Raises:
        ArgumentError: an option that the model does not have, or a value out of range.
        ModelError: a pretrained encoder that cannot be opened or is not safe to; no labels and no tags.
        MissingExtraError: `minilm` without its package.
    """
    schema = Schema.of(corpus)
    named = {"labels": list(schema.labels), "tags": list(schema.tags)}
    with seeded(streams):
        if model in _FROM_SCRATCH:
            chosen: Any = checked_options(_FROM_SCRATCH[str(model)][0], options)
            return rebuild({"kind": model, "options": asdict(chosen), **named})
        return _fine_tuned(model, schema, checked_options(PretrainedOptions, options), named)


def _fine_tuned(source: str | Path, schema: Schema, tuning: PretrainedOptions, named: Mapping[str, Any]) -> NLUModel:
    from trustnlp.models import pretrained

    source = pretrained.minilm() if source == "minilm" else source
    encoder = pretrained.open_encoder(source)
    encoding = pretrained.open_subwords(source, encoder.config, max_pieces=tuning.max_pieces)
    # The limit that was found becomes the option, so that a saved model cuts where this one does.
    options = asdict(replace(tuning, max_pieces=encoding.max_pieces))
    config = {"kind": PRETRAINED, "options": options, **named, "encoder": pretrained.config_dict(encoder.config)}
    return NLUModel(PretrainedEncoder(encoder, tuning.dropout), encoding, schema, config)


def rebuild(config: Mapping[str, Any], tokenizer: str | None = None) -> NLUModel:
    """The model of a `NLUModel.config`, with weights from the global generator, to be loaded from elsewhere.

    Args:
        config: as `build` made it.
        tokenizer: the text of `tokenizer.json`, for pretrained encoders.
    """
    schema = Schema(tuple(config["labels"]), tuple(config["tags"]))
    if config["kind"] == PRETRAINED:
        from tokenizers import Tokenizer

        from trustnlp.models.pretrained import encoder_from, pad_of

        tuning = PretrainedOptions(**config["options"])
        encoder = encoder_from(config["encoder"])
        pieces = Tokenizer.from_str(tokenizer or "")
        encoding = Subwords(pieces, max_pieces=tuning.max_pieces, pad=pad_of(encoder.config))
        return NLUModel(PretrainedEncoder(encoder, tuning.dropout), encoding, schema, config)
    options_class, backbone_class = _FROM_SCRATCH[config["kind"]]
    options: Any = options_class(**config["options"])
    words = HashedWords(options.buckets, options.hashes, options.max_words, split_marks=not schema.tags)
    return NLUModel(backbone_class(options, words), words, schema, config, crf=config["options"].get("crf", False))


def checked_options(kind: type[Options], given: Mapping[str, Any]) -> Options:
    """The options `given`, as the dataclass `kind`.

    Raises:
        ArgumentError: one that it does not have, or a value out of range.
    """
    known = tuple(kind.__dataclass_fields__)  # type: ignore[attr-defined]
    for name in given:
        if name not in known:
            raise ArgumentError("options", f"among {', '.join(known)}", name)
    return kind(**given)


@contextmanager
def seeded(streams: Streams) -> Iterator[None]:
    """Inside, PyTorch draws from the stream `init`; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(streams.key("init"))
        yield
