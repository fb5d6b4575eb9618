"""RMIA: does the target raise this text's probability above what is usual more than that of other texts?

    ratio(x) = p_target(x) / p(x),   p = exp(-loss)
    score(x) = share of population texts z with ratio(x) >= gamma * ratio(z)

The usual probability p(x) is that of a model of which one does not know whether it saw x: the mean over models that
did and models that did not. Where there are only models that did not, p(x) = ((1 + a) p_out(x) + (1 - a)) / 2: a
model that sees a text moves its probability a part of the way to 1, and `a`, in [0, 1], says how little.

Within one target, texts stand in the order of their ratios, whatever the population; the population gives the score
its scale. At gamma 1 it is the share of texts outside that the text beats, so a threshold of 0.99 accuses about 1% of
non-members in any target.

Source: Zarifzadeh, Liu, Shokri 2024, "Low-Cost High-Power Membership Inference Attacks", arXiv:2312.03262.

Shape legend: N texts, M texts of the population, K shadow models.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustnlp import checks
from trustnlp.attacks.membership import auc, finite, finite_shadows, refuse_unseen

Array = NDArray[Any]

_CANDIDATES = tuple(np.linspace(0, 1, 11).round(1).tolist())


def score(
    losses: ArrayLike,
    shadow_losses: ArrayLike,
    inside: ArrayLike,
    population_losses: ArrayLike,
    population_shadow_losses: ArrayLike,
    *,
    online: bool = True,
    a: float | None = None,
    gamma: float = 1.0,
) -> Array:
    """The share of the population whose ratio the text's ratio exceeds gamma times, (N,), in [0, 1].

    Higher = more member-like.

    Args:
        losses: (N,) the target model's, in nats.
        shadow_losses: (K, N) the shadow models', of the same texts.
        inside: (K, N) bool, whether shadow k was trained on text n; see `lira.score`.
        population_losses: (M,) the target's, of other texts that neither it nor any shadow was trained on.
        population_shadow_losses: (K, M) the shadows', of these.
        online: uses the shadows that saw a text, too.
        a: how usual probabilities follow from those of models that did not see the text; `tune`'s where left out.
        gamma: how many times, > 0.

    Raises:
        ArgumentError: shapes that do not fit, a outside [0, 1], gamma <= 0, or `a` left out with fewer than 3 shadows.
        GuaranteeError: a loss is NaN or infinite, or a text lacks shadows on a side that is used.
    """
    target = finite("losses", losses)
    shadows, inside = finite_shadows(shadow_losses, inside, len(target))
    population = finite("population_losses", population_losses)
    nowhere = np.zeros((len(shadows), len(population)), dtype=bool)
    population_shadows, _ = finite_shadows(population_shadow_losses, nowhere, len(population))
    checks.positive("gamma", gamma)
    a = tune(shadows, inside) if a is None else checks.within("a", a, 0, 1)
    usual = _usual_by_both(shadows, inside) if online else _usual(shadows, inside, a)
    ratios, population_ratios = -target - usual, -population - _usual(population_shadows, nowhere, a)
    return np.searchsorted(np.sort(population_ratios), ratios - np.log(gamma), side="right") / len(population)


def tune(shadow_losses: ArrayLike, inside: ArrayLike) -> float:
    """The `a` of 0, 0.1, ..., 1 with which the offline attack works best on the first two shadows, by their mean AUC.

    Each of the two is attacked with all shadows but these two, and the attacker, who trained them, knows their texts.
    Nothing of the target is used. The least of equally good ones is taken.

    Args:
        shadow_losses, inside: (K, N) as in `score`; two shadows on complementary halves make a good first pair.

    Raises:
        ArgumentError: fewer than 3 shadows, or one of the pair holds fewer than two texts, or all but one.
        GuaranteeError: a loss is NaN or infinite, or a text is inside all shadows but the pair.
    """
    shadows, inside = finite_shadows(shadow_losses, inside, np.shape(inside)[-1])
    checks.at_least("shadows", len(shadows), 3, "give `a`, or train more")

    def success(a: float) -> float:
        usual = _usual(shadows[2:], inside[2:], a)
        ratios = -shadows[:2] - usual
        return sum(auc(of[seen], of[~seen])[0] for of, seen in zip(ratios, inside[:2], strict=True))

    return max(_CANDIDATES, key=success)


def _usual(shadows: Array, inside: Array, a: float) -> Array:
    """log p of each text, by the shadows that did not see it, (N,)."""
    return np.log(((1 + a) * _mean(shadows, "outside", ~inside) + (1 - a)) / 2)


def _usual_by_both(shadows: Array, inside: Array) -> Array:
    return np.log((_mean(shadows, "inside", inside) + _mean(shadows, "outside", ~inside)) / 2)


def _mean(shadows: Array, name: str, side: Array) -> Array:
    """Each text's mean probability in the shadows on one side, (N,)."""
    counts = side.sum(0)
    refuse_unseen(name, counts, 1)
    return np.where(side, np.exp(-shadows), 0).sum(0) / counts
