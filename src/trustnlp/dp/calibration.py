"""Plans from budgets: the least noise, the most steps or the largest batch for which an epsilon pays.

Every function takes all of a plan but what it finds, as a partial call of `PrivacyPlan`, and an epsilon > 0; the plan
that it returns spends at most that. All raise GuaranteeError where nothing does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from trustnlp.dp import accounting
from trustnlp.dp.micro_batches import MicroBatchClipping
from trustnlp.errors import GuaranteeError

if TYPE_CHECKING:
    from trustnlp.dp.plan import PrivacyPlan

_MOST_STEPS = 10**6


def least_noise(plan: partial[PrivacyPlan], epsilon: float) -> PrivacyPlan:
    """Of the first epoch, where noise decays; spends at least 99% of epsilon."""
    draft = plan(noise_multiplier=accounting.MOST_NOISE)
    factor = accounting.calibrate(epsilon, draft.delta, accounting.merged(draft.events()))
    return replace(draft, noise_multiplier=accounting.MOST_NOISE * factor)


def most_steps(plan: partial[PrivacyPlan], epsilon: float) -> PrivacyPlan:
    """One step more would spend too much, up to the 1% that quick accounting adds."""
    one = plan(steps=1)
    found = accounting.largest(lambda steps: _spent(one, steps=steps), epsilon, _MOST_STEPS)
    if found == _MOST_STEPS:
        raise GuaranteeError(
            f"epsilon {epsilon:g} pays for more than {_MOST_STEPS:,} steps", "lower the noise or epsilon, or give steps"
        )
    return _found(one, epsilon, steps=found)


def largest_batch(plan: partial[PrivacyPlan], epsilon: float) -> PrivacyPlan:
    """In multiples of a micro-batch, where there are any."""
    clipping = plan.keywords.get("clipping")
    size = clipping.size if isinstance(clipping, MicroBatchClipping) else 1
    one = plan(expected_batch=size)
    found = accounting.largest(lambda n: _spent(one, expected_batch=n * size), epsilon, one.examples // size)
    return _found(one, epsilon, expected_batch=found * size)


def _spent(one: PrivacyPlan, **changes: int) -> float:
    """What the changed plan spends; infinity where there is no such plan."""
    try:
        return accounting.quick_epsilon(replace(one, **changes).events(), one.delta)  # type: ignore[arg-type]
    except GuaranteeError:
        return math.inf


def _found(one: PrivacyPlan, epsilon: float, **changes: int) -> PrivacyPlan:
    if not all(changes.values()):
        raise GuaranteeError(
            f"epsilon {epsilon:g} does not pay for the least {', '.join(changes)}", "raise the noise or epsilon"
        )
    return replace(one, **changes)  # type: ignore[arg-type]


SOLVERS: dict[str, Callable[[partial[PrivacyPlan], float], PrivacyPlan]] = {
    "noise_multiplier": least_noise,
    "steps": most_steps,
    "expected_batch": largest_batch,
}
