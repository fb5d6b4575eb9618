"""Poisson sampling: every example enters a step independently with one public rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trustnlp import checks
from trustnlp.errors import ArgumentError
from trustnlp.models.protocol import Draw
from trustnlp.randomness import Streams


@dataclass(frozen=True)
class PoissonSampler:
    """Draws of a private run; step t's draw depends on the seed and t alone.

    A draw may be empty, and an empty draw is a step like any other.

    Args:
        examples: N, how many there are.
        expected_batch: L; each example enters with q = L / N.
        steps: of the whole run.
        streams: of which the stream `sampling` is used.
    """

    examples: int
    expected_batch: int
    steps: int
    streams: Streams

    def __post_init__(self) -> None:
        for name in ("examples", "expected_batch", "steps"):
            checks.at_least(name, getattr(self, name), 1)
        checks.within("expected_batch", self.expected_batch, 1, self.examples)

    @property
    def steps_per_epoch(self) -> int:
        """How many steps see every example once in expectation."""
        return max(1, round(self.examples / self.expected_batch))

    def draw(self, step: int) -> Draw:
        """The examples of `step`, in ascending order."""
        if not 0 <= step < self.steps:
            raise ArgumentError("step", f"one of the plan's steps 0 to {self.steps - 1}", step)
        chance = self.streams.numpy("sampling", step).random(self.examples)
        return Draw(step, np.flatnonzero(chance < self.expected_batch / self.examples), self)

    def __iter__(self) -> Iterator[Draw]:
        """All draws, in order."""
        return map(self.draw, range(self.steps))
