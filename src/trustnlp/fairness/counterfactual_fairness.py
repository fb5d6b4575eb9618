"""Counterfactual fairness by probabilities: how far a classifier's answer moves when identity terms are swapped.

For each text with an identity term, the distance between the class probabilities before and after the swap is their
total variation, half the sum of absolute changes: with two classes the absolute change of either. The figure is its
mean over texts, ideal 0. As for `flip_rate`, which counts only changes that cross the border between two labels, the
verdict of disparity rests on the excess over a control swap of as many words within the group, compared as if they
were independent.

Source: Garg et al. 2019, "Counterfactual fairness in text classification through robustness", AIES, section 3
(counterfactual token fairness), with the total variation in place of the difference of two scores.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustnlp import checks
from trustnlp.errors import GuaranteeError
from trustnlp.fairness.identity_terms import GENDER, IdentityTerms
from trustnlp.fairness.metric import ENOUGH, Metric, Notion, Scope, is_enough, minimum_detectable_effect, units
from trustnlp.results import Direction, Finding
from trustnlp.uncertainty import Interval, difference, ratio

Floats = NDArray[np.float64]
Probabilities = Callable[[list[str]], ArrayLike]

PROBABILITY_CHANGE = Metric(
    id="counterfactual-probability-change",
    title="Mean change of the class probabilities when identity terms are swapped",
    notion=Notion.SENSITIVITY,
    ideal=0.0,
    direction=Direction.LOWER,
    source="counterfactual token fairness (Garg et al. 2019), by total variation",
)


def counterfactual_probability_change(
    probabilities: Probabilities,
    texts: Sequence[str],
    *,
    dataset: str,
    terms: IdentityTerms = GENDER,
    clusters: Sequence[Hashable | None] | None = None,
    margin: float = 0.05,
    level: float = 0.95,
) -> Finding:
    """The mean total variation between class probabilities before and after the swap, in [0, 1]; lower, ideal 0.

    Args:
        probabilities: (n, K) of a list of n texts; called once. Of a classifier: `partial(saliency.probabilities, m)`.
        texts: those without an identity term are counted and left out.
        dataset: what it was measured on, for the record.
        terms: whose identity, and by which words.
        clusters: each text's user, where users are known; None for a text of unknown user.
        margin: the change that is of no consequence, > 0.
        level: coverage of the intervals, in (0, 1).

    Returns:
        Finding `counterfactual-probability-change`, with the interval of a ratio by user or text; `details["control"]`
        and `details["excess"]` as of `counterfactual_flip_rate`.

    Raises:
        ArgumentError: no texts, lengths that differ, margin or level out of range.
        GuaranteeError: not one row of probabilities per text, or rows that are not finite, >= 0 and of sum 1.
    """
    checks.not_empty("texts", texts)
    checks.inside("level", level, 0, 1)
    scope = Scope(terms.protected_group, dataset, margin)
    users = units(len(texts), clusters)
    swapped = {row: swap for row, text in enumerate(texts) if (swap := terms.swap(text)) != text}
    controls = {row: control for row in swapped if (control := terms.control(texts[row])) is not None}
    details: dict[str, Any] = {"texts": len(texts), "texts_with_term": len(swapped), "control": None, "excess": None}
    owners = [users[row] for row in swapped]
    if not is_enough(np.ones(len(swapped)), owners):
        reason = f"{len(swapped)} of {len(texts)} texts have an identity term; {ENOUGH} are needed"
        return PROBABILITY_CHANGE.unmeasured(scope, reason, n=len(set(owners)), details=details)

    changes, control_changes = _changes(probabilities, texts, swapped, controls)
    excess = None
    with_control = [users[row] for row in controls]
    if is_enough(np.ones(len(controls)), with_control):
        paired = changes[[row in controls for row in swapped]]
        instability = _interval(control_changes, with_control, level)
        own = _interval(paired, with_control, level)
        excess = difference(paired.mean(), own, control_changes.mean(), instability)
        details["control"] = _record(control_changes.mean(), instability, len(controls))
        details["excess"] = _record(paired.mean() - control_changes.mean(), excess, len(controls))
    return PROBABILITY_CHANGE.finding(
        scope,
        float(changes.mean()),
        _interval(changes, owners, level),
        n=len(set(owners)),
        minimum_detectable_effect=None if excess is None else minimum_detectable_effect(excess),
        excess=Interval(-1, 1, level) if excess is None else excess,  # without controls, it could be anything
        details=details,
    )


def total_variation(first: Floats, second: Floats) -> Floats:
    """(n,) half the sum of absolute differences of two (n, K) arrays of probabilities, in [0, 1]."""
    # Rounded sums may exceed 1 by a last digit.
    distance: Floats = np.minimum(np.abs(first - second).sum(axis=1) / 2, 1.0)
    return distance


def _changes(
    probabilities: Probabilities, texts: Sequence[str], swapped: dict[int, str], controls: dict[int, str]
) -> tuple[Floats, Floats]:
    """How far the swap moves each text (n,), and how far the control does, for the texts that have one."""
    asked = [*(texts[row] for row in swapped), *swapped.values(), *controls.values()]
    found = _checked(np.asarray(probabilities(asked), dtype=float), len(asked))
    before, after, control = np.split(found, [len(swapped), 2 * len(swapped)])
    held = [place for place, row in enumerate(swapped) if row in controls]
    return total_variation(before, after), total_variation(before[held], control)


def _checked(found: Floats, count: int) -> Floats:
    if found.ndim != 2 or len(found) != count:
        raise GuaranteeError(
            f"'probabilities' gave an array of shape {found.shape} for {count} texts", "give one row of classes each"
        )
    if not np.isfinite(found).all() or found.min() < 0 or np.abs(found.sum(axis=1) - 1).max() > 1e-4:
        raise GuaranteeError("'probabilities' gave rows that are no probabilities", "apply a softmax over the classes")
    return found


def _interval(changes: Floats, users: Sequence[Hashable], level: float) -> Interval:
    return ratio(changes, np.ones_like(changes), level, users)


def _record(value: float, interval: Interval, n: int) -> dict[str, Any]:
    return {"value": float(value), "low": interval.low, "high": interval.high, "n": n}
