"""Study `private-training` (S1): does private training cost ordinary training's time, and what does it cost in quality?

eDP-SGD (Dupuy et al. 2022, arXiv 2107.14586) trains joint intent and slot models under differential privacy in nearly
the time of ordinary training, by clipping micro-batches. Here that scheme, with the noise that its sensitivity asks
for, stands beside exact and layer-wise clipping at one guarantee: (epsilon, delta) for one example.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from trustnlp import models
from trustnlp.data.corpus import Corpus
from trustnlp.dp import PrivacyPlan, per_unit_clipped_sum
from trustnlp.progress import Progress
from trustnlp.randomness import Streams
from trustnlp.results import Direction, Finding
from trustnlp.studies import corpora, measures, step_time
from trustnlp.studies.regime import Setting
from trustnlp.studies.regimes import REGIMES
from trustnlp.studies.study import Cells, Request, Study, verdict
from trustnlp.uncertainty import median

MECHANISMS = ("exact", "layerwise", "microbatch")
LOOP = "text by text"
_EPSILONS = (1.0, 3.0, 8.0, 50.0)
_PHYSICAL = 64
# Fixed before measuring: what "very close to ordinary training" and "many times slower" mean here.
_CLOSE, _SLOW = 1.25, 2.0
_QUICK_TEXTS = 1_500


def _measure(request: Request, cells: Cells, progress: Progress) -> list[Finding]:
    chosen = [_corpus(name, request) for name in request.data or ("snips", "atis")]
    kinds = request.models or (("bilstm",) if request.quick else ("bilstm", "transformer"))
    times: list[Finding] = []
    qualities: list[Finding] = []
    for corpus, model in product(chosen, kinds):
        setting = _setting(corpus, model, request)
        times += _times(setting, cells, progress, request.quick)
        for mechanism, epsilon in _trainings(request.quick):
            qualities += _quality(setting, mechanism, epsilon, cells, progress)
    return [_claim(times), *times, *qualities]


def _corpus(name: str, request: Request) -> Corpus:
    return corpora.load(name, limit=_QUICK_TEXTS if request.quick else 200_000, quick=request.quick)


def _setting(corpus: Corpus, model: str, request: Request) -> Setting:
    return Setting(
        model=model,
        schema=corpus,
        train=corpus.train,
        valid=corpus.valid,
        epsilon=_EPSILONS[2],
        delta=corpora.delta_for(len(corpus.train)),
        streams=Streams(request.seed).child(f"{corpus.digest}/{model}"),
        quick=request.quick,
        device=request.device,
    )


def _trainings(quick: bool) -> Iterator[tuple[str, float | None]]:
    yield "plain", None
    yield from product(MECHANISMS, _EPSILONS[::2] if quick else _EPSILONS)


def _cell(setting: Setting, mechanism: str, epsilon: float | None = None) -> dict[str, str]:
    budget = {} if epsilon is None else {"epsilon": f"{epsilon:g}"}
    return {"corpus": setting.schema.name, "model": setting.model, "mechanism": mechanism, **budget}


def _quality(
    setting: Setting, mechanism: str, epsilon: float | None, cells: Cells, progress: Progress
) -> tuple[Finding, ...]:
    """Accuracy and slot F1 on the test set after training under a budget, or under none."""

    def train(folder: Path) -> list[Finding]:
        regime, asked = "plain", setting
        if epsilon is not None:
            regime, asked = "private", replace(setting, epsilon=epsilon, mechanism=mechanism)
        name = " ".join(_cell(setting, mechanism, epsilon).values())
        trained = REGIMES[regime].train(asked, folder, progress, name)
        test = setting.schema.test
        found = measures.answers(trained.model, test)
        dataset = f"{setting.schema.name} test"
        utility = measures.utility(found, dataset=dataset, users=[example.user for example in test])
        return [*utility, *trained.findings]

    return cells.measure(_cell(setting, mechanism, epsilon), train)


def _times(setting: Setting, cells: Cells, progress: Progress, quick: bool) -> list[Finding]:
    """Ratios of a whole step, noise and update included, to the plain step; all contestants take turns."""
    rounds, stage = (7, 15)[not quick], f"{setting.schema.name} {setting.model} time of a step"
    measured: dict[str, np.ndarray] = {}

    def ratio(name: str, _: Path) -> list[Finding]:
        if not measured:
            measured.update(step_time.ratios(_contestants(setting), rounds, progress, stage))
        values = measured[name]
        interval = median(values)
        finding = Finding(
            "training-time-ratio",
            "Time of a private step, plain step = 1",
            float(np.median(values)),
            interval.low,
            interval.high,
            n=rounds,
            unit="",
            direction=Direction.LOWER,
            ideal=1.0,
            source="median over rounds in which all mechanisms take one step each; interval by order statistics",
        )
        return [finding]

    found: list[Finding] = []
    for name in (*MECHANISMS, LOOP):
        found += cells.measure({**_cell(setting, name), "figure": "time"}, partial(ratio, name))
    return found


def _contestants(setting: Setting) -> dict[str, step_time.TimedStep]:
    encoded = None
    steps: dict[str, step_time.TimedStep] = {}
    for name in ("plain", *MECHANISMS, LOOP):
        asked = replace(setting, mechanism=name if name in MECHANISMS else "exact")
        rate, plan = asked.private_recipe.learning_rate, _loud(asked)
        model = models.build(setting.model, setting.schema, streams=setting.streams, **asked.private_recipe.options)
        encoded = encoded or model.encode(setting.train, for_training=True)
        model.to(setting.device)
        if name == "plain":
            steps[name] = step_time.plain(model, encoded, plan, setting.streams, rate, _PHYSICAL)
        else:
            slow = {"clipped_sum": per_unit_clipped_sum} if name == LOOP else {}
            steps[name] = step_time.private(model, encoded, plan, setting.streams, rate, **slow)
    return steps


def _loud(setting: Setting) -> PrivacyPlan:
    """The setting's plan, with noise that need not be calibrated for a stopwatch."""
    recipe = setting.private_recipe
    return PrivacyPlan(
        len(setting.train), recipe.batch_size, 100, noise_multiplier=1.0, delta=setting.delta, clipping=recipe.clipping
    )


def _claim(times: Sequence[Finding]) -> Finding:
    """Reproduced where all micro-batch ratios lie below _CLOSE and all of the loop above _SLOW, intervals included."""
    of = {name: [f for f in times if f.details["cell"]["mechanism"] == name] for name in ("microbatch", LOOP)}
    close = all(f.high is not None and f.high <= _CLOSE for f in of["microbatch"])
    slow = all(f.low is not None and f.low >= _SLOW for f in of[LOOP])
    worst = max((f for f in of["microbatch"] if f.value is not None), key=lambda f: f.value or 0.0)
    open_question = any(f.low is not None and f.low <= _CLOSE < (f.high or 0) for f in of["microbatch"])
    return verdict(
        "Slowest micro-batch step, plain step = 1",
        (close and slow) or (None if open_question else False),
        value=worst.value,
        low=worst.low,
        high=worst.high,
        n=worst.n,
        unit="",
        direction=Direction.LOWER,
        ideal=1.0,
        source="Dupuy et al. 2022, arXiv 2107.14586",
        details={"cell": worst.details["cell"]},
    )


STUDY = Study(
    name="private-training",
    system="S1",
    claim=(
        "Private training of language-understanding models takes very nearly the time of ordinary training, where "
        "clipping text by text is many times slower. Counted as reproduced where, on every corpus and model, a step "
        f"with micro-batches takes at most {_CLOSE:g} times the plain step and one backward per text at least "
        f"{_SLOW:g} times, with their intervals."
    ),
    axes={"panel": ("corpus", "model"), "rows": ("mechanism",), "columns": ("epsilon",)},
    measure=_measure,
)
