"""Counterfactual flip rate: how often a model's answer changes when the identity terms of a text are swapped.

The figure is the plain share of changed answers among the texts with an identity term; its ideal is 0. A model that
changes its answer at any change of words is unstable, which is not the same as unfair, so the verdict of disparity
rests on the **excess** over a control swap of as many words of the same text within their group: flips by the swap
minus flips by the control, over the texts that have both. The two rates are compared as if they were independent;
being of the same texts they are correlated positively, if at all, which makes the interval of the excess too wide
rather than too narrow.

Notion: counterfactual fairness on perturbed tokens (Garg et al. 2019, "Counterfactual fairness in text classification
through robustness", AIES), for labels instead of scores.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustnlp import checks
from trustnlp.errors import GuaranteeError
from trustnlp.fairness.identity_terms import GENDER, IdentityTerms
from trustnlp.fairness.metric import ENOUGH, Metric, Notion, Scope, is_enough, minimum_detectable_effect, units
from trustnlp.results import Direction, Finding
from trustnlp.uncertainty import Interval, difference, proportion, ratio

Predict = Callable[[list[str]], Sequence[Hashable]]

FLIP_RATE = Metric(
    id="counterfactual-flip-rate",
    title="Texts whose predicted label changes when identity terms are swapped",
    notion=Notion.SENSITIVITY,
    ideal=0.0,
    direction=Direction.LOWER,
    source="counterfactual token fairness (Garg et al. 2019), by predicted label",
)


def counterfactual_flip_rate(
    predict: Predict,
    texts: Sequence[str],
    *,
    dataset: str,
    terms: IdentityTerms = GENDER,
    clusters: Sequence[Hashable | None] | None = None,
    margin: float = 0.05,
    level: float = 0.95,
) -> Finding:
    """The share of texts with an identity term whose predicted label changes when it is swapped; lower, ideal 0.

    Args:
        predict: the labels of a list of texts, one each; called once.
        texts: those without an identity term are counted and left out.
        dataset: what it was measured on, for the record.
        terms: whose identity, and by which words.
        clusters: each text's user, where users are known; None for a text of unknown user.
        margin: the share that is of no consequence, > 0.
        level: coverage of the intervals, in (0, 1).

    Returns:
        Finding `counterfactual-flip-rate`, with an exact interval (by user, if known: that of a ratio).
        `details["control"]` is the share changed by control swaps, `details["excess"]` what goes beyond; both are None
        where too few texts have a control, and then no disparity is claimed.

    Raises:
        ArgumentError: no texts, lengths that differ, margin or level out of range.
        GuaranteeError: not one label per text, or a label that is NaN.
    """
    checks.not_empty("texts", texts)
    checks.inside("level", level, 0, 1)
    scope = Scope(terms.protected_group, dataset, margin)
    users = units(len(texts), clusters)
    swapped = {row: swap for row, text in enumerate(texts) if (swap := terms.swap(text)) != text}
    controls = {row: control for row in swapped if (control := terms.control(texts[row])) is not None}
    details: dict[str, Any] = {"texts": len(texts), "texts_with_term": len(swapped), "control": None, "excess": None}
    with_term, n = [users[row] for row in swapped], len(swapped)
    if not is_enough(np.ones(n), with_term):
        reason = f"{n} of {len(texts)} texts have an identity term; {ENOUGH} are needed"
        return FLIP_RATE.unmeasured(scope, reason, n=len(set(with_term)), details=details)

    flips, control_flips = _flips(predict, texts, swapped, controls)
    interval = _rate(flips, with_term, level) if clusters is not None else proportion(int(flips.sum()), n, level)
    excess = None
    with_control = [users[row] for row in controls]
    if is_enough(np.ones(len(controls)), with_control):
        paired = flips[[row in controls for row in swapped]]
        instability = _rate(control_flips, with_control, level)
        excess = difference(paired.mean(), _rate(paired, with_control, level), control_flips.mean(), instability)
        details["control"] = _record(control_flips.mean(), instability, len(controls))
        details["excess"] = _record(paired.mean() - control_flips.mean(), excess, len(controls))
    return FLIP_RATE.finding(
        scope,
        float(flips.mean()),
        interval,
        n=len(set(with_term)),
        minimum_detectable_effect=None if excess is None else minimum_detectable_effect(excess),
        excess=Interval(-1, 1, level) if excess is None else excess,  # without controls, it could be anything
        details=details,
    )


def _flips(
    predict: Predict, texts: Sequence[str], swapped: dict[int, str], controls: dict[int, str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Whether the swap changes each label, (n,), and whether the control does, for the texts that have one."""
    asked = [*(texts[row] for row in swapped), *swapped.values(), *controls.values()]
    labels = list(predict(asked))
    if len(labels) != len(asked) or any(label != label for label in labels):
        raise GuaranteeError(
            f"'predict' gave {len(labels)} labels for {len(asked)} texts, or NaN", "give one label each"
        )
    original = dict(zip(swapped, labels, strict=False))
    after, after_control = labels[len(swapped) : 2 * len(swapped)], labels[2 * len(swapped) :]
    flips = [original[row] != label for row, label in zip(swapped, after, strict=True)]
    control_flips = [original[row] != label for row, label in zip(controls, after_control, strict=True)]
    return np.array(flips, dtype=float), np.array(control_flips, dtype=float)


def _rate(flips: NDArray[np.float64], users: Sequence[Hashable], level: float) -> Interval:
    return ratio(flips, np.ones_like(flips), level, users)


def _record(value: float, interval: Interval, n: int) -> dict[str, Any]:
    return {"value": float(value), "low": interval.low, "high": interval.high, "n": n}
