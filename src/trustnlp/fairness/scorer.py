"""What a masked or a causal language model says of chosen tokens: the one thing that intrinsic metrics ask of a model.

    tokens              a text in the model's tokens, each with its place in the text
    log_probabilities   of the tokens that stand at chosen positions
    candidates          of other tokens at one position (masked models)
    representations     mean hidden state of chosen positions, such as the subwords of a word

A masked model is asked with each position masked by itself (pseudo-log-likelihood, Salazar et al. 2020), or with all
masked `together`; a causal model with all tokens before the position.

Shape legend: B batch, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn

from trustnlp import checks
from trustnlp.errors import ArgumentError, ModelError
from trustnlp.models import checkpoint, existing
from trustnlp.models.language_model import LanguageModel
from trustnlp.models.masked_language_model import MaskedLanguageModel, load_masked_language_model, mask_of
from trustnlp.models.pretrained import open_config, pad_of
from trustnlp.models.token_reader import TokenReader

Array = NDArray[np.float64]


class Kind(StrEnum):
    """How a model was trained, and so what it can be asked."""

    MASKED = "masked"
    CAUSAL = "causal"


@dataclass(frozen=True)
class Tokens:
    """A text as a model reads it.

    Args:
        ids: of all tokens, special ones included.
        spans: where each begins and ends in the text, in characters and without the space before it; (0, 0) for
            special ones. A pair's spans are those in `f"{text} {pair}"`.
    """

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Asked:
    """Positions of a text that a model is asked about.

    Args:
        ids: of all tokens, as `Scorer.tokens` gives them.
        positions: at which of them; any order.
        together: mask all positions at once rather than one at a time; for masked models.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    together: bool = False


class Scorer(Protocol):
    """A language model that answers questions about tokens; equal questions have equal answers, in any company."""

    @property
    def kind(self) -> Kind:
        """Whether it is a masked or a causal model."""
        ...

    @property
    def name(self) -> str:
        """What to call it in a report."""
        ...

    def tokens(self, text: str, pair: str | None = None) -> Tokens:
        """The text, and the sentence after it, in the model's tokens."""
        ...

    def log_probabilities(self, asked: Sequence[Asked]) -> list[Array]:
        """For each, (len(positions),) natural log-probabilities of the tokens at its positions."""
        ...

    def candidates(self, asked: Sequence[Asked], ids: Sequence[int]) -> Array:
        """(n, len(ids)) natural log-probabilities of the tokens `ids` at the one position of each."""
        ...

    def representations(self, asked: Sequence[Asked]) -> Array:
        """(n, D) mean of the last hidden states at the positions of each."""
        ...


class ModelScorer:
    """A `Scorer` of a model of Transformers, or of one that has its form.

    Args:
        model: with logits (B, T, V).
        tokenizer: that it was trained with.
        kind: how it was trained.
        name: what to call it.
        batch_tokens: about how many tokens are computed at once.

    Raises:
        ModelError: a masked model whose tokenizer has no mask, or a tokenizer that knows more tokens than the model.
    """

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, kind: Kind, name: str, batch_tokens: int) -> None:
        self.kind = kind
        self.name = name
        self._model = model
        self._vocabulary = _vocabulary(model, tokenizer)
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._limit = _longest(model)
        self._mask = mask_of(self._tokenizer) if kind is Kind.MASKED else None
        self._begin = _begin(model, self._tokenizer) if kind is Kind.CAUSAL else None
        self._reader = TokenReader(
            model,
            causal=kind is Kind.CAUSAL,
            pad=pad_of(model.config),
            divider=_divider(model, self._tokenizer) if kind is Kind.MASKED else None,
            batch_tokens=checks.at_least("batch_tokens", batch_tokens, 1),
        )

    def tokens(self, text: str, pair: str | None = None) -> Tokens:
        """The text, and the sentence after it, in the model's tokens; a causal model reads the pair after a space.

        A causal model gets the token that its texts begin with, so that the first word has a probability. A model
        that has no such token is left without, and its first token cannot be asked about.

        Raises:
            ArgumentError: more tokens than the model reads.
        """
        whole = text if pair is None else f"{text} {pair}"
        if pair is None or self.kind is Kind.CAUSAL:
            found = self._tokenizer.encode(whole)
        else:
            found = self._tokenizer.encode(text, pair)
        starts = {None: 0, 0: 0, 1: len(text) + 1}
        spans = [
            _trimmed(whole, start + starts[part], end + starts[part]) if part is not None else (0, 0)
            for (start, end), part in zip(found.offsets, found.sequence_ids, strict=True)
        ]
        begin = [] if self._begin is None else [self._begin]
        ids = (*begin, *found.ids)
        self._refuse_long("text", len(ids))
        return Tokens(ids, (*[(0, 0)] * len(begin), *spans))

    def log_probabilities(self, asked: Sequence[Asked]) -> list[Array]:
        """For each, (len(positions),) natural log-probabilities of the tokens at its positions.

        Raises:
            ArgumentError: a position that the text has not, or the first of a causal model; or too long a text.
            ModelError: `together` asked of a causal model.
        """
        self._check(asked)
        places = [(each, position) for each in asked for position in each.positions]
        tokens = np.array([each.ids[at] for each, at in places], dtype=np.int64)
        answers = self._answers(places, tokens[:, None])[:, 0]
        ends = np.cumsum([len(each.positions) for each in asked])
        return [answers[end - len(each.positions) : end] for each, end in zip(asked, ends, strict=True)]

    def candidates(self, asked: Sequence[Asked], ids: Sequence[int]) -> Array:
        """(n, len(ids)) natural log-probabilities of the tokens `ids` at the one position of each, which is masked.

        Raises:
            ArgumentError: as `log_probabilities`; or not one position, or an id that the model does not know.
            ModelError: a causal model.
        """
        self._refuse_causal("candidates")
        self._check(asked)
        several = next((each for each in asked if len(each.positions) != 1), None)
        if several is not None:
            raise ArgumentError("positions", "one for each text whose candidates are asked", several.positions)
        unknown = next((i for i in ids if not 0 <= i < self._vocabulary), None)
        if unknown is not None:
            raise ArgumentError("ids", f"tokens of {self.name}", unknown)
        tokens = np.tile(np.array(ids, dtype=np.int64), (len(asked), 1))
        return self._answers([(each, each.positions[0]) for each in asked], tokens)

    def representations(self, asked: Sequence[Asked]) -> Array:
        """(n, D) mean of the last hidden states at the positions of each; nothing is masked.

        Raises:
            ArgumentError: no position, or one that the text has not; or too long a text.
        """
        self._check(asked, first=0)
        if not all(each.positions for each in asked):
            raise ArgumentError("positions", "not empty", ())
        return self._reader.means([each.ids for each in asked], [each.positions for each in asked])

    def _answers(self, places: Sequence[tuple[Asked, int]], tokens: NDArray[np.int64]) -> Array:
        """(n, K) log-probabilities of `tokens` (n, K) at the place of each."""
        rows: dict[tuple[int, ...], int] = {}
        numbers = [rows.setdefault(self._shown(each, position), len(rows)) for each, position in places]
        before = int(self.kind is Kind.CAUSAL)  # a causal model tells of a token at the place before it
        at = [position - before for _, position in places]
        width = tokens.shape[1]
        questions = np.column_stack([np.repeat(numbers, width), np.repeat(at, width), tokens.ravel()])
        return self._reader.log_probabilities(list(rows), questions.astype(np.int64)).reshape(tokens.shape)

    def _shown(self, asked: Asked, position: int) -> tuple[int, ...]:
        """What the model sees when it is asked about `position`."""
        if self._mask is None:
            return asked.ids[: max(asked.positions)]  # the last token is only asked about
        hidden = asked.positions if asked.together else (position,)
        shown = list(asked.ids)
        for place in hidden:
            shown[place] = self._mask
        return tuple(shown)

    def _check(self, asked: Sequence[Asked], first: int | None = None) -> None:
        first = int(self.kind is Kind.CAUSAL) if first is None else first
        for each in asked:
            self._refuse_long("ids", len(each.ids))
            if each.together:
                self._refuse_causal("masks")
            for position in each.positions:
                if not first <= position < len(each.ids):
                    rule = f"from {first} to {len(each.ids) - 1}, as {self.name} reads a text of {len(each.ids)} tokens"
                    raise ArgumentError("positions", rule, position)

    def _refuse_causal(self, what: str) -> None:
        if self.kind is Kind.CAUSAL:
            raise ModelError(f"{self.name} is a causal model, which has no {what}", "use a masked language model")

    def _refuse_long(self, name: str, count: int) -> None:
        if self._limit is not None and count > self._limit:
            raise ArgumentError(name, f"at most {self._limit} tokens for {self.name}", count, "shorten or split it")


def open_scorer(
    model: str | Path | nn.Module, tokenizer: Any = None, *, device: str = "cpu", batch_tokens: int = 2048
) -> ModelScorer:
    """A scorer of a masked or causal language model, in evaluation mode.

    Args:
        model: a folder that trustnlp wrote, a Hugging Face folder or hub name (safetensors, a fast tokenizer), a
            `LanguageModel`, a `MaskedLanguageModel`, or a model of Transformers.
        tokenizer: of a model of Transformers: its fast tokenizer, or one of the `tokenizers` library.
        device: where it computes; the model is moved there.
        batch_tokens: about how many tokens are computed at once; changes nothing but time and rounding.

    Raises:
        ArgumentError: no tokenizer, or one too many.
        ModelError: it cannot be opened, is no masked or causal language model, or its tokenizer has no mask, knows
            more tokens than the model, or does not tell where in the text its tokens stand.
    """
    name = type(model).__name__ if isinstance(model, nn.Module) else Path(model).name
    held = model if isinstance(model, nn.Module) else _opened(model)
    if isinstance(held, LanguageModel | MaskedLanguageModel):
        if tokenizer is not None:
            raise ArgumentError("tokenizer", "left out for a model that has its own", type(tokenizer).__name__)
        kind = Kind.CAUSAL if isinstance(held, LanguageModel) else Kind.MASKED
        pieces = Tokenizer.from_str(held.encoding.to_json())
        return ModelScorer(held.model.to(device), pieces, kind, name, batch_tokens)
    return ModelScorer(held.to(device), _fast(tokenizer), _kind_of(held), name, batch_tokens)


def _opened(source: str | Path) -> nn.Module:
    if checkpoint.is_ours(source):
        return checkpoint.load(source)
    architectures = open_config(source).architectures or []
    if any(name.endswith(("ForMaskedLM", "ForPreTraining")) for name in architectures):
        return load_masked_language_model(source)
    return existing.load_checkpoint(source, existing.LANGUAGE_MODEL)


def _kind_of(model: nn.Module) -> Kind:
    name = type(model).__name__
    if not getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        if name.endswith("ForMaskedLM"):
            return Kind.MASKED
        if name.endswith(("ForCausalLM", "LMHeadModel")):
            return Kind.CAUSAL
    raise ModelError(f"{name} is no masked or causal language model", "give one such as BertForMaskedLM")


def _fast(tokenizer: Any) -> Tokenizer:
    if tokenizer is None:
        raise ArgumentError("tokenizer", "given for a model of Transformers", tokenizer)
    found = tokenizer if isinstance(tokenizer, Tokenizer) else getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(found, Tokenizer):
        reason = f"{type(tokenizer).__name__} does not tell where in the text its tokens stand"
        raise ModelError(reason, "give a fast tokenizer (tokenizer.json)")
    return found


def _vocabulary(model: nn.Module, tokenizer: Tokenizer) -> int:
    config: Any = model.config
    known, pieces = int(config.vocab_size), tokenizer.get_vocab_size()
    if pieces > known:
        reason = f"the tokenizer knows {pieces} tokens, its model {known}"
        raise ModelError(reason, "give the tokenizer that belongs to the model")
    return known


def _longest(model: nn.Module) -> int | None:
    """How many tokens a model reads; None where its positions have no end."""
    for name, module in model.named_modules():
        # RoBERTa and its kin count positions from behind their padding.
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return int(module.num_embeddings - module.padding_idx - 1)
    limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def _begin(model: nn.Module, tokenizer: Tokenizer) -> int | None:
    """What to put before a text: the model's BOS or EOS, or nothing where the tokenizer puts something there."""
    if tokenizer.encode("a").special_tokens_mask[:1] == [1]:
        return None
    config: Any = model.config
    numbers = (getattr(config, name, None) for name in ("bos_token_id", "eos_token_id"))
    return next((i for i in numbers if isinstance(i, int) and 0 <= i < config.vocab_size), None)


def _divider(model: nn.Module, tokenizer: Tokenizer) -> int | None:
    """The token that ends the first of two sentences, for models that are told by a type which token is of which."""
    found = tokenizer.encode("a", "a")
    if 1 not in found.type_ids or getattr(model.config, "type_vocab_size", 0) < 2:
        return None
    return int(found.ids[found.type_ids.index(1) - 1])


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without the white space that it begins with, unless it has nothing else."""
    inside = text[start:end]
    return (start + len(inside) - len(inside.lstrip()), end) if inside.strip() else (start, end)
