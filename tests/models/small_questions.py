"""Questions on short texts, answered by pieces of them, and a tiny BERT that reads pairs of texts."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import processors
from transformers import BertModel, PreTrainedTokenizerFast

import small_transformers
from trustnlp.data.corpus import Answer, Example

PEOPLE = {"ada": "rome", "bob": "paris", "eve": "new york", "cid": "bonn", "dan": "oslo", "fay": "los angeles"}


def asked(name: str, other: str, turned: bool) -> Example:
    """Where `name` lives, in a text that says it of two people."""
    both = [f"{who} lives in {PEOPLE[who]}" for who in ((other, name) if turned else (name, other))]
    text = ", and ".join(both) + "."
    place = PEOPLE[name]
    return Example(text, user=name, question=f"where does {name} live?", answers=(Answer(text.index(place), place),))


TRAIN = tuple(asked(name, other, turned) for name in PEOPLE for other in PEOPLE if other > name for turned in (0, 1))
TINY = {"buckets": 256, "width": 16, "char_width": 4, "char_filters": 4, "hidden": 12, "dropout": 0.0}
PIECES = [
    *small_transformers.SPECIAL,
    *PEOPLE,
    *(word for place in PEOPLE.values() for word in place.split()),
    *("lives", "in", "and", "where", "does", "live", ".", ",", "?"),
]


def tokenizer() -> PreTrainedTokenizerFast:
    """[CLS] question [SEP] context [SEP], as BERT's."""
    found = small_transformers.tokenizer(PIECES)
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    template = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    found.backend_tokenizer.post_processor = template
    return found


def save_bert(folder: Path) -> Path:
    """Its encoder and tokenizer, as somebody would who never heard of this package."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(small_transformers.bert_config(PIECES, 32, type_vocab_size=2)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
