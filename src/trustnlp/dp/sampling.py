"""Poisson sampling: every unit enters a step independently with one public rate; draws may be truncated to a cap."""

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
        examples: N, how many units (examples or users) there are.
        expected_batch: L; each unit enters with q = L / N.
        steps: of the whole run.
        streams: of which the stream `sampling` is used.
        largest_batch: B; of a larger draw B units are kept, every subset of B as likely as any other. None keeps all.
    """

    examples: int
    expected_batch: int
    steps: int
    streams: Streams
    largest_batch: int | None = None

    def __post_init__(self) -> None:
        for name in ("examples", "expected_batch", "steps"):
            checks.at_least(name, getattr(self, name), 1)
        checks.within("expected_batch", self.expected_batch, 1, self.examples)
        if self.largest_batch is not None:
            checks.at_least("largest_batch", self.largest_batch, self.expected_batch)

    @property
    def steps_per_epoch(self) -> int:
        """How many steps see every unit once in expectation."""
        return max(1, round(self.examples / self.expected_batch))

    def draw(self, step: int) -> Draw:
        """The examples of `step`, in ascending order."""
        if not 0 <= step < self.steps:
            raise ArgumentError("step", f"one of the plan's steps 0 to {self.steps - 1}", step)
        generator = self.streams.numpy("sampling", step)
        indices = np.flatnonzero(generator.random(self.examples) < self.expected_batch / self.examples)
        if self.largest_batch is not None and len(indices) > self.largest_batch:
            indices = np.sort(generator.choice(indices, self.largest_batch, replace=False))
        return Draw(step, indices, self)

    def __iter__(self) -> Iterator[Draw]:
        """All draws, in order."""
        return map(self.draw, range(self.steps))
