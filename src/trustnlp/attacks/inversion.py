"""Canary extraction by model inversion: the secret read out of a trained classifier or tagger by gradients.

The attacker holds the model and knows what was said around the secret, its label and its tags, and looks for the words
that fit the model best. Each word is searched as a mixture of candidate words:

    scores (B, n, V) --relaxation--> weights --@ vectors of the candidates (V, D)--> blanks of the text --model--> loss
           ^------------------------------------- Adam ------------------------------------------------------'

Vectors are what the model makes of a word by itself, be it hashed, spelled or looked up, so a mixture with all its
weight on one word is that word exactly. The searches begin at random and pass through many words, a mixture as its
heaviest word. From the best of those each, words themselves are exchanged, one or two at a time, for as long as the
loss falls: gradients of mixtures lead near a secret, and often stop beside it. The guess is the words with the lowest
loss among all.

    guesses = of_many(model, canaries, streams=streams)
    findings = evaluate(guesses, models=["this one"] * len(guesses))
    ranks = [exposure.of_canary(exhaustive(model, canary), canary) for canary in canaries]  # could any attack do it?

Source: Parikh, Dupuy and Gupta 2022, "Canary Extraction in Natural Language Understanding Models", arXiv 2203.13920.

Shape legend: C canaries, R restarts, B texts, T words or pieces of a text, n words of a secret, V candidates, D width.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trustnlp import checks
from trustnlp.attacks.blanks import Blanks, frozen
from trustnlp.attacks.relaxations import Annealed, Relaxation, gumbel
from trustnlp.data.canaries import Canary
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.models.heads import LabelModel
from trustnlp.randomness import Streams
from trustnlp.results import Direction, Finding, Verdict
from trustnlp.uncertainty import Interval, bounded_mean, proportion

ANNEALED = Annealed(1.0, 0.1)
SOURCE = "Parikh et al. 2022, arXiv 2203.13920"
_RATE = 0.5  # of Adam
_SPREAD = 0.1  # standard deviation of the first scores
_TEXTS = 1000  # through the model at a time
_PAIRS = 10_000  # exchanges of two words that are tried from one place; with more, words are exchanged one by one


@dataclass(frozen=True)
class Guess:
    """What one inversion found.

    Args:
        secret: the words that the attacker names; kept out of logs, as they may be right.
        loss: of the text with these words, in nats.
        true_loss: of the text with the real secret. If it is lower, the search has failed; if it is higher, the model
            prefers other words, and no search of its loss would have found the secret.
        steps: that the longest of its searches took.
        exact: whether the words are the real secret.
        hamming: share of wrong words, in [0, 1].
        candidates: V, how many words the attacker thought possible at each place.
        alphabet: how many words the secret was drawn from at each place.
        repetitions: copies of the canary in the training split.
    """

    secret: tuple[str, ...] = field(repr=False)
    loss: float
    true_loss: float
    steps: int
    exact: bool
    hamming: float
    candidates: int
    alphabet: int
    repetitions: int


@dataclass(frozen=True)
class Search:
    """How secrets are looked for.

    Args:
        relaxation: how scores become mixtures.
        restarts: searches from different first scores, >= 1.
        steps: of Adam, at most, >= 1.
        patience: a search ends when its best words have stayed the same for so many steps, >= 1.
        objective: the loss to minimise: of the `label`, of the `tags`, or `joint`, of whichever the model answers.
        descents: from how many of the best words passed through, words are exchanged until none lowers the loss, >= 0.

    Raises:
        ArgumentError: a number below 1.
    """

    relaxation: Relaxation = ANNEALED
    restarts: int = 3
    steps: int = 1000
    patience: int = 100
    objective: str = "joint"
    descents: int = 5

    def __post_init__(self) -> None:
        for name in ("restarts", "steps", "patience"):
            checks.at_least(name, getattr(self, name), 1)
        checks.at_least("descents", self.descents, 0)


USUAL = Search()


def invert(
    model: LabelModel,
    canary: Canary,
    *,
    candidates: Sequence[str] | None = None,
    search: Search = USUAL,
    streams: Streams,
) -> Guess:
    """Searches the secret of `canary`, of which it reads nothing but the length until the guess is made.

    Args:
        model: a float64 copy of it is attacked, in evaluation mode.
        canary: its prefix, label and tags are known to the attacker.
        candidates: distinct words, those of the secret among them; the canary's alphabet if None.
        search: how to look.
        streams: the stream `inversion PREFIX` gives the first scores and any noise.

    Raises:
        ArgumentError: an argument breaks its rule.
        ModelError: the model lacks a head for the objective, does not know the label or a tag, reads less than the
            whole text, or reads some candidates as several pieces (see `single_words`).
        GuaranteeError: a loss or its gradient is NaN or infinite.
    """
    (guess,) = of_many(model, [canary], candidates=candidates, search=search, streams=streams)
    return guess


def of_many(
    model: LabelModel,
    canaries: Sequence[Canary],
    *,
    candidates: Sequence[str] | None = None,
    search: Search = USUAL,
    streams: Streams,
) -> list[Guess]:
    """`invert` of each canary, in their order, with the same results up to rounding; all go through the model at once.

    Raises:
        ArgumentError, ModelError, GuaranteeError: see `invert`.
    """
    checks.not_empty("canaries", canaries)
    groups: dict[tuple[int, tuple[str, ...]], list[int]] = {}
    for number, canary in enumerate(canaries):
        groups.setdefault((len(canary.secret), _candidates(canary, candidates)), []).append(number)
    attacked = frozen(model)
    found: dict[int, Guess] = {}
    for (_, words), numbers in groups.items():
        blanks = Blanks(attacked, [canaries[number] for number in numbers], words, search.objective)
        passed, taken = _search(blanks, search, streams)
        losses = torch.cat([blanks.score(part[:, 0], part[:, 1:]) for part in passed.split(_TEXTS)])
        best = [_best(blanks, text, passed, losses, search.descents) for text in range(len(numbers))]
        found.update(zip(numbers, _guesses(blanks, torch.stack(best), taken), strict=True))
    return [found[number] for number in range(len(canaries))]


def exhaustive(model: LabelModel, canary: Canary, *, objective: str = "joint") -> NDArray[np.float64]:
    """The losses of all |R| candidate secrets, (|R|,), in their order, in nats: the limit of any search by loss.

    What `exposure.score_candidates` gives in float32, without encoding |R| texts; `exposure.of_canary` ranks them.

    Raises:
        ArgumentError, ModelError, GuaranteeError: see `invert`.
    """
    blanks = Blanks(frozen(model, torch.float32), [canary], canary.alphabet, objective)
    base = len(canary.alphabet)
    powers = base ** torch.arange(len(canary.secret) - 1, -1, -1, device=blanks.device)
    losses = []
    for start in range(0, canary.space, _TEXTS):
        numbers = torch.arange(start, min(start + _TEXTS, canary.space), device=blanks.device)
        losses.append(blanks.score(torch.zeros_like(numbers), numbers[:, None] // powers % base))
    return torch.cat(losses).cpu().numpy()


# --- searching -------------------------------------------------------------------------------------------------


def _search(blanks: Blanks, search: Search, streams: Streams) -> tuple[Tensor, Tensor]:
    """All words that the searches passed through, as distinct rows of a canary and n candidates, and (C, R) steps."""
    draws = _Draws(blanks, search.restarts, streams)
    texts = torch.arange(len(blanks.canaries), device=blanks.device).repeat_interleave(search.restarts)
    scores = draws.first().requires_grad_()
    adam = torch.optim.Adam([scores], lr=_RATE)
    best = scores.detach().argmax(-1)
    passed, same, taken = [_rows(texts, best)], torch.zeros_like(texts), torch.zeros_like(texts)
    with torch.backends.cudnn.flags(enabled=False):  # its recurrent layers have no backward in evaluation mode
        for step in range(search.steps):
            weights = search.relaxation(scores, step / search.steps, draws.noise)
            losses = blanks.losses(texts, weights @ blanks.vectors)
            (scores.grad,) = torch.autograd.grad(losses.sum(), scores)
            adam.step()
            searching, newest = same < search.patience, scores.detach().argmax(-1)
            changed = searching & (newest != best).any(1)
            passed.append(_rows(texts[changed], newest[changed]))
            best = torch.where(changed[:, None], newest, best)
            same = torch.where(changed, 0, same + searching)
            taken += searching
            if bool((same >= search.patience).all()):
                break
    if not bool(scores.isfinite().all()):
        raise GuaranteeError("a search has left the finite numbers", "mend the model, or use another relaxation")
    return torch.cat(passed).unique(dim=0), taken.unflatten(0, (-1, search.restarts))


def _rows(texts: Tensor, numbers: Tensor) -> Tensor:
    """(B, 1 + n) from (B,) and (B, n)."""
    return torch.cat([texts[:, None], numbers], 1)


class _Draws:
    """Each canary's own draws, whatever other canaries are searched beside it."""

    def __init__(self, blanks: Blanks, restarts: int, streams: Streams) -> None:
        names = [f"inversion {' '.join(canary.prefix)}" for canary in blanks.canaries]
        self._shape = torch.Size((restarts, blanks.length, len(blanks.words)))
        self._device = blanks.device
        self._starts = [streams.torch(name, 0) for name in names]
        self._noise = [streams.torch(name, 1) for name in names]

    def first(self) -> Tensor:
        """(B, n, V) scores to begin with."""
        drawn = [torch.randn(self._shape, generator=one, dtype=torch.float64) for one in self._starts]
        return (_SPREAD * torch.cat(drawn)).to(self._device)

    def noise(self) -> Tensor:
        """(B, n, V) standard Gumbel noise, anew at each call."""
        return torch.cat([gumbel(self._shape, one) for one in self._noise]).to(self._device)


def _best(blanks: Blanks, text: int, passed: Tensor, losses: Tensor, descents: int) -> Tensor:
    """(n,) the words of the lowest loss that one canary's searches, or descents from their best, have found."""
    own = passed[:, 0] == text
    order = losses[own].argsort(stable=True)
    words, lowest = passed[own][order, 1:], losses[own][order]
    ends = [_descend(blanks, text, one, loss) for one, loss in zip(words[:descents], lowest[:descents], strict=True)]
    return min(ends, key=lambda end: float(end[1]))[0] if ends else words[0]


def _descend(blanks: Blanks, text: int, words: Tensor, loss: Tensor) -> tuple[Tensor, Tensor]:
    """Where exchanging words leads, always to the best of all exchanges, until none is better."""
    while True:
        losses = []
        others = _exchanges(words, len(blanks.words))
        for part in others.split(_TEXTS):
            losses.append(blanks.score(torch.full_like(part[:, 0], text), part))
        every = torch.cat(losses)
        nearest = every.argmin()
        if every[nearest] >= loss:
            return words, loss
        words, loss = others[nearest], every[nearest]


def _exchanges(words: Tensor, candidates: int) -> Tensor:
    """(X, n): every other choice at one place of (n,) words, and at two where these are at most `_PAIRS`."""
    length = len(words)
    places: list[tuple[int, ...]] = [(one,) for one in range(length)]
    if length * (length - 1) // 2 * candidates**2 <= _PAIRS:
        places += list(combinations(range(length), 2))
    numbers = torch.arange(candidates, device=words.device)
    found = []
    for chosen in places:
        values = torch.cartesian_prod(*[numbers] * len(chosen)).reshape(-1, len(chosen))
        changed = words.repeat(len(values), 1)
        changed[:, list(chosen)] = values
        found.append(changed)
    return torch.cat(found)


def _guesses(blanks: Blanks, best: Tensor, taken: Tensor) -> list[Guess]:
    """A guess of the words `best` (C, n) for each canary; only here is the secret looked at."""
    number_of = {word: number for number, word in enumerate(blanks.words)}
    truth = torch.tensor([[number_of[word] for word in canary.secret] for canary in blanks.canaries])
    texts = torch.arange(len(truth), device=blanks.device)
    losses, true_losses = (blanks.score(texts, one.to(blanks.device)).tolist() for one in (best, truth))
    guesses = []
    for text, canary in enumerate(blanks.canaries):
        secret = tuple(blanks.words[number] for number in best[text].tolist())
        guesses.append(
            Guess(
                secret=secret,
                loss=losses[text],
                true_loss=true_losses[text],
                steps=int(taken[text].max()),
                exact=secret == canary.secret,
                hamming=float(np.mean([a != b for a, b in zip(secret, canary.secret, strict=True)])),
                candidates=len(blanks.words),
                alphabet=len(canary.alphabet),
                repetitions=canary.repetitions,
            )
        )
    return guesses


def _candidates(canary: Canary, given: Sequence[str] | None) -> tuple[str, ...]:
    words = canary.alphabet if given is None else tuple(given)
    if len(set(words)) < max(2, len(words)) or any(word.split() != [word] for word in words):
        raise ArgumentError("candidates", "two or more distinct words without white space", f"{len(words)} words")
    if not set(canary.secret) <= set(words):
        raise ArgumentError("candidates", "words among which are those of the secret", f"{len(words)} words without")
    return words


# --- findings --------------------------------------------------------------------------------------------------


def evaluate(
    guesses: Sequence[Guess], *, models: Sequence[Hashable] | None = None, level: float = 0.95, margin: float = 0.1
) -> tuple[Finding, Finding]:
    """Findings `inversion-exact-match` (lower is better, ideal 0) and `inversion-hamming` (higher is better).

    The first is the share of secrets found exactly; the second is the mean share of wrong words, whose ideal is that of
    a random guess, 1 - 1/alphabet. `leaks` where "nothing is memorised" is contradicted at 1 - level (`p_value`); `no
    leak found` where it is not and the whole interval is within `margin` of the ideal; else `insufficient evidence`.

    What is assumed:
    - The p-value needs nothing but secrets drawn uniformly and independently, as `canaries.design` does: if a model
      knows nothing of them, each guess is right by chance, whatever the guesses share.
    - The intervals are for models trained anew, with new canaries. Canaries of one model are learned together, so it is
      the models that are independent. One guess a model: Clopper-Pearson and Hoeffding intervals of the guesses. Else:
      Hoeffding intervals of the models' means, whatever the dependence within a model; one model then shows little.

    Args:
        guesses: at least one.
        models: which model each guess was read from; None if each has its own.
        level: of the intervals, and 1 - the false-alarm rate of the verdicts.
        margin: in (0, 1).

    Raises:
        ArgumentError: no guess, not one model per guess, level or margin outside (0, 1).
    """
    checks.not_empty("guesses", guesses)
    checks.inside("level", level, 0, 1)
    checks.inside("margin", margin, 0, 1)
    names = list(range(len(guesses)) if models is None else models)
    checks.same_length(models=names, guesses=guesses)
    exact = np.array([guess.exact for guess in guesses], dtype=float)
    wrong = np.array([guess.hamming for guess in guesses])
    alphabets = np.array([guess.alphabet for guess in guesses], dtype=float)
    lengths = np.array([len(guess.secret) for guess in guesses])
    chances, right = alphabets**-lengths, int(((1 - wrong) * lengths).round().sum())
    common: dict[str, Any] = {"level": level, "n": len(set(names)), "source": SOURCE}
    details = {"guesses": len(guesses), "models": len(set(names)), "margin": margin}

    share, found = _mean(exact, names, level, shares=True)
    p_value = _by_chance(chances, int(exact.sum()))
    exact_finding = Finding(
        "inversion-exact-match",
        "Planted secrets read out exactly by model inversion",
        share,
        found.low,
        found.high,
        direction=Direction.LOWER,
        ideal=0.0,
        verdict=_verdict(p_value, level, found.high < margin),
        details=details | {"extracted": int(exact.sum()), "chance": float(chances.mean()), "p_value": p_value},
        **common,
    )
    distance, found = _mean(wrong, names, level, shares=False)
    p_value, ideal = _by_chance(np.repeat(1 / alphabets, lengths), right), float((1 - 1 / alphabets).mean())
    hamming_finding = Finding(
        "inversion-hamming",
        "Words of planted secrets that model inversion gets wrong",
        distance,
        found.low,
        found.high,
        direction=Direction.HIGHER,
        ideal=ideal,
        verdict=_verdict(p_value, level, found.low > ideal - margin),
        details=details | {"right": right, "words": int(lengths.sum()), "p_value": p_value},
        **common,
    )
    return exact_finding, hamming_finding


def _verdict(p_value: float, level: float, near: bool) -> Verdict:
    if p_value <= 1 - level:
        return Verdict.LEAKS
    return Verdict.NO_LEAK_FOUND if near else Verdict.INSUFFICIENT_EVIDENCE


def _mean(
    values: NDArray[np.float64], models: Sequence[Hashable], level: float, *, shares: bool
) -> tuple[float, Interval]:
    """The mean over models of the mean of each, and its interval; `shares` if values are 0 or 1."""
    of_model: dict[Hashable, list[float]] = {}
    for model, value in zip(models, values.tolist(), strict=True):
        of_model.setdefault(model, []).append(value)
    means = np.array([np.mean(of) for of in of_model.values()])
    exact = shares and len(means) == len(values)
    interval = proportion(int(means.sum()), len(means), level) if exact else bounded_mean(means, 0, 1, level)
    return float(means.mean()), interval


def _by_chance(chances: NDArray[np.float64], right: int) -> float:
    """The probability that `right` or more of independent guesses with these chances are right."""
    probabilities = reduce(np.convolve, [np.array([1 - chance, chance]) for chance in chances])
    return float(min(1.0, probabilities[right:].sum()))
