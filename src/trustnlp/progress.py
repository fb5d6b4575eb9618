"""How long work says where it is: one callback, silent unless somebody listens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Progress(Protocol):
    """Called as work advances: `done` of `total` in `stage`, with the newest `figures` to show."""

    def __call__(self, stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        """Hears of one advance."""


def silent(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
    """The listener that says nothing."""
