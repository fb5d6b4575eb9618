"""Study `privacy-ladder` (S2): how much of a model's leak is left at which epsilon, and what attacks prove of epsilon?

    for each epsilon:   K models on halves of one pool of texts ── each attacked by the others ── TPR, AUC
                        └── on the test split: accuracy, slot F1   └── lower bound on epsilon, beside the promise

All epsilons have the same texts, coins, first weights and order of the draws, so that differences between them are
differences in epsilon. Private and plain models are trained to the end by the recipes of `assess`, without watching
a validation split.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trustnlp.attacks import ladder, membership, one_run
from trustnlp.attacks.membership import Margins
from trustnlp.dp import PrivacyPlan
from trustnlp.progress import Progress
from trustnlp.randomness import Streams
from trustnlp.results import Direction, Finding, Verdict
from trustnlp.studies import corpora, membership_pool, recipes
from trustnlp.studies.membership_pool import Pool, Training
from trustnlp.studies.study import Cells, Request, Study, verdict
from trustnlp.uncertainty import Interval, bonferroni

Array = NDArray[Any]

_EPSILONS = (1.0, 3.0, 8.0, 50.0, None)
_QUICK_EPSILONS = (1.0, 8.0, 50.0, None)
_LOOSE = 50.0
_STRONGEST = "lira"
# Fixed before measuring: what a "large practical gain" means here.
_LEFT = 0.5
_FPR = 0.01
_LEVEL = 0.95
_MODELS, _TEXTS, _OUTSIDE = 18, 4_000, 1_000
_QUICK_MODELS, _QUICK_TEXTS = 8, 2_000
_UTILITY = {"accuracy": ("label-accuracy", "Label accuracy"), "slot_f1": ("slot-f1", "Slot F1")}


def _measure(request: Request, cells: Cells, progress: Progress) -> list[Finding]:
    found: list[Finding] = []
    for name, model in product(request.data or ("snips",), request.models or ("bilstm",)):
        streams = Streams(request.seed).child(f"{name}/{model}")
        pool = _pool(name, request.quick, streams)
        for epsilon in _QUICK_EPSILONS if request.quick else _EPSILONS:
            cell = {
                "corpus": pool.corpus.name,
                "model": model,
                "epsilon": "none" if epsilon is None else f"{epsilon:g}",
            }
            measure = partial(_cell, pool, model, epsilon, request, streams, progress)
            found += cells.measure(cell, measure)
    return [_claim(found), *found]


def _pool(name: str, quick: bool, streams: Streams) -> Pool:
    corpus = corpora.load(name, limit=200_000, quick=quick)
    size = _QUICK_TEXTS if quick else _TEXTS
    return membership_pool.pool(corpus, size, _OUTSIDE, streams.numpy("pool"))


def _cell(
    pool: Pool, model: str, epsilon: float | None, request: Request, streams: Streams, progress: Progress, folder: Path
) -> list[Finding]:
    """Everything at one epsilon."""
    plan = None if epsilon is None else _plan(pool, model, epsilon, request.quick)
    training = Training(pool, model, plan, request.quick, request.device)
    count = _QUICK_MODELS if request.quick else _MODELS
    inside = membership_pool.coins(count, len(pool.texts), streams.numpy("coins"))
    stage = f"{pool.corpus.name} {model} " + ("without privacy" if epsilon is None else f"epsilon {epsilon:g}")
    answers = membership_pool.train(training, inside, streams, folder / "models", progress, stage)
    scores = membership_pool.scores(membership_pool.joint(answers), inside)
    found = [finding for attack in scores for finding in _success(attack, scores[attack], inside)]
    found += [_utility(name, answers[name], pool) for name in _UTILITY if name in answers]
    if plan is not None and epsilon is not None:
        found.append(_spent(plan, epsilon))
    return [*found, _ladder(scores[_STRONGEST], inside, plan, corpora.delta_for(pool.places), streams)]


def _plan(pool: Pool, model: str, epsilon: float, quick: bool) -> PrivacyPlan:
    recipe = recipes.private(model, pool.places, quick)
    return PrivacyPlan.for_budget(
        epsilon=epsilon,
        delta=corpora.delta_for(pool.places),
        examples=pool.places,
        expected_batch=recipe.batch_size,
        epochs=recipe.epochs,
        clipping=recipe.clipping,
    )


# --- findings of a cell ------------------------------------------------------------------------------------------


def _success(attack: str, scores: Array, inside: Array) -> list[Finding]:
    """TPR at 1% FPR and AUC of an attack, means over targets."""
    sides = [(of[seen], of[~seen]) for of, seen in zip(scores, inside, strict=True)]
    margins = Margins()
    common: dict[str, Any] = {
        "direction": Direction.LOWER,
        "source": f"{membership.SOURCES[attack]}; mean over targets, interval by Student's t over pairs of opposites",
    }
    tprs = np.array([membership.tpr_at_fpr(*side, _FPR) for side in sides])
    aucs = np.array([membership.auc(*side)[0] for side in sides])
    return [
        _mean(
            tprs,
            {"margin": margins.tpr_ratio * _FPR},
            id=f"membership-{attack}-tpr-at-1pct-fpr",
            title=f"Members found by the {attack} attack at 1% false alarms",
            ideal=_FPR,
            **common,
        ),
        _mean(
            aucs,
            {"margin": margins.auc},
            id=f"membership-{attack}-auc",
            title=f"Pairs of a member and a non-member that the {attack} attack tells apart",
            ideal=0.5,
            **common,
        ),
    ]


def _utility(name: str, values: Array, pool: Pool) -> Finding:
    id, title = _UTILITY[name]
    source = "mean over models, interval by Student's t over pairs of opposites"
    details = {"dataset": f"{pool.corpus.name} test"}
    return _mean(values, details, id=id, title=title, ideal=1.0, direction=Direction.HIGHER, source=source)


def _mean(values: Array, details: Mapping[str, Any], *, ideal: float, **fields: Any) -> Finding:
    """The mean over K models as a finding, with a verdict on a leak where details have a margin.

    Where all models are alike there is no interval: no variation seen is no proof that there is none.
    """
    interval, judged = mean_over_pairs(values) if np.ptp(values) else None, Verdict.MEASURED
    if "margin" in details:
        judged = Verdict.INSUFFICIENT_EVIDENCE
        if interval is not None:
            judged = membership.leak_verdict(interval.low, interval.high, ideal, details["margin"])
    return Finding(
        value=float(values.mean()),
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        level=_LEVEL,
        n=len(values),
        ideal=ideal,
        verdict=judged,
        details={"models": values.tolist(), **details},
        **fields,
    )


def _spent(plan: PrivacyPlan, epsilon: float) -> Finding:
    spent = plan.epsilon()
    return Finding(
        "epsilon",
        "Privacy budget spent",
        spent,
        unit="epsilon",
        n=plan.examples,
        direction=Direction.LOWER,
        ideal=0.0,
        verdict=Verdict.WITHIN_BUDGET if spent <= epsilon else Verdict.OVER_BUDGET,
        source="privacy loss distribution of each training's steps (dp-accounting)",
        details={"target": epsilon, "statement": plan.statement().as_dict()},
    )


def _ladder(scores: Array, inside: Array, plan: PrivacyPlan | None, delta: float, streams: Streams) -> Finding:
    """Each target's one-run bound, all of them at once, beside the promise.

    A target's shadows and their coins are nothing to it, so its bound holds whatever they are; together the bounds hold
    by Bonferroni, though targets share shadows.
    """
    each = bonferroni(_LEVEL, len(scores))
    bounds = [
        one_run.from_scores(
            of, seen, delta=delta, level=each, analysis="binomial", generator=streams.numpy("ties", target)
        )
        for target, (of, seen) in enumerate(zip(scores, inside, strict=True))
    ]
    return ladder.finding(None if plan is None else plan.epsilon(), bounds, delta=delta, level=_LEVEL)


# --- intervals over pairs ----------------------------------------------------------------------------------------


def mean_over_pairs(values: Array, level: float = _LEVEL) -> Interval:
    """Student's t interval of the mean of K values, of which 2 i and 2 i + 1 belong together: K / 2 units."""
    pairs, mean = values.reshape(-1, 2).mean(1), float(values.mean())
    reach = stats.t.ppf(0.5 + level / 2, len(pairs) - 1) * pairs.std(ddof=1) / math.sqrt(len(pairs))
    return Interval(mean - float(reach), mean + float(reach), level)


def ratio_over_pairs(tops: Array, bottoms: Array, level: float = _LEVEL) -> Interval | None:
    """Fieller's interval of mean(tops) / mean(bottoms) for K values each, in pairs as above; None if it has no end.

    It holds the ratios r for which the mean of tops - r * bottoms is not told from 0 by Student's t. It has no end
    where the bottoms' own mean is not told from 0.

    Source: Fieller 1954, JRSS B 16:175-185.
    """
    top, bottom = tops.reshape(-1, 2).mean(1), bottoms.reshape(-1, 2).mean(1)
    factor = stats.t.ppf(0.5 + level / 2, len(top) - 1) ** 2 / len(top)
    (vtt, vtb), (_, vbb) = factor * np.cov(top, bottom)
    a, b, c = bottom.mean() ** 2 - vbb, top.mean() * bottom.mean() - vtb, top.mean() ** 2 - vtt
    if a <= 0 or bottom.mean() <= 0:
        return None
    half, ratio = math.sqrt(max(b * b - a * c, 0.0)), top.mean() / bottom.mean()
    # The ratio itself is always inside, but for rounding.
    return Interval(float(min((b - half) / a, ratio)), float(max((b + half) / a, ratio)), level)


# --- the claim ---------------------------------------------------------------------------------------------------


def _claim(found: Sequence[Finding]) -> Finding:
    """What is left at the loose epsilon of the strongest attack's success, for the worst attack, corpus and model."""
    loose = {f.regime: f.details["cell"] for f in found if f.details["cell"]["epsilon"] == f"{_LOOSE:g}"}
    shares = [_left(found, cell, attack) for cell, attack in product(loose.values(), membership_pool.ATTACKS)]
    worst = max(shares, key=lambda share: math.inf if share.interval is None else share.interval.high)
    common: dict[str, Any] = {
        "unit": "fraction",
        "direction": Direction.LOWER,
        "ideal": 0.0,
        "source": "survey 'Advances in trustworthy machine learning at Alexa AI' (2022)",
        "details": {"cell": dict(worst.cell), "attack": worst.attack, "says": _says(found)},
    }
    title = f"Attack success beyond chance that is left at epsilon {_LOOSE:g}, without privacy = 100%"
    if worst.interval is None:
        return verdict(title, None, value=None, **common)
    low, high = worst.interval.low, worst.interval.high
    reproduced = True if high <= _LEFT else False if low > _LEFT else None
    return verdict(title, reproduced, value=worst.value, low=low, high=high, n=worst.models, **common)


@dataclass(frozen=True)
class _Left:
    """How much of the plain success is left to an attack; no interval where the plain success is none."""

    cell: Mapping[str, str]
    attack: str
    value: float
    interval: Interval | None
    models: int


def _left(found: Sequence[Finding], cell: Mapping[str, str], attack: str) -> _Left:
    plain, loose = _excess(found, {**cell, "epsilon": "none"}, _STRONGEST), _excess(found, cell, attack)
    interval = ratio_over_pairs(loose, plain)
    value = math.nan if interval is None else float(loose.mean() / plain.mean())
    return _Left(cell, attack, value, interval, len(loose))


def _excess(found: Sequence[Finding], cell: Mapping[str, str], attack: str) -> Array:
    """(K,) the attack's TPR at 1% FPR in each target, less the 1% of chance."""
    return np.array(_of(found, cell, f"membership-{attack}-tpr-at-1pct-fpr").details["models"]) - _FPR


def _of(found: Sequence[Finding], cell: Mapping[str, str], id: str) -> Finding:
    return next(f for f in found if f.id == id and f.details["cell"] == cell)


def _says(found: Sequence[Finding]) -> list[str]:
    """What the ladder shows, one sentence a rung."""
    sentences = []
    for cell in {f.regime: f.details["cell"] for f in found}.values():
        success = _of(found, cell, f"membership-{_STRONGEST}-tpr-at-1pct-fpr")
        shown = _of(found, cell, "epsilon-ladder")
        proof = f"this proves an epsilon of at least {shown.value:.2f}" if shown.value else "this proves no epsilon"
        promise = "without privacy" if cell["epsilon"] == "none" else f"at epsilon {cell['epsilon']}"
        sentences.append(
            f"{cell['corpus']}, {cell['model']}, {promise}: {success.figure(success.value)} of members are found at 1% "
            f"false alarms ({success.interval()}); {proof}."
        )
    return sentences


STUDY = Study(
    name="privacy-ladder",
    system="S2",
    claim=(
        "Even a loose epsilon buys a large practical gain in privacy. Counted as reproduced where, on every corpus and "
        f"model, at epsilon {_LOOSE:g} no attack (loss, RMIA, LiRA) keeps more than {_LEFT:.0%} of what LiRA finds "
        "beyond chance without privacy: its true-positive rate at 1% false positives, less 1%, with the 95% interval "
        "of the ratio."
    ),
    axes={"panel": ("corpus",), "rows": ("model",), "columns": ("epsilon",)},
    measure=_measure,
)
