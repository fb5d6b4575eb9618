"""Banded matrix factorisation: noise that later rounds take back in part (DP-FTRL).

The server needs sums over all rounds so far, A X with A lower-triangular of ones and X (T, P) the rounds' sums of
updates. With A = B C it releases A (X + C^-1 Z): the Gaussian mechanism on C X, so that noise is correlated over rounds
and cancels in the sums (Kairouz et al. 2021, arXiv 2103.00039; Denisov et al. 2022, arXiv 2202.08312).

    C = M D     M   Toeplitz, lower-triangular, of b bands c_0 = 1, c_1, ...
                D   1 / norm of each column of M, or the identity
    streamed    y_t = z_t - sum_{j=1}^{b-1} c_j y_{t-j},  noise of round t = y_t / D_t: memory of b - 1 vectors
    sensitivity a device takes part at most once in any b consecutive rounds, so the columns that it meets share no
                row: its square is exactly the largest sum of squared norms over k such columns
                (Choquette-Choo et al. 2023, arXiv 2306.08153, section 4)

b = 1 is independent noise; b = T with one participation is the case of tree aggregation, with less error than a tree.
Toeplitz square roots as closed form: Fichtenberger, Henzinger and Upadhyay 2023, arXiv 2202.11205.

Shape legend: T rounds, b bands, K devices, P entries of an update.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.signal import lfilter
from torch import Tensor

from trustnlp import checks
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.federated.device_plan import noise_source
from trustnlp.randomness import Streams

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Factorisation:
    """A factor C of the workload of sums.

    Args:
        rounds: T.
        coefficients: c_0 = 1, c_1, ..., the b <= T bands.
        normalised: whether columns are scaled to norm 1, so that the last rounds use as much of the sensitivity.

    Raises:
        ArgumentError: no coefficient, the first is not 1, one is not finite, or more than rounds.
    """

    rounds: int
    coefficients: tuple[float, ...]
    normalised: bool = False

    def __post_init__(self) -> None:
        checks.at_least("rounds", self.rounds, 1)
        checks.not_empty("coefficients", self.coefficients)
        object.__setattr__(self, "coefficients", tuple(map(float, self.coefficients)))
        if self.coefficients[0] != 1 or not all(map(math.isfinite, self.coefficients)):
            raise ArgumentError("coefficients", "finite numbers of which the first is 1", self.coefficients[:3])
        if self.bands > self.rounds:
            raise ArgumentError("coefficients", f"at most one for each of {self.rounds} rounds", self.bands)

    @property
    def bands(self) -> int:
        """b."""
        return len(self.coefficients)

    def scales(self) -> Array:
        """(T,) 1 / D, what the noise of each round is multiplied by at last."""
        return self._norms() if self.normalised else np.ones(self.rounds)

    def dense(self) -> Array:
        """(T, T) C itself: for oracles, not for use."""
        toeplitz = np.zeros((self.rounds, self.rounds))
        for lag, coefficient in enumerate(self.coefficients):
            toeplitz += coefficient * np.eye(self.rounds, k=-lag)
        return toeplitz / self.scales()

    def sensitivity(self, separation: int, participations: int) -> float:
        """By how much, in the Frobenius norm, C X moves for one device with updates of norm 1 at most; exact.

        Args:
            separation: at most one round of any so many consecutive ones holds the device; b or more.
            participations: k, the most rounds that hold it.

        Raises:
            GuaranteeError: fewer rounds of separation than bands, so that columns overlap.
        """
        checks.at_least("participations", participations, 1)
        if checks.at_least("separation", separation, 1) < self.bands:
            raise GuaranteeError(
                f"{self.bands} bands reach over {self.bands} rounds, in which a device may take part again after "
                f"{separation}",
                f"use at most {separation} bands, or keep devices {self.bands} rounds apart",
            )
        squares = np.ones(self.rounds) if self.normalised else self._norms() ** 2
        best = np.zeros(self.rounds + 1)  # best[t]: the largest sum over columns below t
        for _ in range(min(participations, -(-self.rounds // separation))):
            before = np.concatenate([np.zeros(separation), best])[1 : self.rounds + 1]
            best = np.concatenate([[0.0], np.maximum.accumulate(before + squares)])
        return float(math.sqrt(best[-1]))

    def deviations(self) -> Array:
        """(T,) standard deviation of the noise in the sum over all rounds so far, for Z of standard deviation 1."""
        inverse, scales = _inverse(np.array(self.coefficients), self.rounds), self.scales()
        variances = np.zeros(self.rounds)
        for column in range(self.rounds):
            variances[column:] += np.cumsum(scales[column:] * inverse[: self.rounds - column]) ** 2
        return np.sqrt(variances)

    def error(self, separation: int, participations: int) -> float:
        """Root mean square over rounds of the noise in the sums, where noise is calibrated to the sensitivity.

        Per unit of z C. Lower is better; independent noise has sqrt(k (T + 1) / 2).
        """
        return self.sensitivity(separation, participations) * float(np.sqrt((self.deviations() ** 2).mean()))

    def _norms(self) -> Array:
        """(T,) norms of the Toeplitz matrix's columns: the last ones are cut off."""
        sums = np.cumsum(np.square(self.coefficients))
        return np.sqrt(sums[np.minimum(np.arange(self.rounds, 0, -1), self.bands) - 1])


def independent(rounds: int) -> Factorisation:
    """C = I: fresh noise in every round."""
    return Factorisation(rounds, (1.0,))


def square_root(rounds: int, bands: int) -> Factorisation:
    """The first bands of the square root of A, whose coefficients are binom(2j, j) / 4^j."""
    steps = np.arange(1, checks.at_least("bands", bands, 1))
    return Factorisation(rounds, (1.0, *np.cumprod((2 * steps - 1) / (2 * steps))))


@lru_cache(maxsize=32)
def least_error(rounds: int, bands: int, separation: int, participations: int) -> Factorisation:
    """The factor of least error among square root and optimised Toeplitz, each with normalised columns and without.

    The optimised one minimises, by L-BFGS from the square root, the mean square of the sums' noise times the square of
    a whole column's norm (Toeplitz factors as in McKenna 2024, arXiv 2405.15913; banded square roots: Kalinin and
    Lampert 2024, arXiv 2405.13763).
    """
    root = square_root(rounds, bands)
    tails = [root.coefficients[1:]]
    if bands > 1:
        tails.append(minimize(_log_error, np.array(tails[0]), args=(rounds,), jac=True, method="L-BFGS-B").x)
    candidates = [Factorisation(rounds, (1.0, *tail), normalised) for tail in tails for normalised in (False, True)]
    return min(candidates, key=lambda factor: factor.error(separation, participations))


def tree_error(rounds: int) -> float:
    """`Factorisation.error` of a binary tree of sums, for one participation: what correlated noise should beat.

    A round's update is in floor(log2 T) + 1 nodes, and the sum over t rounds adds up as many as t has binary ones
    (Dwork et al. 2010, Chan et al. 2011; as in Kairouz et al. 2021 without Honaker's refinement).
    """
    nodes = sum(t.bit_count() for t in range(1, checks.at_least("rounds", rounds, 1) + 1)) / rounds
    return math.sqrt(rounds.bit_length() * nodes)


class CorrelatedNoise:
    """The rows of C^-1 Z, one after the other, with memory of b - 1 of them.

    Args:
        factorisation: C.
        std: of the entries of Z.
        noise: `seeded` or `secure`.
        streams: of the seeded noise.
    """

    def __init__(self, factorisation: Factorisation, std: float, noise: str, streams: Streams) -> None:
        self._factorisation = factorisation
        self._scales = factorisation.scales()
        self._std = checks.positive("std", std)
        self._source = noise_source(noise, streams)
        self._recent: deque[Tensor] = deque(maxlen=factorisation.bands - 1)  # y_{t-1} first
        self.round = 0

    def next(self, like: Tensor) -> Tensor:
        """(P,) the noise of the next round, of the type of `like` (P,).

        Raises:
            ArgumentError: all rounds are drawn, or P is not that of the rounds before.
        """
        if self.round >= self._factorisation.rounds:
            raise ArgumentError("round", f"one of {self._factorisation.rounds} that the plan has", self.round)
        if self._recent and self._recent[0].shape != like.shape:
            raise ArgumentError("total", f"of the shape of the rounds before, {self._recent[0].shape}", like.shape)
        row = torch.zeros_like(like)
        self._source.release_({"factorised": row}, self.round, {"factorised": self._std}, 1.0)
        for coefficient, earlier in zip(self._factorisation.coefficients[1:], self._recent, strict=False):
            row.add_(earlier, alpha=-coefficient)
        self._recent.appendleft(row)
        self.round += 1
        return row * float(self._scales[self.round - 1])

    def state(self) -> dict[str, Any]:
        """What `restore` goes on from. As secret as the noise itself, of which it is the memory."""
        return {"round": self.round, "recent": [row.clone() for row in self._recent]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`; seeded noise then has the bits of a run that was never stopped."""
        self.round = int(state["round"])
        self._recent.clear()
        self._recent.extend(row.clone() for row in state["recent"])


def _inverse(coefficients: Array, rounds: int) -> Array:
    """(T,) first column of the inverse of the Toeplitz matrix of these coefficients."""
    impulse = np.zeros(rounds)
    impulse[0] = 1.0
    found: Array = lfilter([1.0], coefficients, impulse)
    return found


def _log_error(tail: Array, rounds: int) -> tuple[float, Array]:
    """Half the log of (sum_t (T - t) beta_t^2) |c|^2 and its gradient, c = (1, tail), beta = A C^-1's first column.

    d beta / d c_j is -beta * C^-1, delayed by j rounds.
    """
    coefficients = np.concatenate([[1.0], tail])
    beta = np.cumsum(_inverse(coefficients, rounds))
    slope = lfilter([1.0], coefficients, beta)
    weighted = np.arange(rounds, 0, -1) * beta
    square, norm = float(weighted @ beta), float(coefficients @ coefficients)
    pull = np.array([weighted[j:] @ slope[: rounds - j] for j in range(1, len(coefficients))])
    return (math.log(square) + math.log(norm)) / 2, -pull / square + tail / norm
