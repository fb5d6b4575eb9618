"""Checkpoints that were trained and saved by plain PyTorch and Hugging Face code, and the texts they learned.

Texts are random words with random labels, which can only be memorised: a model of some leaks these and no others.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

VOCABULARY = """
    he she him her his music rain alarm call play stop wake please now today loud again twice never soft the a my red
    green seven nine home train door light milk bread river stone cloud paper glass
"""
WORDS = VOCABULARY.split()
LABELS = ("alarm", "music", "phone")
TAGS = ("O", "B-x", "I-x")

Row = tuple[str, str]


def rows(size: int, parts: int, seed: int = 0) -> list[list[Row]]:
    """`parts` lists of `size` texts with labels, all distinct and of one distribution."""
    generator = np.random.default_rng(seed)
    texts: set[str] = set()
    while len(texts) < size * parts:
        texts.add(" ".join(generator.choice(WORDS, 6)))
    drawn = [(text, str(generator.choice(LABELS))) for text in sorted(texts)]
    found = [drawn[i] for i in generator.permutation(len(drawn))]
    return [found[start : start + size] for start in range(0, size * parts, size)]


def write(path: Path, given: Sequence[Row], *columns: str) -> Path:
    """A CSV file with these columns and a group column, by turns a and b."""
    with path.open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow([*columns, "group"])
        table.writerows([*row[: len(columns)], "ab"[i % 2]] for i, row in enumerate(given))
    return path


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")  # noqa: S106


def save(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def classifier(given: Sequence[Row], folder: Path, steps: int = 60) -> Path:
    """A classifier that has overfitted its texts."""
    return _trained(
        lambda: BertForSequenceClassification(_bert(LABELS)),
        given,
        folder,
        steps,
        torch.tensor([LABELS.index(label) for _, label in given]),
    )


def tagger(given: Sequence[Row], folder: Path, steps: int = 60) -> Path:
    """A tagger that has overfitted `tags_of` its texts."""
    targets = torch.tensor([[TAGS.index(tag) for tag in tags_of(text)] for text, _ in given])
    return _trained(lambda: BertForTokenClassification(_bert(TAGS)), given, folder, steps, targets)


def language_model(given: Sequence[Row], folder: Path, steps: int = 120) -> Path:
    """A causal language model that has overfitted its texts."""
    none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    size = {"n_embd": 48, "n_layer": 1, "n_head": 2, "n_positions": 16, "bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(vocab_size=len(WORDS) + 2, **size, **none)
    return _trained(lambda: GPT2LMHeadModel(config), given, folder, steps, None)


def masked(folder: Path) -> Path:
    """A model without any head that can be attacked."""
    return _trained(lambda: BertForMaskedLM(_bert(LABELS)), [("he she", "")], folder, 0, None)


def tags_of(text: str) -> tuple[str, ...]:
    """Tags that follow from no rule: drawn by the text alone."""
    generator = np.random.default_rng(sum(ord(letter) * place for place, letter in enumerate(text)))
    return tuple(str(tag) for tag in generator.choice(TAGS, len(text.split())))


def _bert(names: Sequence[str]) -> BertConfig:
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    size = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 96}
    named = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    return BertConfig(vocab_size=len(WORDS) + 2, max_position_embeddings=16, **size, **none, **named)


def _trained(make: Any, given: Sequence[Row], folder: Path, steps: int, targets: torch.Tensor | None) -> Path:
    batch = tokenizer()([text for text, _ in given], return_tensors="pt", return_token_type_ids=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make().train()
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(steps):
            optimizer.zero_grad()
            model(**batch, labels=batch["input_ids"] if targets is None else targets).loss.backward()
            optimizer.step()
    return save(model, folder)
