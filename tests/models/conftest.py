"""Models of every kind, and Hugging Face folders; also lets the tests of this room import `small_corpus`."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # tests are collected by path, so their folders are not on it

from small_corpus import CORPUS, LABELS, SMALL, TAGS, bert_config, gpt2_config, save_plainly
from transformers import (
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
)

from trustnlp import models
from trustnlp.models.heads import NLUModel
from trustnlp.randomness import Streams


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints saved by code that never saw this package, by what they are."""
    made = {
        "classifier": lambda: BertForSequenceClassification(bert_config(**LABELS)),
        "tagger": lambda: BertForTokenClassification(bert_config(**TAGS)),
        "bare": lambda: BertModel(bert_config()),
        "masked": lambda: BertForMaskedLM(bert_config()),
        "language": lambda: GPT2LMHeadModel(gpt2_config()),
        "decoder-classifier": lambda: GPT2ForSequenceClassification(gpt2_config(**LABELS)),
    }
    root = tmp_path_factory.mktemp("plain")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {name: save_plainly(make(), root / name) for name, make in made.items()}


@pytest.fixture
def copied(folders: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A folder to spoil."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(folders[name], tmp_path / name))

    return copy


@pytest.fixture(scope="module")
def made(folders: dict[str, Path]) -> dict[str, NLUModel]:
    """A model of every kind, in evaluation mode."""

    def make(kind: str) -> NLUModel:
        source = folders["bare"] if kind == "pretrained" else kind
        return models.build(source, CORPUS, streams=Streams(0), **SMALL.get(kind, {}))

    return {kind: make(kind).eval() for kind in ("bilstm", "transformer", "pretrained")}
