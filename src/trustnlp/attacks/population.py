"""Quantile attacks: how rare is a loss as low as this, among other texts or among other models?

    attack-P   among texts that the target did not see        the loss attack, in known false alarms
    attack-R   of this very text, among models without it     a text is compared with itself alone

Both scores are 1 - p, where p is the rank of the target's loss from below, counted with itself: for a non-member,
p is at most x with probability at most x where the compared losses come from the same distribution. So a score above
0.99 accuses at most 1% of non-members. R models can give no p below 1 / (R + 1).

Source: Ye et al. 2022, "Enhanced Membership Inference Attacks against Machine Learning Models", arXiv:2111.09679,
attacks P and R, with thresholds as ranks.

Shape legend: N texts, M texts of the population, K shadow models.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustnlp.attacks.membership import finite, finite_shadows, refuse_unseen

Array = NDArray[Any]


def score(losses: ArrayLike, population_losses: ArrayLike) -> Array:
    """Attack-P: 1 - p of each loss among the population's, (N,), in [0, 1); higher = more member-like.

    Args:
        losses: (N,) the target model's.
        population_losses: (M,) the target's, of other texts that it was not trained on.

    Raises:
        ArgumentError: not two non-empty lists of numbers.
        GuaranteeError: a loss is NaN or infinite.
    """
    target = finite("losses", losses)
    population = np.sort(finite("population_losses", population_losses))
    return 1 - (1 + np.searchsorted(population, target, side="right")) / (1 + len(population))


def per_example_score(losses: ArrayLike, shadow_losses: ArrayLike, inside: ArrayLike) -> Array:
    """Attack-R: 1 - p of each loss among those of the shadows that did not see the text, (N,), in [0, 1).

    Higher = more member-like. With few shadows most scores tie.

    Args:
        losses: (N,) the target model's.
        shadow_losses: (K, N) the shadow models', of the same texts.
        inside: (K, N) bool, whether shadow k was trained on text n; see `lira.score`.

    Raises:
        ArgumentError: shapes that do not fit.
        GuaranteeError: a loss is NaN or infinite, or a text is inside all shadows.
    """
    target = finite("losses", losses)
    shadows, inside = finite_shadows(shadow_losses, inside, len(target))
    counts = (~inside).sum(0)
    refuse_unseen("outside", counts, 1)
    lower = (~inside & (shadows <= target)).sum(0)
    return 1 - (1 + lower) / (1 + counts)
