"""LiRA: is this loss one of a model that saw the text, or of a model that did not?

Shadow models, each trained on a random half of the texts, show both kinds of losses for every single text. A text that
is hard for all models is then no longer taken for a non-member, nor an easy one for a member.

    phi = log p / (1 - p), p = exp(-loss)      nearly normal, where losses are all but
    online    log N(phi; mean_in, std_in) - log N(phi; mean_out, std_out)
    offline   (phi - mean_out) / std_out       needs only models that did not see the text

The loss may be of any answer: of a label, p is its probability; of tags or of the words of a language model, meaned
over T words, p is the T-th root of the probability of them all; of label and tags together, the product of the two. In
each case p is in (0, 1] and phi falls as the loss rises, and stretches the losses near 0 that memorised texts have.

Source: Carlini et al. 2022, "Membership Inference Attacks From First Principles", arXiv:2112.03570. The variance
that all texts share is here that of losses around each text's own mean; the authors' code takes the deviation over all
texts, which adds the differences between texts.

Shape legend: N texts, K shadow models.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustnlp.attacks.membership import finite, finite_shadows, refuse_unseen
from trustnlp.errors import ArgumentError, GuaranteeError

Array = NDArray[Any]

OWN_VARIANCE_FROM = 32  # shadows on each side of a text, from which on its own variance is better than the shared one
_LEAST_LOSS = float(np.finfo(float).eps)  # below, 1 - p is lost in rounding


def score(
    losses: ArrayLike,
    shadow_losses: ArrayLike,
    inside: ArrayLike,
    *,
    online: bool = True,
    global_variance: bool | Literal["auto"] = "auto",
) -> Array:
    """The log of the likelihood ratio (online), or the distance above the OUT models in deviations (offline), (N,).

    Higher = more member-like. The offline score orders texts as the one-sided tail P[Z > phi] of the OUT models does,
    and unlike it never rounds to 0.

    Args:
        losses: (N,) the target model's, in nats.
        shadow_losses: (K, N) the shadow models', of the same texts.
        inside: (K, N) bool, whether shadow k was trained on text n. Drawn without regard to the target's own training
            texts: in a pool whose texts are each in exactly half of all models, leaving out the target alone would
            tell the answer by the counts.
        online: uses the shadows that saw a text, too.
        global_variance: one variance for all texts instead of one for each; `auto`: where some text has fewer than 32
            shadows on a side that is used.

    Raises:
        ArgumentError: shapes that do not fit, or a negative loss.
        GuaranteeError: a loss is NaN or infinite; a text lacks shadows on a side that is used (one with the shared
            variance, of which some text needs two; two with its own); or losses do not vary.
    """
    target = finite("losses", losses)
    shadows, inside = finite_shadows(shadow_losses, inside, len(target))
    phi, shadow_phi = logit(target), logit(shadows)
    sides = {"inside": inside, "outside": ~inside} if online else {"outside": ~inside}
    if global_variance == "auto":
        global_variance = min(int(side.sum(0).min()) for side in sides.values()) < OWN_VARIANCE_FROM
    fits = [_fit(shadow_phi, name, side, global_variance) for name, side in sides.items()]
    away = [(phi - mean) / std for mean, std in fits]
    if not online:
        return away[0]
    (z_in, z_out), (std_in, std_out) = away, [std for _, std in fits]
    return (z_out**2 - z_in**2) / 2 + np.log(std_out / std_in)


def logit(losses: ArrayLike) -> Array:
    """phi = log p / (1 - p) of p = exp(-loss), in the shape of the losses; falls as they rise.

    Exact at tiny losses, where p itself rounds to 1. A loss below 2.2e-16 counts as that, as double precision cannot
    tell it from 0.

    Raises:
        ArgumentError: a loss is negative by more than rounding.
    """
    array = np.asarray(losses, dtype=float)
    if array.size and array.min() < -1e-9:
        raise ArgumentError("losses", "at least 0, the negative log of a probability", float(array.min()))
    clipped = np.maximum(array, _LEAST_LOSS)
    return -clipped - np.log(-np.expm1(-clipped))


def _fit(phi: Array, name: str, side: Array, shared: bool) -> tuple[Array, Array]:
    """Each text's mean and standard deviation of phi over the shadows on one side, (N,) both."""
    counts = side.sum(0)
    refuse_unseen(name, counts, 1 if shared else 2)
    mean = np.where(side, phi, 0).sum(0) / counts
    squares = np.where(side, (phi - mean) ** 2, 0).sum(0)
    if shared:
        freedom = int((counts - 1).sum())
        if freedom == 0:
            raise GuaranteeError(f"no text has two shadows that have it {name}, so losses show no spread", "train more")
        variance = np.full(len(mean), squares.sum() / freedom)
    else:
        variance = squares / (counts - 1)
    still = int((variance <= (1e-12 * np.maximum(1, np.abs(mean))) ** 2).sum())
    if still:
        mend = "see whether the shadows differ at all" if shared else "take global_variance=True"
        raise GuaranteeError(f"the losses of {still} of {len(mean)} texts are the same in all shadows", mend)
    return mean, np.sqrt(variance)
