"""Relaxations: from free scores of V candidates to weights that a gradient can follow, (..., V) to (..., V).

    Fixed                  softmax of the scores at one temperature
    Annealed               the same, from a high temperature to a low one
    GumbelStraightThrough  one candidate, drawn by its softmax; backwards as if it were the softmax itself

Weights lie in the simplex: at one of its corners, a mixture of words is a word. The lower the temperature, the nearer
the corners.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from trustnlp import checks


class Relaxation(Protocol):
    """How scores become weights."""

    def __call__(self, scores: Tensor, share: float, noise: Callable[[], Tensor]) -> Tensor:
        """Weights (..., V) of `scores` (..., V), none negative, with sum 1.

        Args:
            scores: free.
            share: of the search's steps that are over, in [0, 1].
            noise: draws standard Gumbel noise of the shape of the scores.
        """
        ...


@dataclass(frozen=True)
class Fixed:
    """softmax(scores / tau).

    Args:
        tau: the temperature, > 0.
    """

    tau: float = 1.0

    def __post_init__(self) -> None:
        checks.positive("tau", self.tau)

    def __call__(self, scores: Tensor, share: float, noise: Callable[[], Tensor]) -> Tensor:
        """See `Relaxation`."""
        del share, noise
        return (scores / self.tau).softmax(-1)


@dataclass(frozen=True)
class Annealed:
    """softmax(scores / tau), with tau going from `start` to `end` by equal factors.

    Args:
        start, end: temperatures, > 0.
    """

    start: float = 1.0
    end: float = 0.1

    def __post_init__(self) -> None:
        checks.positive("start", self.start)
        checks.positive("end", self.end)

    def __call__(self, scores: Tensor, share: float, noise: Callable[[], Tensor]) -> Tensor:
        """See `Relaxation`."""
        return Fixed(self.start * (self.end / self.start) ** share)(scores, share, noise)


@dataclass(frozen=True)
class GumbelStraightThrough:
    """A draw of one candidate, anew at each step; its gradient is that of softmax((scores + noise) / tau).

    Source: Jang, Gu and Poole 2017, "Categorical Reparameterization with Gumbel-Softmax", arXiv 1611.01144, section
    2.2 (straight-through).

    Args:
        tau: the temperature, > 0.
    """

    tau: float = 1.0

    def __post_init__(self) -> None:
        checks.positive("tau", self.tau)

    def __call__(self, scores: Tensor, share: float, noise: Callable[[], Tensor]) -> Tensor:
        """See `Relaxation`."""
        del share
        soft = ((scores + noise()) / self.tau).softmax(-1)
        drawn = F.one_hot(soft.argmax(-1), scores.shape[-1]).to(soft.dtype)
        return drawn + (soft - soft.detach())


def gumbel(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise, float64, on the generator's device."""
    drawn = torch.empty(shape, dtype=torch.float64, device=generator.device)
    return -drawn.exponential_(generator=generator).log()
