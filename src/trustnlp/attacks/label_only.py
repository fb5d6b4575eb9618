"""Attacks on a model that answers labels alone, without losses or probabilities.

    gap          is the answer right?                            right answers look like members
    robustness   is it still right when words go or change places?   members stand further from the decision's border

Source: Choquette-Choo et al. 2021, "Label-Only Membership Inference Attacks", arXiv:2007.14321 (gap attack;
robustness to augmented inputs), with words in place of pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustnlp import checks
from trustnlp.data.perturbation import perturbed
from trustnlp.errors import ArgumentError

Array = NDArray[Any]


def gap_score(correct: ArrayLike) -> Array:
    """1.0 where the model's answer is right and 0.0 elsewhere, (N,); higher = more member-like.

    At low false-positive rates it finds almost nothing: half or more of all non-members score 1, too.

    Raises:
        ArgumentError: not a non-empty list of true and false.
    """
    array = np.asarray(correct)
    if array.dtype != bool or array.ndim != 1 or array.size == 0:
        raise ArgumentError("correct", "a non-empty list of true and false", f"{array.dtype} of shape {array.shape}")
    return array.astype(float)


def robustness_score(
    answer: Callable[[list[str]], Sequence[str]],
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    generator: np.random.Generator,
    draws: int = 16,
    share: float = 0.2,
) -> Array:
    """How many of a text and its changed copies get the text's own label, (N,), in [0, 1]; higher = more member-like.

    A copy has lost some words, or has some neighbours swapped; see `perturbed`. The model is asked (1 + draws) N times.

    Args:
        answer: texts -> the label that the model gives each.
        texts: N of them.
        labels: the right ones.
        generator: draws the changes.
        draws: copies of each text, >= 1.
        share: of a text's words that a copy changes, in (0, 1].

    Raises:
        ArgumentError: an argument breaks its rule, or `answer` gives another number of labels than it got texts.
    """
    checks.not_empty("texts", texts)
    checks.same_length(texts=texts, labels=labels)
    checks.at_least("draws", draws, 1)
    right = np.zeros(len(texts))
    for draw in range(1 + draws):
        asked = [perturbed(text, share, generator) for text in texts] if draw else list(texts)
        answered = answer(asked)
        if len(answered) != len(asked):
            raise ArgumentError("answer", f"a function that gives {len(asked)} labels", len(answered))
        right += [given == label for given, label in zip(answered, labels, strict=True)]
    return right / (1 + draws)
