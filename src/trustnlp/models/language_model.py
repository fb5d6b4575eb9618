"""Causal language models: any of Transformers behind the contract of this room, and a small GPT-2 from scratch.

Shape legend: B batch, P pieces, V vocabulary.

A vocabulary that is learned from private text tells what occurs in it. A model from scratch therefore reads bytes, or
the pieces of a public tokenizer; of a byte-pair one perhaps only the first merges, which are a public tokenizer, too,
and spare a small model a vocabulary larger than itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from trustnlp import checks
from trustnlp.data.corpus import Example
from trustnlp.data.encoding import NO_TARGET, Schema, Subwords
from trustnlp.errors import ArgumentError, ModelError
from trustnlp.models.encoded import Split
from trustnlp.models.evaluation import losses
from trustnlp.models.heads import cross_entropies, word_mask
from trustnlp.models.protocol import Batch
from trustnlp.randomness import Streams

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import GPT2LMHeadModel

KIND = "language-model"
BYTES = "bytes"
BEGIN = "<|endoftext|>"  # GPT-2's own name for what stands between texts
_MERGES = ("merges.txt", "vocab.bpe")


class LanguageModel(nn.Module):
    """A causal language model; a text's loss is the mean negative log-likelihood of its tokens, in nats.

    Every token but the first is predicted from those before it. Where the tokenizer puts no special token at the
    front, the first token is context only, and a text of one token has no loss.

    Args:
        model: of Transformers, with logits (B, P, V).
        encoding: its tokenizer.
        config: all that is needed to build the same model again, JSON-able; empty where that is not known.
    """

    def __init__(self, model: nn.Module, encoding: Subwords, config: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.model = model
        self.encoding = encoding
        self.config = dict(config or {})

    def encode(self, examples: Sequence[Example], for_training: bool = False) -> Split:
        """The texts, ready for `loss`; labels and tags are not read.

        Raises:
            ModelError: `for_training`, and a text of fewer than two tokens.
        """
        inputs = self.encoding.encode([example.text for example in examples])
        return Split(examples, inputs, Schema((), ()), for_training=for_training, scored=inputs.spans > 1)

    def figures(self, encoded: Split) -> dict[str, float]:
        """`loss`, the mean over texts in nats a token; `score`, its exponential: the probability of a token, in [0, 1].

        Texts of one token have no loss and are left out.
        """
        found = losses(self, encoded)
        mean = float(found[np.isfinite(found)].mean())
        return {"loss": mean, "score": math.exp(-mean)}

    def logits(self, batch: Batch) -> dict[str, Tensor]:
        """`pieces` (B, P-1, V): scores of the second piece and on."""
        return {"pieces": piece_logits(self.model, batch)[:, :-1]}

    def loss(self, batch: Batch) -> Tensor:
        """(B,) mean negative log-likelihood per predicted token, in nats."""
        following = batch.inputs["pieces"][:, 1:].long()
        real = word_mask(batch.inputs["spans"] - 1, following.shape[1])
        return cross_entropies(self.logits(batch), {"pieces": following.masked_fill(~real, NO_TARGET)})

    def representation(self, batch: Batch) -> Tensor:
        """(B, D) mean over each text's pieces of the last hidden states."""
        states: Tensor = _answers(self.model, batch, output_hidden_states=True).hidden_states[-1]
        real = word_mask(batch.inputs["spans"], states.shape[1])[:, :, None]
        return (states * real).sum(1) / real.sum(1).clamp(min=1)


def piece_logits(model: nn.Module, batch: Batch) -> Tensor:
    """The `logits` that a model of Transformers gives for a batch of pieces."""
    logits: Tensor = _answers(model, batch).logits
    return logits


def _answers(model: nn.Module, batch: Batch, **asked: bool) -> Any:
    pieces = batch.inputs["pieces"]
    mask = word_mask(batch.inputs["spans"], pieces.shape[1])
    return model(input_ids=pieces.long(), attention_mask=mask.long(), **asked)


# --- from scratch ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LanguageModelOptions:
    """Size and regularisation of a language model trained from scratch.

    Args:
        width: of the hidden states; embedding and head share their weights.
        layers, heads: how many of each.
        max_pieces: longer texts are cut here; as many positions are learned.
        dropout: of hidden states and attention.
    """

    width: int = 128
    layers: int = 2
    heads: int = 4
    max_pieces: int = 512
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads"):
            checks.at_least(name, getattr(self, name), 1)
        checks.at_least("max_pieces", self.max_pieces, 3)
        if self.width % self.heads:
            raise ArgumentError("width", f"a multiple of 'heads' ({self.heads})", self.width)
        checks.within("dropout", self.dropout, 0, 1)


def build_language_model(
    tokenizer: str | Path = BYTES, *, streams: Streams, merges: int | None = None, **options: Any
) -> LanguageModel:
    """A model in the shape of GPT-2, with weights drawn from the stream `init`.

    Args:
        tokenizer: `bytes`, or where a **public** tokenizer is, see `open_tokenizer`.
        streams: same seed, same weights; the global generator is left as it was.
        merges: keep only so many of a byte-pair tokenizer's merges.
        options: fields of `LanguageModelOptions`.

    Raises:
        ArgumentError: an option that the model does not have, or a value out of range.
        ModelError: no tokenizer there.
    """
    known = tuple(LanguageModelOptions.__dataclass_fields__)
    for name in options:
        checks.one_of("options", name, known)
    pieces = open_tokenizer(tokenizer, merges).to_str()
    config = {"kind": KIND, "options": asdict(LanguageModelOptions(**options))}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(streams.key("init"))
        return rebuild(config, pieces)


def rebuild(config: Mapping[str, Any], tokenizer: str | None) -> LanguageModel:
    """The model of a `LanguageModel.config`, with weights from the global generator, to be loaded from elsewhere.

    Args:
        config: as `build_language_model` made it.
        tokenizer: the text of `tokenizer.json`.
    """
    from tokenizers import Tokenizer

    options = LanguageModelOptions(**config["options"])
    pieces = Tokenizer.from_str(tokenizer or "")
    pad = pieces.token_to_id(BEGIN) or 0
    encoding = Subwords(pieces, max_pieces=options.max_pieces, pad=pad)
    return LanguageModel(_gpt2(options, pieces.get_vocab_size(), pad), encoding, config)


def _gpt2(options: LanguageModelOptions, vocabulary: int, pad: int) -> GPT2LMHeadModel:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=options.max_pieces,
        n_embd=options.width,
        n_layer=options.layers,
        n_head=options.heads,
        resid_pdrop=options.dropout,
        embd_pdrop=options.dropout,
        attn_pdrop=options.dropout,
        bos_token_id=pad,
        eos_token_id=pad,
        pad_token_id=pad,
        use_cache=False,  # what was computed for earlier pieces is of use in generation alone
    )
    return GPT2LMHeadModel(config)


# --- public tokenizers -----------------------------------------------------------------------------------------


def open_tokenizer(source: str | Path = BYTES, merges: int | None = None) -> Tokenizer:
    """A tokenizer that owes nothing to the text it will read.

    Args:
        source: `bytes`, which needs no file; a folder with `tokenizer.json`; or one with GPT-2's merges,
            `merges.txt` or `vocab.bpe`. Bytes and merges are read after a begin-of-text piece, so that every byte is
            predicted.
        merges: keep only the first so many; None keeps all.

    Raises:
        ArgumentError: `merges` below 0, or given for a tokenizer that has none to leave out.
        ModelError: no tokenizer there, or a damaged one.
    """
    from tokenizers import Tokenizer

    if merges is not None:
        checks.at_least("merges", merges, 0)
    if source == BYTES:
        _refuse_merges(source, merges)
        return _byte_pairs([])
    folder = Path(source).expanduser()
    try:
        for path in (folder / name for name in _MERGES):
            if path.is_file():
                return _byte_pairs(_read_merges(path)[:merges])
        _refuse_merges(source, merges)
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    except ArgumentError:
        raise
    except Exception as error:  # the library raises plain Exception
        reason = f"{str(source)!r} cannot be opened as a tokenizer ({error})"
        raise ModelError(reason, "give 'bytes', or a folder with tokenizer.json or GPT-2's merges") from None


def _refuse_merges(source: str | Path, merges: int | None) -> None:
    if merges is not None:
        raise ArgumentError("merges", f"left out for {str(source)!r}, whose merges cannot be cut", merges)


def _read_merges(path: Path) -> list[tuple[str, str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
    if any(len(pair) != 2 for pair in pairs):
        raise ModelError(f"{path} holds lines that are no merges of two pieces")
    return pairs  # type: ignore[return-value]


def _byte_pairs(merges: Sequence[tuple[str, str]]) -> Tokenizer:
    """Byte-level byte-pair encoding (Radford et al. 2019, GPT-2): 256 bytes, a piece for each merge, the beginning."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(left + right for left, right in merges)]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocabulary, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(BEGIN, special=True)])
    begin = tokenizer.token_to_id(BEGIN)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, begin)])
    return tokenizer
