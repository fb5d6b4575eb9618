"""A tiny intent and slot corpus, and Hugging Face folders made without this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import BertConfig, GPT2Config, PreTrainedTokenizerFast

import small_transformers
from trustnlp.data.corpus import Corpus, Example

PLAIN = ["play", "some", "jazz", "##y", "song", "by", "nina", "will", "it", "rain", "in", "rome", "tomorrow", "now"]
PIECES = [*small_transformers.SPECIAL, *PLAIN]


def example(text: str, label: str | None = None, tags: str | None = None) -> Example:
    return Example(text, label, tuple(tags.split()) if tags else None)


TRAIN = (
    example("play some jazz", "music", "O O B-genre"),
    example("play nina", "music", "O B-artist"),
    example("play some jazz by nina now", "music", "O O B-genre O B-artist O"),
    example("will it rain", "weather", "O O O"),
    example("rain in rome", "weather", "O O B-city"),
    example("will it rain in rome tomorrow", "weather", "O O O O B-city B-day"),
    example("play Nina-Simone's unforgettably-long-songname", "music", "O B-artist I-artist"),
    example("rain", "weather", "O"),
)
CORPUS = Corpus("tiny", TRAIN, TRAIN[:4], TRAIN[4:])
LABELS_ONLY = Corpus("texts", tuple(Example(item.text, item.label) for item in TRAIN))
TAGS_ONLY = Corpus("columns", tuple(Example(item.text, None, item.tags) for item in TRAIN))
SMALL: dict[str, dict[str, Any]] = {
    "bilstm": {"buckets": 64, "width": 8, "char_width": 4, "char_filters": 6, "hidden": 8},
    "transformer": {"buckets": 64, "char_width": 4, "char_filters": 8, "width": 16, "layers": 2, "heads": 2},
}
# What a configuration calls its answers.
LABELS = {"id2label": dict(enumerate(CORPUS.labels)), "label2id": {name: i for i, name in enumerate(CORPUS.labels)}}
TAGS = {"id2label": dict(enumerate(CORPUS.tags)), "label2id": {name: i for i, name in enumerate(CORPUS.tags)}}


def tokenizer() -> PreTrainedTokenizerFast:
    return small_transformers.tokenizer(PIECES)


def bert_config(**more: Any) -> BertConfig:
    return small_transformers.bert_config(PIECES, 24, **more)


def gpt2_config(**more: Any) -> GPT2Config:
    return small_transformers.gpt2_config(PIECES, 24, bos_token_id=2, eos_token_id=3, **more)


def save_plainly(model: Any, folder: Path) -> Path:
    """As somebody would who never heard of this package."""
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
