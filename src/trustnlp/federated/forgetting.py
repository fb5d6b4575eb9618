"""What a model has forgotten of earlier periods, from R[i, j]: its score after period i on the test set of period j.

    average     A = mean over j of R[T, j]                                          higher is better, ideal 1
    forgetting  F = mean over j < T of max over i < T of R[i, j] - R[T, j]          lower is better, ideal 0
    backward    B = mean over j < T of R[T, j] - R[j, j]                            higher is better; ideal none
    gap         G = mean over j of S[j] - R[T, j], S of a model of all texts        lower is better, ideal 0

T is the last period. F is at least -1 and never below -B, as the maximum is over R[j, j] too; it is below 0 where all
of the past is known better than ever before.

Sources: A and B of Lopez-Paz and Ranzato 2017, arXiv:1706.08840, section 2; F of Chaudhry et al. 2018,
arXiv:1801.10112, section 4.1. In these papers periods are tasks of their own; here they share their labels, so a later
period can also teach what an earlier one asked, and B may well be above 0.

Shape legend: S seeds, P periods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustnlp import checks
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.federated.learning_curves import over_seeds
from trustnlp.results import Direction, Finding

Floats = NDArray[np.float64]


def average(scores: ArrayLike) -> float:
    """A: the mean score after the last period on all test sets, in [0, 1]; scores (P, P), or (1, P) of one model."""
    return float(_scores(scores, square=False)[-1].mean())


def forgetting(scores: ArrayLike) -> float:
    """F: how much of what was once known of earlier periods is lost at the end, in [-1, 1].

    Raises:
        ArgumentError: not square, or a single period.
    """
    past = _scores(scores, periods=2)[:, :-1]
    return float((past[:-1].max(0) - past[-1]).mean())


def backward_transfer(scores: ArrayLike) -> float:
    """B: what later periods have added to the score on earlier ones, in [-1, 1].

    Raises:
        ArgumentError: not square, or a single period.
    """
    found = _scores(scores, periods=2)
    return float((found[-1] - found.diagonal())[:-1].mean())


def all_data_gap(scores: ArrayLike, static: ArrayLike) -> float:
    """G: by how much a model that had all texts at once is better at the end, in [-1, 1].

    Args:
        scores: (P, P).
        static: (P,) the score of that model on the same test sets.

    Raises:
        ArgumentError: lengths that differ.
        GuaranteeError: a score that is NaN or outside [0, 1].
    """
    found, other = _scores(scores), _scores(np.atleast_2d(np.asarray(static, dtype=float)), square=False)
    checks.same_length(scores=found[-1], static=other[-1])
    return float((other[-1] - found[-1]).mean())


def findings(scores: ArrayLike, static: ArrayLike | None = None, *, level: float = 0.95) -> tuple[Finding, ...]:
    """`average-accuracy`, `forgetting`, `backward-transfer` and `all-data-gap`, means over seeds.

    Args:
        scores: (S, P, P) of each seed, P >= 2.
        static: (S, P) of models of all texts, with the same seeds; without it there is no gap.
        level: of Student's intervals over seeds, in (0, 1).

    Returns:
        Findings; `details["scores"]` of the first has the mean matrix.
    """
    matrices = np.asarray(scores, dtype=float)
    if matrices.ndim != 3:
        raise ArgumentError("scores", "of shape (seeds, periods, periods)", matrices.shape)

    def finding(id: str, title: str, measure: Callable[[Any], float], **about: Any) -> Finding:
        return over_seeds(id, title, [measure(each) for each in matrices], level=level, **about)

    low: dict[str, Any] = {"direction": Direction.LOWER, "ideal": 0.0}
    found = [
        finding(
            "average-accuracy",
            "Score after the last period, mean over the test sets of all periods",
            average,
            direction=Direction.HIGHER,
            ideal=1.0,
            details={"scores": matrices.mean(0).tolist()},
        ),
        finding("forgetting", "Score lost on earlier periods since it was best", forgetting, **low),
        finding(
            "backward-transfer",
            "Change of the score on earlier periods since they ended",
            backward_transfer,
            direction=Direction.HIGHER,
        ),
    ]
    if static is not None:
        pairs = list(zip(matrices, np.asarray(static, dtype=float), strict=True))
        title = "By how much a model of all texts at once is better at the end"
        found.append(
            over_seeds("all-data-gap", title, [all_data_gap(one, other) for one, other in pairs], level=level, **low)
        )
    return tuple(found)


def _scores(scores: ArrayLike, *, square: bool = True, periods: int = 1) -> Floats:
    found = np.asarray(scores, dtype=float)
    if found.ndim != 2 or found.size == 0 or (square and found.shape[0] != found.shape[1]):
        raise ArgumentError("scores", "a row for each period and a column for each test set", found.shape)
    if len(found) < periods:
        raise ArgumentError("scores", f"of at least {periods} periods", len(found))
    if not ((found >= 0) & (found <= 1)).all():
        raise GuaranteeError("scores are NaN or outside [0, 1]", "measure them on texts with answers")
    return found
