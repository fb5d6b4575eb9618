"""Which answers of devices are left out of a sum: those whose change is far longer than the others'.

A device that is broken, or that means harm, can send any vector; one alone would move a mean without bound. So a change
may be 10 times as long as the median of what came before. Where nothing has come before, answers are held back until
there are some to be compared with each other. So long as most are sound, the median is.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from trustnlp.federated.worker import TOO_LONG, Returned

OUTLIER = 10.0


class Screen:
    """What is known of the lengths of changes.

    Args:
        memory: how many of the newest lengths count; of the newest call of `learn` all if None.
    """

    def __init__(self, memory: int | None = None) -> None:
        self._memory = memory
        self._lengths: deque[float] = deque(maxlen=memory)
        self.ceiling: float | None = None  # how long a change may be; None as long as nothing is known

    def sift(self, returned: Sequence[Returned]) -> list[Returned]:
        """Answers of single devices, empty where the change is too long: for the ceiling, or beside each other."""
        ceiling = self.ceiling
        if ceiling is None:
            ceiling = _longest(part.reports[0].length for part in returned)
        return list(returned) if ceiling is None else [_within(part, ceiling) for part in returned]

    def learn(self, lengths: Iterable[float]) -> None:
        """Takes note of how long changes were, those that were left out among them; NaN and infinity tell nothing."""
        if self._memory is None:
            self._lengths.clear()
        self._lengths.extend(length for length in lengths if math.isfinite(length))
        self.ceiling = _longest(self._lengths) or self.ceiling

    def state(self) -> dict[str, Any]:
        """What `restore` goes on from."""
        return {"ceiling": self.ceiling, "lengths": list(self._lengths)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`."""
        self.ceiling = state["ceiling"]
        self._lengths = deque(state["lengths"], maxlen=self._memory)


def _longest(lengths: Iterable[float]) -> float | None:
    finite = [length for length in lengths if math.isfinite(length)]
    return OUTLIER * float(np.median(finite)) or None if finite else None


def _within(part: Returned, ceiling: float) -> Returned:
    (report,) = part.reports
    return Returned({}, (replace(report, problem=TOO_LONG),), {}) if report.length > ceiling else part
