"""The blind check: are members and non-members told apart by their text alone, without the model?

If so, they do not come from one distribution (later dates, other sources, other lengths), and what a membership attack
finds may be that difference rather than a leak. Source: Meeus et al. 2025, "SoK: Membership Inference Attacks on LLMs
are Rushing Nowhere", arXiv:2406.17975; Das, Zhang, Tramèr 2024, "Blind Baselines Beat Membership Inference Attacks",
arXiv:2406.16201.

A random half of the texts of either side fits the classifier, the other half judges it. Given the classifier, the
judged scores are independent, so the AUC's interval holds as it stands. Cross-validation uses each text for both and
looks better, but its folds depend on each other: without any bias, the mean of their AUCs has about twice the variance
that independent folds would have, and an interval at 2.5% a side raises false alarms in some 7% of cases.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression

from trustnlp import checks
from trustnlp.attacks.membership import auc
from trustnlp.data.membership_split import normalise
from trustnlp.results import Direction, Finding, Verdict

FEWEST = 40  # distinct texts a side; with fewer, neither half could show anything


def check(
    members: Sequence[str],
    nonmembers: Sequence[str],
    *,
    generator: np.random.Generator,
    level: float = 0.95,
    margin: float = 0.6,
) -> Finding:
    """Finding `blind-classifier-auc`: how well n-grams and lengths tell members from non-members; ideal 0.5.

    Of texts equal but for case, white space and digits, one a side is kept, as twins in both halves would be recognised
    rather than classified. Looser near-duplicates remain: where a side holds many, an alarm may be theirs.

    Args:
        members, nonmembers: texts, none on both sides (see `check_disjoint`).
        generator: draws the halves.
        level: of the interval.
        margin: AUC in (0.5, 1) below which the whole interval must lie for `no bias found`.

    Returns:
        Verdict `biased split` where the whole interval lies above 0.5 (a false alarm in (1 - level) / 2 of unbiased
        splits), `no bias found` where it lies below `margin`, else `insufficient evidence`, as with fewer than 40
        distinct texts on a side (value None).

    Raises:
        ArgumentError: a side is empty, or level or margin breaks its rule.
    """
    checks.not_empty("members", members)
    checks.not_empty("nonmembers", nonmembers)
    checks.inside("level", level, 0, 1)
    checks.inside("margin", margin, 0.5, 1)
    sides = [_distinct(texts) for texts in (members, nonmembers)]
    details: dict[str, Any] = {
        "members": len(sides[0]),
        "nonmembers": len(sides[1]),
        "duplicates_left_out": len(members) + len(nonmembers) - sum(map(len, sides)),
        "margin": margin,
    }
    entry: dict[str, Any] = {
        "id": "blind-classifier-auc",
        "title": "Pairs of a member and a non-member that their text alone tells apart",
        "level": level,
        "direction": Direction.LOWER,
        "ideal": 0.5,
        "source": "Meeus et al. 2025, arXiv:2406.17975; Das et al. 2024, arXiv:2406.16201",
    }
    if min(map(len, sides)) < FEWEST:
        details["reason"] = f"give at least {FEWEST} distinct texts a side"
        return Finding(value=None, verdict=Verdict.INSUFFICIENT_EVIDENCE, details=details, **entry)
    judged = _judged_scores(sides[0], sides[1], generator)
    value, found = auc(*judged, level)
    return Finding(
        value=value,
        low=found.low,
        high=found.high,
        n=sum(map(len, judged)),
        verdict=_verdict(found.low, found.high, margin),
        details=details,
        **entry,
    )


def _verdict(low: float, high: float, margin: float) -> Verdict:
    if low > 0.5:
        return Verdict.BIASED_SPLIT
    return Verdict.NO_BIAS_FOUND if high < margin else Verdict.INSUFFICIENT_EVIDENCE


def _distinct(texts: Sequence[str]) -> list[str]:
    return list({re.sub(r"\d+", "0", normalise(text)): text for text in texts}.values())


def _judged_scores(
    members: list[str], nonmembers: list[str], generator: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of the second half of each side by a classifier of the first halves."""
    orders = [generator.permutation(len(side)) for side in (members, nonmembers)]
    first, second = (
        [[side[i] for i in half(order)] for side, order in zip((members, nonmembers), orders, strict=True)]
        for half in (lambda order: order[: len(order) // 2], lambda order: order[len(order) // 2 :])
    )
    truth = np.repeat([1, 0], [len(side) for side in first])
    classifier = LogisticRegression(class_weight="balanced", max_iter=1000)
    fitted, judged = _features(first[0] + first[1]), _features(second[0] + second[1])
    seen = np.flatnonzero(fitted.getnnz(axis=0))  # a feature that is not fitted has no weight, only a cost
    scores = classifier.fit(fitted[:, seen], truth).decision_function(judged[:, seen])
    return scores[: len(second[0])], scores[len(second[0]) :]


def _features(texts: list[str]) -> sparse.csr_matrix:
    """Hashed words, word pairs and character 3- to 5-grams, each of unit length, and the logs of both lengths."""
    words = HashingVectorizer(ngram_range=(1, 2), n_features=2**18, alternate_sign=False)
    characters = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), n_features=2**18, alternate_sign=False)
    lengths = np.log1p([[len(text), len(text.split())] for text in texts])
    return sparse.hstack([words.transform(texts), characters.transform(texts), lengths]).tocsr()
