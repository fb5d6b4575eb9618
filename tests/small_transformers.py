"""Tokenizers and configurations of tiny Hugging Face models, over a list of pieces that begins with `SPECIAL`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordPiece
from transformers import BertConfig, GPT2Config, PreTrainedTokenizerFast

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def tokenizer(pieces: Sequence[str]) -> PreTrainedTokenizerFast:
    """WordPiece, with [CLS] and [SEP] around each text."""
    found = Tokenizer(WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))  # noqa: S106
    found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    found.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=found, **names)


def bert_config(pieces: Sequence[str], positions: int, **more: Any) -> BertConfig:
    """Two layers of width 16."""
    return BertConfig(
        vocab_size=len(pieces),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=positions,
        **more,
    )


def gpt2_config(pieces: Sequence[str], positions: int, **more: Any) -> GPT2Config:
    """Two layers of width 16."""
    return GPT2Config(vocab_size=len(pieces), n_embd=16, n_layer=2, n_head=2, n_positions=positions, **more)
