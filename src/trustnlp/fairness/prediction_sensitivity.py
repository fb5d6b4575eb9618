"""Accumulated prediction sensitivity: how strongly a classifier's answer depends on the tokens that tell the group.

    P = E_x[ w^T J v ],    J[k, l] = || d f_k / d x_l ||    (see `saliency`)

w weights the classes: the predicted one, all alike, or any weights. v weights the tokens by what they tell of the
protected attribute: 1 on the terms of a lexicon, or the normalised saliency of a model of the protected status (its
predicted class; sums to 1 over a text), carried from its tokens to the classifier's by the characters that they share.
P = 0 exactly if no small change of those tokens' vectors changes the weighted probabilities.

Source: Krishna, Gupta, Verma, Dhamala, Pruksachatkun and Chang 2022, "Measuring fairness of text classifiers via
prediction sensitivity", ACL, arXiv:2203.08670. The formula is recalled: the paper's equations were not at hand.

Three limits of the figure, and what is done about them:

- It is not a pure number: a model with vectors ten times as long has a tenth of it. So the margin is a change of
  probability, under a move of every coordinate of the vectors by its own typical size (root mean square c). To first
  order the largest such change is at most P times the step, c D^(1 - 1/p) for vectors of D coordinates and a norm of
  order p; the margin is divided by the step before P is judged.
- Every model that reads its input is sensitive to it. Disparity therefore needs an **excess** over the other tokens of
  the same text, sum_l v_l (J_l - mean of J over the text, weighted by 1 - v), that lies beyond the margin: also without
  bias some kinds of words move a model more than others, by a little. In a model that is linear in the mean of its
  vectors all tokens have one gradient, so no excess is ever found there: use `counterfactual_fairness`.
- Gradients of probabilities vanish where probabilities are near 0 or 1: an answer that is certain because of the group
  has a small P. A margin that is met is no proof of invariance; look at the counterfactual change beside it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustnlp import checks
from trustnlp.data.corpus import Example
from trustnlp.errors import GuaranteeError
from trustnlp.fairness.identity_terms import IdentityTerms
from trustnlp.fairness.metric import ENOUGH, Metric, Notion, Scope, is_enough, minimum_detectable_effect, units
from trustnlp.fairness.saliency import PREDICTED, Saliency, open_classifier, saliencies
from trustnlp.models.heads import LabelModel
from trustnlp.randomness import Streams
from trustnlp.results import Direction, Finding
from trustnlp.uncertainty import Interval, bootstrap

Floats = NDArray[np.float64]
# Relative differences below this are rounding of float32, not an effect.
_RESOLUTION = 1e-4
PREDICTION_SENSITIVITY = Metric(
    id="prediction-sensitivity",
    title="Change of the predicted probability per change of the tokens that tell the group",
    notion=Notion.SENSITIVITY,
    ideal=0.0,
    direction=Direction.LOWER,
    source="accumulated prediction sensitivity (Krishna et al. 2022, arXiv 2203.08670)",
    unit="",
)


@dataclass(frozen=True)
class Attribution:
    """The tokens of one text, how sensitive the answer is to each, and how much each tells of the group.

    It holds the text itself: for display of texts that may be shown, never to be stored of training texts.

    Args:
        tokens: the L tokens; special tokens are empty.
        sensitivity: (L,) w^T J, >= 0.
        weight: (L,) v, in [0, 1].
        label: the predicted class.
        probability: of that class.
    """

    tokens: tuple[str, ...]
    sensitivity: tuple[float, ...]
    weight: tuple[float, ...]
    label: str
    probability: float

    def __repr__(self) -> str:
        return f"Attribution({len(self.tokens)} tokens)"

    @property
    def total(self) -> float:
        """The text's share in P: w^T J v."""
        return float(np.dot(self.sensitivity, self.weight))


def prediction_sensitivity(
    task_model: str | Path | LabelModel | Any,
    protected: IdentityTerms | str | Path | LabelModel | Any,
    texts: Sequence[str | Example],
    *,
    dataset: str,
    protected_group: str | None = None,
    norm: str = "l1",
    classes: str | ArrayLike = PREDICTED,
    tokenizer: Any = None,
    protected_tokenizer: Any = None,
    clusters: Sequence[Hashable | None] | None = None,
    margin: float = 0.05,
    level: float = 0.95,
    seed: int = 0,
    device: str = "cpu",
) -> Finding:
    """Accumulated prediction sensitivity of a classifier; lower is better, ideal 0.

    Args:
        task_model: a text classifier, as for `saliency.open_classifier`.
        protected: a lexicon, or a classifier of the protected status in the same forms.
        texts: with a lexicon, those without an identity term are counted and left out.
        dataset: what it was measured on, for the record.
        protected_group: whose identity; that of the lexicon, or "protected status" if None.
        norm: of a token's gradient, `l1`, `l2` or `linf`.
        classes: which probabilities: `predicted`, `uniform`, or K weights >= 0.
        tokenizer, protected_tokenizer: of models of Transformers, their fast tokenizers.
        clusters: each text's user, where users are known; those of examples if None.
        margin: the change of probability of no consequence, > 0, see the head of this module.
        level: coverage of the intervals, in (0, 1).
        seed: of the bootstrap.
        device: where the models compute.

    Returns:
        Finding `prediction-sensitivity` in probability per unit of the vectors, with a bootstrap interval over texts,
        or users. `details["scaled"]` is P times the step; `details["excess"]` what goes beyond the other tokens of the
        same texts, None where it cannot be told, and then no disparity is claimed.

    Raises:
        ArgumentError: no texts, lengths that differ, an option out of range.
        ModelError: a model that cannot be opened or differentiated, see `open_classifier`.
        GuaranteeError: gradients that are not finite.
    """
    checks.not_empty("texts", texts)
    checks.inside("level", level, 0, 1)
    checks.positive("margin", margin)
    users = units(len(texts), _users(texts) if clusters is None else clusters)
    task = open_classifier(task_model, tokenizer, device=device)
    status = protected if isinstance(protected, IdentityTerms) else None
    relation = status or open_classifier(protected, protected_tokenizer, device=device)
    group = protected_group or (status.protected_group if status else "protected status")
    wordings = [_text(each) for each in texts]
    chosen = [row for row, text in enumerate(wordings) if status is None or status.places(text)]
    told: dict[str, Any] = {
        "texts": len(texts),
        "texts_with_term": len(chosen),
        "norm": norm,
        "classes": classes if isinstance(classes, str) else np.asarray(classes, dtype=float).tolist(),
        "weights": "lexicon" if status else "protected-status model",
        "margin_as_probability": margin,
    }
    owners = [users[row] for row in chosen]
    if not is_enough(np.ones(len(chosen)), owners):
        reason = f"{len(chosen)} of {len(texts)} texts can be measured; {ENOUGH} are needed"
        return PREDICTION_SENSITIVITY.unmeasured(
            Scope(group, dataset, margin), reason, n=len(set(owners)), details=told
        )
    read = [wordings[row] for row in chosen]
    found = saliencies(task, read, classes=classes, norm=norm)
    weights = token_weights(relation, read, found, norm=norm)
    return _judged(found, weights, owners, Scope(group, dataset, margin), level, Streams(seed), told)


def attributions(
    task_model: str | Path | LabelModel | Any,
    texts: Sequence[str],
    protected: IdentityTerms | LabelModel | Any,
    *,
    norm: str = "l1",
    classes: str | ArrayLike = PREDICTED,
) -> tuple[Attribution, ...]:
    """What each token of texts that may be shown contributes: rows of a heat map.

    Args and errors as for `prediction_sensitivity`.
    """
    checks.not_empty("texts", texts)
    task = open_classifier(task_model)
    relation = protected if isinstance(protected, IdentityTerms) else open_classifier(protected)
    found = saliencies(task, texts, classes=classes, norm=norm)
    weights = token_weights(relation, texts, found, norm=norm)
    shown = []
    for text, each, weight in zip(texts, found, weights, strict=True):
        tokens = tuple(text[start:end].strip() for start, end in each.places)
        best = int(each.probabilities.argmax())
        values = tuple(each.values.tolist()), tuple(weight.tolist())
        shown.append(Attribution(tokens, *values, task.schema.labels[best], float(each.probabilities[best])))
    return tuple(shown)


def text_sensitivities(
    task: LabelModel,
    relation: IdentityTerms | LabelModel,
    texts: Sequence[str],
    *,
    norm: str = "l1",
    classes: str | ArrayLike = PREDICTED,
) -> Floats:
    """(N,) w^T J v of each text, whose mean is P; 0 where a lexicon knows none of its words.

    Args and errors as for `prediction_sensitivity`; models as `open_classifier` gives them.
    """
    found = saliencies(task, texts, classes=classes, norm=norm)
    weights = token_weights(relation, texts, found, norm=norm)
    return np.array([weight @ each.values for each, weight in zip(found, weights, strict=True)])


def token_weights(
    relation: IdentityTerms | LabelModel, texts: Sequence[str], found: Sequence[Saliency], *, norm: str
) -> list[Floats]:
    """v (L,) of each text, in [0, 1], for the tokens of `found`; special tokens have none.

    Args:
        relation: a lexicon, for 1 on every token that shares a character with an identity term; or a protected-status
            model, for its saliency spread over the characters of its tokens, and made to sum to 1 over the text.
        texts: N of them.
        found: the task classifier's saliencies of the same texts.
        norm: as for `saliencies`.
    """
    if isinstance(relation, IdentityTerms):
        return [_touched(each.places, relation.places(text)) for text, each in zip(texts, found, strict=True)]
    spread = saliencies(relation, texts, norm=norm)
    pairs = zip(texts, found, spread, strict=True)
    return [_carried(len(text), each.places, status) for text, each, status in pairs]


def _touched(places: NDArray[np.int64], terms: Sequence[tuple[int, int]]) -> Floats:
    starts, ends = places[:, 0], places[:, 1]
    hits = [(starts < end) & (ends > start) for start, end in terms]
    return np.any(hits, axis=0).astype(float) if hits else np.zeros(len(places))


def _carried(length: int, places: NDArray[np.int64], status: Saliency) -> Floats:
    """The status model's saliency by characters, gathered by the task model's tokens; 0 where it has none at all."""
    characters = np.zeros(length + 1)
    for (start, end), value in zip(status.places, status.values, strict=True):
        characters[start:end] += value / max(end - start, 1)
    until = np.concatenate([[0.0], np.cumsum(characters)])
    gathered = until[places[:, 1]] - until[places[:, 0]]
    return gathered / gathered.sum() if gathered.sum() > 0 else gathered


def _judged(
    found: Sequence[Saliency],
    weights: Sequence[Floats],
    users: Sequence[Hashable],
    scope: Scope,
    level: float,
    streams: Streams,
    told: dict[str, Any],
) -> Finding:
    values = np.array([weight @ each.values for each, weight in zip(found, weights, strict=True)])
    excesses = np.array([_excess(each, weight) for each, weight in zip(found, weights, strict=True)])
    step = float(np.sqrt(np.mean([each.step**2 for each in found])))
    interval = _mean_interval(values, users, level, streams.numpy("values"), float(values.mean()))
    told |= {"step": step, "scaled": float(values.mean()) * step, "excess": None}
    if interval is None or step == 0:
        reason = "the figure, or every vector, is the same in all texts, so nothing can be told"
        return PREDICTION_SENSITIVITY.unmeasured(scope, reason, n=len(set(users)), details=told)
    known = np.isfinite(excesses)
    owners = [user for user, is_known in zip(users, known, strict=True) if is_known]
    excess = None
    if is_enough(np.ones(known.sum()), owners):
        excess = _mean_interval(excesses[known], owners, level, streams.numpy("excess"), float(values.mean()))
    if excess is not None:
        mean = float(excesses[known].mean())
        told["excess"] = {"value": mean, "low": excess.low, "high": excess.high, "n": int(known.sum())}
    scaled = replace(scope, margin=scope.margin / step)
    return PREDICTION_SENSITIVITY.finding(
        scaled,
        float(values.mean()),
        interval,
        n=len(set(users)),
        minimum_detectable_effect=None if excess is None else minimum_detectable_effect(excess),
        excess=_beyond(excess, scaled.margin, level),
        details=told,
    )


def _beyond(excess: Interval | None, margin: float, level: float) -> Interval:
    """The interval of what exceeds the margin; without an excess it could be anything."""
    if excess is None:
        return Interval(-1e300, 1e300, level)
    return Interval(excess.low - margin, excess.high - margin, level)


def _excess(saliency: Saliency, weight: Floats) -> float:
    """sum_l v_l (J_l - J'), J' the mean over the text's own tokens by 1 - v; NaN where the text has no others."""
    real = saliency.places[:, 1] > saliency.places[:, 0]
    rest = (1 - weight) * real
    if rest.sum() <= 0:
        return float("nan")
    return float(weight @ saliency.values - weight.sum() * (rest @ saliency.values) / rest.sum())


def _mean_interval(
    values: Floats, users: Sequence[Hashable], level: float, generator: np.random.Generator, scale: float
) -> Interval | None:
    """The interval of the mean; None where texts differ by no more than rounding."""
    if np.ptp(values) <= _RESOLUTION * scale:
        return None
    alone = len(set(users)) == len(users)
    try:
        return bootstrap(_mean, values, generator=generator, level=level, clusters=None if alone else users)
    except GuaranteeError:
        return None


def _mean(values: Floats) -> Floats:
    mean: Floats = values.mean(axis=1)
    return mean


def _text(given: str | Example) -> str:
    return given.text if isinstance(given, Example) else given


def _users(texts: Sequence[str | Example]) -> list[str | None]:
    return [each.user if isinstance(each, Example) else None for each in texts]
