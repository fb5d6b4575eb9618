"""Clip norm, learning rate and batch chosen by trial, on data whose privacy is not spent, or at a price that is told.

| way to choose                             | price                                                                 |
|-------------------------------------------|-----------------------------------------------------------------------|
| `suggest` on public or synthetic data     | none: the private data is never touched                               |
| `AutomaticClipping`                       | none: there is no clip norm to choose                                 |
| a clipping that adapts (`Quantile`)       | its share of every step, within the plan                              |
| `suggest` on private data                 | all trials together, as if each was run to its end and published      |

Trials are cut by successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943): all candidates train for a short
while, the best of them for longer, and the last few to their end.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from trustnlp import checks
from trustnlp.dp import accounting
from trustnlp.dp.clipping import Clipping
from trustnlp.dp.plan import PrivacyPlan
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.models.protocol import Encoded
from trustnlp.models.training import seeded
from trustnlp.randomness import Streams

SOURCES = ("public", "synthetic", "private")


@dataclass(frozen=True)
class Candidate:
    """What might be run on the private data.

    Args:
        plan: of the private run: it has the clipping and the expected batch.
        learning_rate: > 0.

    Raises:
        ArgumentError: `learning_rate` is not a number > 0.
    """

    plan: PrivacyPlan
    learning_rate: float

    def __post_init__(self) -> None:
        checks.positive("learning_rate", self.learning_rate)


@dataclass(frozen=True)
class Trial:
    """How a candidate did after `steps` steps; no score where its training broke down."""

    candidate: Candidate
    steps: int
    score: float | None


@dataclass(frozen=True)
class Suggestion:
    """What was chosen, and how.

    Args:
        best: the candidate that came through all rounds.
        trials: all of them, round by round.
        source: of the data that was trained on.
        epsilon: what the trials have spent of the privacy of that data, at `delta`; 0 of data that needs none.
        delta: the smallest of the candidates'.
    """

    best: Candidate
    trials: tuple[Trial, ...]
    source: str
    epsilon: float
    delta: float

    def as_dict(self) -> dict[str, Any]:
        """For a record of the run, JSON-able."""

        def of(candidate: Candidate) -> dict[str, Any]:
            return {"plan": candidate.plan.as_dict(), "learning_rate": candidate.learning_rate}

        trials = [{**of(trial.candidate), "steps": trial.steps, "score": trial.score} for trial in self.trials]
        spent = {"source": self.source, "epsilon": self.epsilon, "delta": self.delta}
        return {"best": of(self.best), **spent, "trials": trials}


def grid(
    *,
    expected_batches: Sequence[int],
    clippings: Sequence[Clipping],
    learning_rates: Sequence[float],
    **budget: Any,
) -> tuple[Candidate, ...]:
    """Every combination as a candidate, each with the noise that spends the same budget.

    Args:
        expected_batches, clippings, learning_rates: what to choose from.
        budget: epsilon, delta, examples and epochs of the private run, see `PrivacyPlan.for_budget`.
    """
    plans = [PrivacyPlan.for_budget(expected_batch=batch, **budget) for batch in expected_batches]
    combined = itertools.product(plans, clippings, learning_rates)
    return tuple(Candidate(replace(plan, clipping=clipping), rate) for plan, clipping, rate in combined)


def suggest(
    candidates: Sequence[Candidate],
    data: Encoded,
    *,
    source: str,
    build: Callable[[], nn.Module],
    score: Callable[[nn.Module], float],
    streams: Streams,
    budget: float | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    keep: float = 1 / 3,
) -> Suggestion:
    """The candidate that trains best with the noise that the private run would have.

    Guarantee: where `source` is "private", the suggestion and all models of all trials together are
    (`Suggestion.epsilon`, delta)-differentially private for the unit and adjacency of the plans, provided that `score`
    looks at other data than `data`. Every trial is charged in full: what was cut, and when, follows from what all
    trials would have shown at their ends. The epsilon of a final run on the same data comes on top. Where `source` is
    something else nothing is guaranteed of `data`, and nothing is spent.

    Args:
        candidates: what to choose from, see `grid`.
        data: what trials train on.
        source: "public", "synthetic" (made without a look at private texts), or "private".
        build: makes the untrained model, the same every time.
        score: figure of a model in evaluation mode on held-out data, higher is better.
        streams: each trial has streams of its own, so that no two share noise; private data asks for fresh ones every
            time.
        budget: the most epsilon that trials on private data may spend.
        optimizer: takes parameters and `lr`.
        keep: in (0, 1), the share of candidates that survives a round; at least one does.

    Raises:
        ArgumentError: no candidate, or fewer examples than a candidate's expected batch.
        GuaranteeError: private data without a budget, with one that the trials would exceed, or with plans for
            different units; a trial on private data that broke down, or all trials on other data.
    """
    checks.not_empty("candidates", candidates)
    checks.inside("keep", keep, 0, 1)
    delta = min(candidate.plan.delta for candidate in candidates)
    epsilon = _charge(candidates, checks.one_of("source", source, SOURCES), budget, delta)
    runs = [
        _Run(candidate, data, source, build(), optimizer, streams.child(f"trial/{candidate.learning_rate!r}", number))
        for number, candidate in enumerate(candidates)
    ]
    trials: list[Trial] = []
    for fraction in _fractions(len(runs), keep):
        for run in runs:
            run.advance(fraction, score)
        trials += [Trial(run.candidate, run.step, run.score) for run in runs]
        ranked = sorted(runs, key=lambda run: -math.inf if run.score is None else run.score, reverse=True)
        runs = ranked[: _survivors(len(runs), keep)]
    if runs[0].score is None:
        raise GuaranteeError("the training of every candidate broke down", "lower the rates") from runs[0].broken
    return Suggestion(runs[0].candidate, tuple(trials), source, epsilon, delta)


def _charge(candidates: Sequence[Candidate], source: str, budget: float | None, delta: float) -> float:
    """What the trials spend of the data's privacy: known, and refused, before any of it is touched."""
    if source != "private":
        return 0.0
    if budget is None:
        raise GuaranteeError(
            "choosing by trials on private data tells of that data, and no budget was given for it",
            "tune on public or synthetic data, or give the epsilon that tuning may spend as `budget`",
        )
    if len({(candidate.plan.unit, candidate.plan.adjacency) for candidate in candidates}) > 1:
        raise GuaranteeError("trials that protect different units add up to no guarantee", "protect one unit in all")
    events = itertools.chain.from_iterable(candidate.plan.events() for candidate in candidates)
    epsilon = accounting.epsilon(events, delta)
    if epsilon > checks.positive("budget", budget):
        raise GuaranteeError(
            f"all trials together spend epsilon {epsilon:.4g}, and {budget:g} was given",
            "try fewer candidates, or give each plan more noise",
        )
    return epsilon


def _survivors(count: int, keep: float) -> int:
    return max(1, int(count * keep))


def _fractions(count: int, keep: float) -> list[float]:
    """The part of its steps that every candidate left has done at the end of each round; all in the last."""
    fractions = [1.0]
    while (count := _survivors(count, keep)) > 1:
        fractions.insert(0, fractions[0] * keep)
    return fractions


def _rehearsal(plan: PrivacyPlan, examples: int) -> PrivacyPlan:
    """The plan's batches, steps and noise on another number of examples; its epsilon is nobody's.

    Where noise decays from epoch to epoch, epochs are of another length, and decay as much in as many steps.
    """
    if plan.expected_batch > examples:
        rule = f"at least {plan.expected_batch} examples, the expected batch of a candidate"
        raise ArgumentError("data", rule, examples, "give more of them, or try smaller batches")
    same = replace(plan, examples=examples, delta=min(plan.delta, 0.5 / examples), noise_decay=1.0)
    return replace(same, noise_decay=plan.noise_decay ** (same.steps_per_epoch / plan.steps_per_epoch))


class _Run:
    """A candidate's training, round by round.

    Attributes:
        step: how many steps are done.
        score: after them; None before, and where training broke down.
        broken: the error with which it did.
    """

    def __init__(
        self,
        candidate: Candidate,
        data: Encoded,
        source: str,
        model: nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer],
        streams: Streams,
    ) -> None:
        self.candidate, self.step = candidate, 0
        self.score: float | None = None
        self.broken: GuaranteeError | None = None
        self._data, self._private, self._model, self._streams = data, source == "private", model, streams
        plan = candidate.plan if self._private else _rehearsal(candidate.plan, len(data))
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._update = plan.step(model, optimizer(trained, lr=candidate.learning_rate), streams=streams)
        self._sampler = plan.sampler(streams)

    def advance(self, fraction: float, score: Callable[[nn.Module], float]) -> None:
        """Trains until this part of all steps is done, and scores."""
        try:
            self._train(math.ceil(self._sampler.steps * fraction))
        except GuaranteeError as error:
            if self._private:
                raise
            self.broken, self.score = error, None
            return
        self._model.eval()
        figure = float(score(self._model))
        self.score = figure if math.isfinite(figure) else None

    def _train(self, until: int) -> None:
        self._model.train()
        for step in range(self.step, until):
            with seeded(self._streams.key("dropout", step), self._model):
                self._update(self._data, self._sampler.draw(step))
            self.step = step + 1
