"""What is trained: models of known shapes with random weights, and random texts of one length.

Shape legend: B texts, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from trustnlp import models
from trustnlp.data import Corpus, Example, synthetic
from trustnlp.models.protocol import Batch, Encoded
from trustnlp.randomness import Streams

STREAMS = Streams(0)
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
GPT2_SMALL = {"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257, "n_positions": 2048}


@dataclass(frozen=True)
class Case:
    """One training to be timed.

    Args:
        name: as given to `--case`.
        title: as shown.
        make: the model, on its device, with the same weights every time.
        data: its texts.
        logical: examples in a step on average.
        physical: examples that go through the model at a time.
        targets: how slow a step may be, as a ratio to the plain one, by kind of contestant.
        micro_batches: sizes at which micro-batch clipping is measured.
        sweep: of which sweeps it is a point, and where: {"tokens": 128}; such cases have fewer contestants.
        shared: what the model takes as one row for all texts unless it is given.
        peers: whether other libraries take part.
    """

    name: str
    title: str
    make: Callable[[], nn.Module]
    data: Encoded
    logical: int
    physical: int
    targets: Mapping[str, float] = field(default_factory=dict)
    micro_batches: tuple[int, ...] = (8, 16)
    sweep: Mapping[str, int] = field(default_factory=dict)
    shared: tuple[str, ...] = ()
    peers: bool = True


@dataclass(frozen=True)
class Setting:
    """Where and how everything runs, and beside whom; `tiny` shrinks models and batches to try the benchmark itself."""

    device: str = "cpu"
    dtype: str = "float32"
    tiny: bool = False
    peers: bool = True

    def precision(self) -> AbstractContextManager[object]:
        """The context of every forward pass: autocast unless all is in float32."""
        if self.dtype == "float32":
            return nullcontext()
        return torch.autocast(self.device, getattr(torch, self.dtype))


class Tokens:
    """`count` texts of `length` tokens with a label of two, drawn at random."""

    def __init__(self, count: int, length: int, vocabulary: int) -> None:
        generator = STREAMS.torch("tokens")
        self._ids = torch.randint(0, vocabulary, (count, length), generator=generator)
        self._labels = torch.randint(0, 2, (count,), generator=generator)

    def __len__(self) -> int:
        return len(self._ids)

    def batch(self, indices: object) -> Batch:
        rows = torch.as_tensor(indices)
        return Batch({"input_ids": self._ids[rows]}, {"label": self._labels[rows]})


class Classifier(nn.Module):
    """A Hugging Face classifier as a text model."""

    def __init__(self, model: nn.Module, setting: Setting) -> None:
        super().__init__()
        self.model, self._setting = model, setting

    def logits(self, batch: Batch) -> dict[str, Tensor]:
        return {"label": self.model(**batch.inputs).logits}

    def loss(self, batch: Batch) -> Tensor:
        with self._setting.precision():
            return nn.functional.cross_entropy(self.logits(batch)["label"], batch.targets["label"], reduction="none")


class LanguageModel(Classifier):
    """A Hugging Face causal language model; a text's loss is the mean over its tokens."""

    def loss(self, batch: Batch) -> Tensor:
        with self._setting.precision():
            scores = self.model(**batch.inputs).logits[:, :-1]
            following = batch.inputs["input_ids"][:, 1:]
            return nn.functional.cross_entropy(scores.mT, following, reduction="none").mean(1)


def _seeded(make: Callable[[], nn.Module], setting: Setting) -> Callable[[], nn.Module]:
    def made() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return make().to(setting.device).train()

    return made


def _bert(setting: Setting) -> BertForSequenceClassification:
    shape = MINILM | ({"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 24} if setting.tiny else {})
    heads = {"num_attention_heads": 2} if setting.tiny else {}
    return BertForSequenceClassification(BertConfig(vocab_size=97 if setting.tiny else 30522, **shape | heads))


def _adapted(model: nn.Module, targets: list[str]) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    return get_peft_model(
        model,
        LoraConfig(r=8, target_modules=targets, modules_to_save=["classifier"], fan_in_fan_out="c_attn" in targets),
    )


def minilm(setting: Setting, *, tokens: int = 64, logical: int = 64, physical: int = 16, lora: bool = False) -> Case:
    """BERT of MiniLM-L6's shape, 6 layers of width 384 over 30,522 pieces, with a classification head."""

    def make() -> nn.Module:
        bert = _bert(setting)
        return Classifier(_adapted(bert, ["query", "value"]) if lora else bert, setting)

    if setting.tiny:
        tokens, logical, physical = 6, 16, 4
    title = f"{'LoRA on ' if lora else ''}MiniLM shape, {tokens} tokens, logical {logical} in physical {physical}"
    targets = {"flat": 1.15, "layer-wise": 1.08, "micro-batch": 1.05}
    data = Tokens(10 * logical, tokens, 97 if setting.tiny else 30522)
    return Case(
        "lora" if lora else "minilm",
        title,
        _seeded(make, setting),
        data,
        logical,
        physical,
        targets,
        shared=("position_ids", "token_type_ids"),
    )


def gpt2(setting: Setting, *, tokens: int, logical: int = 64, physical: int = 16, lora: bool = False) -> Case:
    """GPT-2 small's shape: 12 layers of width 768 over 50,257 pieces, head and embedding tied."""

    def make() -> nn.Module:
        small = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 97, "n_positions": 8} if setting.tiny else {}
        model = GPT2LMHeadModel(GPT2Config(**GPT2_SMALL | small, use_cache=False))
        return LanguageModel(_adapted(model, ["c_attn"]) if lora else model, setting)

    sizes = (8, 16) if logical >= 32 else (logical,)
    if setting.tiny:
        tokens, logical, physical = 6, 16, 4
    cuda = setting.device != "cpu"
    targets = {"flat": 1.15, "layer-wise": 1.08, "micro-batch": 1.03} if cuda else {}
    title = f"{'LoRA on ' if lora else ''}GPT-2 small shape, {tokens} tokens, logical {logical} in physical {physical}"
    data = Tokens(10 * logical, tokens, 97 if setting.tiny else 50257)
    return Case(
        "gpt2-lora" if lora else "gpt2",
        title,
        _seeded(make, setting),
        data,
        logical,
        physical,
        targets,
        sizes,
        shared=("position_ids",),
    )


def bilstm(setting: Setting, *, tokens: int = 20, logical: int = 256, physical: int = 64) -> Case:
    """trustnlp's joint tagger, a BiLSTM over hashed words and characters, on sentences of one length."""
    options = {"buckets": 64, "width": 8, "hidden": 6, "char_width": 4, "char_filters": 4} if setting.tiny else {}
    if setting.tiny:
        tokens, logical, physical = 6, 64, 16
    corpus = Corpus("sentences of one length", _of_one_length(10 * logical, tokens))
    data = models.build("bilstm", corpus, streams=STREAMS, **options).encode(corpus.train, for_training=True)
    return Case(
        "bilstm",
        f"BiLSTM tagger, {tokens} words, logical {logical} in physical {physical}",
        _seeded(lambda: models.build("bilstm", corpus, streams=STREAMS, **options), setting),
        data,
        logical,
        physical,
        {"flat": 1.5, "layer-wise": 1.4, "micro-batch": 1.1},
        (8, 16, 64),
    )


def _of_one_length(count: int, length: int) -> tuple[Example, ...]:
    """Synthetic sentences strung together and cut after `length` words."""
    source = iter(synthetic.corpus(size=max(10, count * length // 4), canaries=False).train)
    found = []
    for _ in range(count):
        words: list[str] = []
        tags: list[str] = []
        while len(words) < length:
            example = next(source)
            words += example.tokens
            tags += example.tags or ()
        found.append(Example(" ".join(words[:length]), example.label, tuple(tags[:length])))
    return tuple(found)


def _point(name: str, make: Callable[[Setting], Case], **sweep: int) -> dict[str, Callable[[Setting], Case]]:
    return {name: lambda setting: replace(make(setting), name=name, sweep=sweep)}


def cases(device: str) -> dict[str, Callable[[Setting], Case]]:
    """All cases by name, as functions of the setting."""
    return {name: partial(_with_peers, make) for name, make in _makers(device).items()}


def _with_peers(make: Callable[[Setting], Case], setting: Setting) -> Case:
    return replace(make(setting), peers=setting.peers)


def _makers(device: str) -> dict[str, Callable[[Setting], Case]]:
    """The CPU's GPT-2 has a small batch, as a step takes seconds."""
    whole: dict[str, Callable[[Setting], Case]] = {
        "minilm": minilm,
        "minilm-256": lambda setting: replace(minilm(setting, logical=256), name="minilm-256"),
        "bilstm": bilstm,
        "lora": partial(minilm, lora=True),
    }
    if device == "cpu":
        half = partial(minilm, logical=32)
        whole |= _point("minilm-64", half, tokens=64, physical_batch=16)
        for tokens in (32, 128):
            whole |= _point(f"minilm-{tokens}", partial(half, tokens=tokens), tokens=tokens)
        for size in (8, 32):
            whole |= _point(f"minilm-by-{size}", partial(half, physical=size), physical_batch=size)
        return whole | {"gpt2": partial(gpt2, tokens=128, logical=4, physical=4)}
    whole |= {"gpt2": partial(gpt2, tokens=512), "gpt2-lora": partial(gpt2, tokens=512, lora=True)}
    for tokens, size in ((128, 16), (512, 16), (1024, 8), (2048, 4)):
        whole |= _point(f"gpt2-{tokens}", partial(gpt2, tokens=tokens, physical=size), tokens=tokens)
    return whole
