"""An audit of trustnlp's own private engine: thousands of canaries in one run, by a spy who sees every step.

plan ─┬─ full draws      every example in every step: exactly a Gaussian mechanism, so the sharper f-DP analysis holds
      └─ Poisson draws   each example in half of the steps: sampling is audited too, by an analysis without assumptions
both ─> gradient canaries ─> one-run bounds, one a view ─> ladder: consistent, violated or uninformative

It goes through the public seam, `PrivacyPlan.step` and `PrivacyPlan.sampler`, as any training does. Guarantees of
steps that do not depend on the model's size are audited as they are; layers' own gradients are not (the tests compare
these with one backward per example).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch

from trustnlp import checks
from trustnlp.attacks import gradient_canaries, ladder, one_run
from trustnlp.attacks.gradient_canaries import CanaryModel, GradientCanaries
from trustnlp.attacks.lower_bound import LowerBound
from trustnlp.dp import PrivacyPlan, PrivateStep
from trustnlp.errors import ArgumentError
from trustnlp.progress import Progress, silent
from trustnlp.randomness import Streams
from trustnlp.results import Finding, Results
from trustnlp.studies.recipes import MECHANISMS
from trustnlp.studies.run_folder import choose_seed, open_run
from trustnlp.uncertainty import bonferroni

LEVEL = 0.95
_RATES = {"full draws": 1.0, "Poisson draws": 0.5}
_FEWEST = 100


@dataclass(frozen=True)
class Request:
    """What an audit of the engine is asked for.

    Args:
        mechanism: how gradients are bounded, of `recipes.MECHANISMS`.
        epsilon, delta: the promise. What an audit can show ends near ln(canaries / 3), so ask for a small epsilon:
            the engine does the same at every epsilon, with less noise.
        canaries: one less than a multiple of 16, as with the example that is always in they fill micro-batches; more
            show more.
        steps: of each run.
        noise: `seeded` or `secure`.
        seed: >= 0.

    Raises:
        ArgumentError: a field breaks its rule.
    """

    mechanism: str = "exact"
    epsilon: float = 2.0
    delta: float = 1e-5
    canaries: int = 7_999
    steps: int = 8
    noise: str = "seeded"
    seed: int | None = None

    def __post_init__(self) -> None:
        checks.one_of("mechanism", self.mechanism, tuple(MECHANISMS))
        checks.positive("epsilon", self.epsilon)
        checks.at_least("canaries", self.canaries, _FEWEST)
        if (self.canaries + 1) % 16:
            raise ArgumentError("canaries", "one less than a multiple of 16", self.canaries)
        checks.at_least("steps", self.steps, 2)


def run(
    request: Request, out: str | Path, *, progress: Progress = silent, overwrite: bool = False, command: str = ""
) -> Results:
    """Audits the engine; writes results.json into `out` and returns the results.

    Raises:
        GuaranteeError: a plan that cannot be made, or a step that refuses itself.
        RunError: `out` holds another run.
    """
    request = replace(request, seed=choose_seed(out, request.seed))
    folder = open_run(out, asdict(request), overwrite=overwrite)
    findings = []
    for name, rate in _RATES.items():
        with folder.timed(name):
            findings.append(audit(request, rate, Streams(request.seed or 0).child(name), progress, name).of(name))
    about = {"name": "Audit of the private engine", "canaries": request.canaries}
    facts = {name: {"model": "gradient canaries", "mechanism": request.mechanism} for name in _RATES}
    record = folder.record(command) | {"corpus": about, "regimes": facts}
    results = Results(record, tuple(findings))
    results.save(folder.path)
    return results


def audit(
    request: Request, rate: float, streams: Streams, progress: Progress = silent, stage: str = "audit"
) -> Finding:
    """Finding `epsilon-ladder` of one plan of the request, at sampling rate `rate` in (0, 1]."""
    plan = PrivacyPlan.solve(
        epsilon=request.epsilon,
        delta=request.delta,
        examples=request.canaries + 1,
        expected_batch=round(rate * (request.canaries + 1)),
        steps=request.steps,
        clipping=MECHANISMS[request.mechanism],
        noise=request.noise,
    )
    included = streams.numpy("coins").random(request.canaries) < 0.5
    canaries = GradientCanaries(included)
    seen = _watched(plan, canaries, streams.child("seen"))
    progress(stage, 1, 2, {})
    scores = gradient_canaries.views(seen, _watched(plan, canaries.blank(), streams.child("blank")))
    bounds = list(_bounds(scores, canaries, request.delta, "f-dp" if rate == 1 else "approximate", streams))
    progress(stage, 2, 2, {})
    return ladder.finding(plan.epsilon(), bounds, delta=request.delta, level=LEVEL)


def _watched(plan: PrivacyPlan, canaries: GradientCanaries, streams: Streams) -> gradient_canaries.Movements:
    return gradient_canaries.watch(canaries, partial(_step, plan, streams), plan.sampler(streams))


def _step(plan: PrivacyPlan, streams: Streams, model: CanaryModel) -> PrivateStep:
    sgd = torch.optim.SGD(model.parameters(), lr=gradient_canaries.LEARNING_RATE)
    return plan.step(model, sgd, streams=streams)


def _bounds(
    scores: gradient_canaries.Views,
    canaries: GradientCanaries,
    delta: float,
    analysis: one_run.Analysis,
    streams: Streams,
) -> Iterator[LowerBound]:
    """One bound a view, all of which hold at once."""
    each = bonferroni(LEVEL, len(scores))
    for view, found in scores.items():
        bound = one_run.from_scores(
            found, canaries.included, delta=delta, level=each, analysis=analysis, generator=streams.numpy("ties")
        )
        yield replace(bound, details={**bound.details, "view": view})
