"""Losses of a target and its shadows with a known truth: phi = difficulty + shift * inside + noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Planted:
    """Losses of N texts and M others, of which the target and each of K shadows saw a random half of the N."""

    losses: np.ndarray  # (N,)
    truth: np.ndarray  # (N,) bool
    shadows: np.ndarray  # (K, N)
    inside: np.ndarray  # (K, N) bool
    population: np.ndarray  # (M,)
    population_shadows: np.ndarray  # (K, M)

    def sides(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores of members and of non-members."""
        return scores[self.truth], scores[~self.truth]


def plant(seed=0, texts=2000, shadows=16, shift=2.0, difficulty=3.0, noise=1.0, population=1000) -> Planted:
    generator = np.random.default_rng(seed)
    # Each text in exactly half of the shadows; the target's own half is drawn apart from theirs.
    inside = np.argsort(generator.random((shadows, texts)), axis=0) < shadows // 2
    truth = generator.random(texts) < 0.5
    hard, others = difficulty * generator.normal(size=texts), difficulty * generator.normal(size=population)

    def losses(level, seen, shape):
        return np.logaddexp(0, -(level + shift * seen + noise * generator.normal(size=shape)))  # p = 1 / (1 + e^-phi)

    return Planted(
        losses(hard, truth, texts),
        truth,
        losses(hard, inside, (shadows, texts)),
        inside,
        losses(others, 0, population),
        losses(others, 0, (shadows, population)),
    )
