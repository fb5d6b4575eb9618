"""What many attacked trainings of one kind say: how often a secret comes out, how much of it, and whether by chance.

Every training has a fresh secret and is one unit of every interval. A secret is uniform and independent of all else,
so under "the model has learned nothing of it" three figures have a known law: the number of exact guesses is binomial
with at most 1/|R|, the number of right tokens is binomial with 1/|alphabet|, and ranks are uniform. (Of a secret that
is known to be none of 500 others, the second holds nearly.)

    leaks                   one of the three contradicts its law at 5%, corrected for looking at three
    no leak found           none does, and were there a leak it would be small: the intervals of exact guesses and of
                            exposure end below `_MOST_EXACT` and half of the secret's bits
    insufficient evidence   else, as with fewer than some 17 trainings that give nothing away
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from trustnlp.attacks.exposure import Exposure, expected_by_chance, memorisation_p_value
from trustnlp.results import Direction, Finding, Verdict
from trustnlp.uncertainty import Interval, bounded_mean, median, proportion

LEVEL = 0.95
_MOST_EXACT, _MOST_EXPOSED = 0.2, 0.5
_SOURCE = "Parikh et al. 2022, arXiv 2203.13920"


@dataclass(frozen=True)
class Attacked:
    """One model after its training and the attack on it; holds no secret.

    Args:
        length: tokens of the secret.
        alphabet: how many tokens could stand at each place.
        right: tokens that the inverted model puts in their places, 0..length.
        rank: of the secret among `candidates`, 1 = the model's first guess.
        candidates: how many secrets were ranked.
        accuracy, slot_f1: on the test split, in [0, 1].
        epochs: after how many the weights were taken.
    """

    length: int
    alphabet: int
    right: int
    rank: int
    candidates: int
    accuracy: float
    slot_f1: float
    epochs: int

    def arrays(self) -> dict[str, np.ndarray]:
        """As what a job returns."""
        return {name: np.array(value) for name, value in vars(self).items()}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Attacked:
        """From what a job returned."""
        return cls(**{name: value.item() for name, value in arrays.items()})

    @property
    def exact(self) -> bool:
        """Whether the inverted model gave the whole secret."""
        return self.right == self.length


def findings(attacked: Sequence[Attacked], details: Mapping[str, Any]) -> list[Finding]:
    """The cell's findings, its verdict with the first; all of one length and alphabet.

    Args:
        attacked: at least 6 trainings.
        details: what else a reader should know of the cell.
    """
    n, first = len(attacked), attacked[0]
    exact = sum(one.exact for one in attacked)
    verdict, evidence = judge(attacked)
    ranks = {"ranks": [one.rank for one in attacked], "candidates": first.candidates}
    epochs = {"epochs": [one.epochs for one in attacked]}
    return [
        _finding(
            "inversion-exact-match",
            "Secrets that come out exactly",
            exact / n,
            proportion(exact, n, LEVEL),
            n,
            ideal=1 / first.candidates,
            verdict=verdict,
            source=f"{_SOURCE}; model inversion; Clopper-Pearson interval",
            details={**evidence, **ranks, **epochs, **details},
        ),
        _mean(
            "inversion-hamming",
            "Tokens of the secret that come out wrong",
            [1 - one.right / one.length for one in attacked],
            1.0,
            ideal=1 - 1 / first.alphabet,
            direction=Direction.HIGHER,
            source=f"{_SOURCE}; normalised Hamming distance; Hoeffding's interval over secrets",
        ),
        _median(
            "canary-rank",
            "Place of the secret among all that it could have been",
            [one.rank / one.candidates for one in attacked],
            ideal=0.5,
            direction=Direction.HIGHER,
            source="every candidate scored, or 10,000 at random; median over secrets, interval by order statistics",
        ),
        _mean(
            "canary-exposure",
            "Exposure of planted secrets",
            [_exposure(one).bits for one in attacked],
            math.log2(first.candidates),
            ideal=expected_by_chance(first.candidates),
            unit="bits",
            source="Carlini et al. 2019, arXiv:1802.08232; Hoeffding's interval over secrets",
        ),
        *(
            _median(
                id,
                title,
                values,
                ideal=1.0,
                direction=Direction.HIGHER,
                source="on the test split; median over trainings, interval by order statistics",
            )
            for id, title, values in (
                ("label-accuracy", "Label accuracy", [one.accuracy for one in attacked]),
                ("slot-f1", "Slot F1", [one.slot_f1 for one in attacked]),
            )
        ),
    ]


def judge(attacked: Sequence[Attacked]) -> tuple[Verdict, dict[str, float]]:
    """The verdict by the rule at the top, and the p-values it rests on."""
    n, first = len(attacked), attacked[0]
    exact, right = sum(one.exact for one in attacked), sum(one.right for one in attacked)
    exposures = [_exposure(one) for one in attacked]
    p_values = {
        "exact_p_value": float(stats.binom.sf(exact - 1, n, 1 / first.candidates)),
        "tokens_p_value": float(stats.binom.sf(right - 1, n * first.length, 1 / first.alphabet)),
        "ranks_p_value": memorisation_p_value(exposures),
    }
    p_value = min(1.0, len(p_values) * min(p_values.values()))
    evidence = {"p_value": p_value, **p_values}
    if p_value <= 1 - LEVEL:
        return Verdict.LEAKS, evidence
    most = math.log2(first.candidates)
    exposed = bounded_mean([one.bits for one in exposures], 0, most, LEVEL).high
    small = exposed < _MOST_EXPOSED * most and proportion(exact, n, LEVEL).high < _MOST_EXACT
    return (Verdict.NO_LEAK_FOUND if small else Verdict.INSUFFICIENT_EVIDENCE), evidence


def _exposure(one: Attacked) -> Exposure:
    return Exposure(one.rank, one.candidates, 0)


def _mean(id: str, title: str, values: Sequence[float], most: float, **fields: Any) -> Finding:
    return _finding(id, title, float(np.mean(values)), bounded_mean(values, 0, most, LEVEL), len(values), **fields)


def _median(id: str, title: str, values: Sequence[float], **fields: Any) -> Finding:
    return _finding(id, title, float(np.median(values)), median(values, LEVEL), len(values), **fields)


def _finding(id: str, title: str, value: float, interval: Interval, n: int, **fields: Any) -> Finding:
    return Finding(id, title, value, interval.low, interval.high, LEVEL, n, **{"direction": Direction.LOWER, **fields})
