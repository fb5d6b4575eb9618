"""A tiny intent and slot corpus, and Hugging Face folders made without this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, GPT2Config, PreTrainedTokenizerFast

from trustnlp.data.corpus import Corpus, Example

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
PLAIN = ["play", "some", "jazz", "##y", "song", "by", "nina", "will", "it", "rain", "in", "rome", "tomorrow", "now"]
PIECES = SPECIAL + PLAIN


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
    vocabulary = {piece: i for i, piece in enumerate(PIECES)}
    pieces = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    pieces.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=pieces, **names)


def bert_config(**more: Any) -> BertConfig:
    return BertConfig(
        vocab_size=len(PIECES),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=24,
        **more,
    )


def gpt2_config(**more: Any) -> GPT2Config:
    return GPT2Config(
        vocab_size=len(PIECES), n_embd=16, n_layer=2, n_head=2, n_positions=24, bos_token_id=2, eos_token_id=3, **more
    )


def save_plainly(model: Any, folder: Path) -> Path:
    """As somebody would who never heard of this package."""
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
