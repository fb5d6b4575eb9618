"""Decoding: how any causal language model goes on from the beginning of a text.

    decoders     FunctionDecoder (any model, as a function), KeyValueDecoder (Transformers; reads each token once)
    strategies   greedy(), Beam(width), Sampled(draws, temperature, top_k)

    strategy.continuations(decoder, prefixes, length, uniforms) -> (B, C, length) token ids

All prefixes of a call have one length, so nothing is padded. So have all continuations: no token ends one early.

Shape legend: B batch, p prefix tokens, C continuations of each prefix, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trustnlp import checks
from trustnlp.errors import ArgumentError, GuaranteeError, ModelError

# --- decoders --------------------------------------------------------------------------------------------------


class Decoder(Protocol):
    """A causal language model that is asked token by token; `state` is its own affair."""

    def begin(self, prefixes: Tensor) -> tuple[Tensor, Any]:
        """Log-probabilities (B, V) of what follows prefixes (B, p), and a state of B sequences."""
        ...

    def advance(self, state: Any, rows: Tensor, tokens: Tensor) -> tuple[Tensor, Any]:
        """The same after sequences `rows` (B',) of the state are continued by `tokens` (B',); `state` is used up."""
        ...


@dataclass(frozen=True)
class FunctionDecoder:
    """Any causal language model, given as a function; every step reads the whole sequence again.

    Args:
        log_probs_of: token ids (B, T) -> log-probabilities (B, V) of the token after each.
    """

    log_probs_of: Callable[[Tensor], Tensor]

    def begin(self, prefixes: Tensor) -> tuple[Tensor, Tensor]:
        """See `Decoder`."""
        return _checked(self.log_probs_of(prefixes), len(prefixes)), prefixes

    def advance(self, state: Tensor, rows: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """See `Decoder`."""
        return self.begin(torch.cat([state[rows], tokens[:, None]], 1))


class KeyValueDecoder:
    """A causal language model of Transformers, which keeps the keys and values of what it has read.

    Args:
        model: called with `input_ids`, `past_key_values` and `use_cache`; such as `LanguageModel.model`. Is put into
            evaluation mode.

    Raises:
        ModelError: no such model.
    """

    def __init__(self, model: nn.Module) -> None:
        if not hasattr(model, "prepare_inputs_for_generation"):
            raise ModelError(
                f"a {type(model).__name__} is no language model of Transformers", "give FunctionDecoder a function"
            )
        self.model = model.eval()
        self.longest: int | None = getattr(model.config, "max_position_embeddings", None)

    def begin(self, prefixes: Tensor) -> tuple[Tensor, Any]:
        """See `Decoder`."""
        return self._read(prefixes, None)

    def advance(self, state: Any, rows: Tensor, tokens: Tensor) -> tuple[Tensor, Any]:
        """See `Decoder`."""
        state.reorder_cache(rows)
        return self._read(tokens[:, None], state)

    def _read(self, tokens: Tensor, cache: Any) -> tuple[Tensor, Any]:
        device = next(self.model.parameters()).device
        before = 0 if cache is None else cache.get_seq_length()
        real = torch.ones(len(tokens), before + tokens.shape[1], dtype=torch.long, device=device)
        found = self.model(input_ids=tokens.to(device), attention_mask=real, past_key_values=cache, use_cache=True)
        return _checked(found.logits[:, -1].double().log_softmax(-1), len(tokens)), found.past_key_values


def _checked(log_probs: Tensor, size: int) -> Tensor:
    if log_probs.ndim != 2 or len(log_probs) != size:
        raise ArgumentError("log_probs_of", f"a function that answers shape ({size}, V)", tuple(log_probs.shape))
    if log_probs.isnan().any():
        raise GuaranteeError("the model answers NaN", "mend the model")
    return log_probs.double()


# --- strategies ------------------------------------------------------------------------------------------------


class Strategy(Protocol):
    """How continuations are chosen; `name` is part of the finding's id."""

    @property
    def name(self) -> str:
        """Kebab-case."""
        ...

    @property
    def guesses(self) -> int:
        """C, continuations of each prefix."""
        ...

    def continuations(self, decoder: Decoder, prefixes: Tensor, length: int, uniforms: Tensor) -> Tensor:
        """(B, C, length) continuations of prefixes (B, p); `uniforms` (B, C, length) in [0, 1) is all its chance."""
        ...


@dataclass(frozen=True)
class Beam:
    """The `width` likeliest continuations that beam search finds; all of them count as guesses.

    Args:
        width: sequences kept at each step; 1 is greedy decoding.
    """

    width: int = 8

    def __post_init__(self) -> None:
        checks.at_least("width", self.width, 1)

    @property
    def name(self) -> str:
        """`greedy` or `beam`."""
        return "greedy" if self.width == 1 else "beam"

    @property
    def guesses(self) -> int:
        """The width."""
        return self.width

    def continuations(self, decoder: Decoder, prefixes: Tensor, length: int, uniforms: Tensor) -> Tensor:
        """(B, C, length), likeliest first; nothing is drawn, and no token ends a sequence."""
        del uniforms
        log_probs, state = decoder.begin(prefixes)
        size, vocabulary = log_probs.shape
        likelihood, chosen = _likeliest(log_probs, self.width)
        parents, found = torch.arange(size)[:, None].expand_as(chosen), chosen[..., None]
        for _ in range(length - 1):
            log_probs, state = decoder.advance(state, parents.flatten(), found[..., -1].flatten())
            totals = likelihood[..., None] + log_probs.cpu().view(size, -1, vocabulary)
            likelihood, chosen = _likeliest(totals.flatten(1), self.width)
            parents = torch.arange(size)[:, None] * found.shape[1] + chosen // vocabulary
            found = torch.cat([found.flatten(0, 1)[parents], (chosen % vocabulary)[..., None]], -1)
        return found


def greedy() -> Beam:
    """The likeliest token at each step: one guess."""
    return Beam(1)


@dataclass(frozen=True)
class Sampled:
    """Continuations drawn from the model.

    Args:
        draws: continuations of each prefix.
        temperature: logits are divided by it; > 0.
        top_k: only so many likeliest tokens are drawn from; None draws from all.
    """

    draws: int = 8
    temperature: float = 1.0
    top_k: int | None = None

    def __post_init__(self) -> None:
        checks.at_least("draws", self.draws, 1)
        checks.positive("temperature", self.temperature)
        if self.top_k is not None:
            checks.at_least("top_k", self.top_k, 1)

    @property
    def name(self) -> str:
        """`sampled`."""
        return "sampled"

    @property
    def guesses(self) -> int:
        """The number of draws."""
        return self.draws

    def continuations(self, decoder: Decoder, prefixes: Tensor, length: int, uniforms: Tensor) -> Tensor:
        """(B, C, length), by the inverse of the distribution function at the given uniform numbers."""
        log_probs, state = decoder.begin(prefixes)
        rows = torch.arange(len(prefixes)).repeat_interleave(self.draws)
        chances = uniforms.flatten(0, 1)
        found = [self._draw(log_probs.cpu()[rows], chances[:, 0])]
        for step in range(1, length):
            log_probs, state = decoder.advance(state, rows, found[-1])
            rows = torch.arange(len(rows))
            found.append(self._draw(log_probs.cpu(), chances[:, step]))
        return torch.stack(found, -1).view(len(prefixes), self.draws, length)

    def _draw(self, log_probs: Tensor, chances: Tensor) -> Tensor:
        scores = log_probs / self.temperature
        if self.top_k is not None and self.top_k < scores.shape[-1]:
            least = scores.topk(self.top_k, -1).values[:, -1:]
            scores = scores.masked_fill(scores < least, -torch.inf)
        upto = scores.softmax(-1).cumsum(-1)
        # Scaled by the total, which rounding leaves a little off 1, so that the last tokens cannot be overshot.
        return torch.searchsorted(upto, chances[:, None] * upto[:, -1:], right=True)[:, 0]


def _likeliest(scores: Tensor, width: int) -> tuple[Tensor, Tensor]:
    values, places = scores.cpu().topk(min(width, scores.shape[-1]), -1)
    return values, places
