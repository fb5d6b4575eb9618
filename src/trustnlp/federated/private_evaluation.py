"""Evaluation without access to data: accuracy, loss and slot F1 of a model on devices, from one noised sum.

A figure is a ratio: right labels over texts, losses over texts, 2 tp over 2 tp + fp + fn of slots. Each device knows
its numerator and denominator, and which cell of each grouping it is in (decile of activity, group). It sends

    w (a, 1),   a = numerator / denominator in [0, 1],   w = min(denominator, most) / most in [0, 1]

for the whole population and once for its cell of every grouping, all in one vector; elsewhere that is 0. So a device
counts as `most` texts at most, and its vector has norm sqrt(2 x metrics x (1 + groupings)) at most.

**Intervals** hold both kinds of chance. With noise of deviation s in a sum A of w a and a sum W of w, and devices that
are themselves a sample, R is in the interval where (Fieller 1954 for the noise, Wilson 1927 for the sample)

    (A - R W)^2 <= z^2 (W R (1 - R) + s^2 (1 + R^2))

W R (1 - R) is at least the sum of squares of w (a - R), as w <= 1 and 0 <= a <= 1, so no further sum needs to be
released. With one text a device it is Wilson's interval, widened by noise; with many it is wider than need be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from trustnlp import checks
from trustnlp.errors import ArgumentError
from trustnlp.federated.private_sum import NoisySum, PrivateSum
from trustnlp.randomness import Streams
from trustnlp.results import Direction, Finding, Verdict

Array = NDArray[np.float64]
SOURCE = "noised sum over devices; intervals of noise (Fieller) and sample (Wilson)"


@dataclass(frozen=True)
class DeviceMetric:
    """A ratio that devices can tell about themselves.

    Args:
        id: kebab-case, such as `label-accuracy`.
        title: in words.
        most: > 0, how much of the denominator (texts, slots) one device may count for; a public constant.
        scale: > 0, the largest ratio that counts, such as 10 nats of a loss; above, a device counts as that.
        unit, direction, ideal: as in a Finding.
    """

    id: str
    title: str
    most: float
    scale: float = 1.0
    unit: str = "fraction"
    direction: Direction = Direction.HIGHER
    ideal: float | None = 1.0

    def __post_init__(self) -> None:
        checks.positive("most", self.most)
        checks.positive("scale", self.scale)

    def pair(self, numerator: float, denominator: float) -> tuple[float, float]:
        """w a and w, see the head of this module; 0 and 0 of a device without anything to count.

        Raises:
            ArgumentError: a figure is negative or not finite.
        """
        checks.non_negative("denominator", float(denominator))
        checks.non_negative("numerator", float(numerator))
        if denominator == 0:
            return 0.0, 0.0
        weight = min(denominator, self.most) / self.most
        return weight * min(1.0, numerator / denominator / self.scale), weight


@dataclass(frozen=True)
class PrivateEvaluation:
    """What is asked of devices, and how the answers are added up.

    Guarantee: that of `summing`, with one release, for one device, under adding or removing it.

    Args:
        metrics: one or more.
        groupings: name -> public names of its cells; every device is in one cell of each.
        summing: Gaussian, with the bound sqrt(2 x metrics x (1 + groupings)).

    Raises:
        ArgumentError: no metric, an id twice, a grouping without cells, or another bound.
    """

    metrics: tuple[DeviceMetric, ...]
    groupings: Mapping[str, tuple[str, ...]]
    summing: PrivateSum

    def __post_init__(self) -> None:
        checks.not_empty("metrics", self.metrics)
        for name, cells in self.groupings.items():
            checks.not_empty(f"groupings[{name}]", cells)
        ids = [metric.id for metric in self.metrics]
        if len(set(ids)) < len(ids):
            raise ArgumentError("metrics", "of different ids", ids)
        bound = _bound(len(self.metrics), len(self.groupings))
        if self.summing.bound != bound or self.summing.kind != "gaussian":
            raise ArgumentError("summing", f"Gaussian with the bound {bound:.6g}", self.summing)

    @classmethod
    def for_budget(
        cls,
        epsilon: float,
        delta: float,
        metrics: Iterable[DeviceMetric],
        groupings: Mapping[str, Iterable[str]] | None = None,
    ) -> PrivateEvaluation:
        """The one with the least noise that spends at most `epsilon` at `delta`."""
        asked, cells = tuple(metrics), {name: tuple(found) for name, found in (groupings or {}).items()}
        checks.not_empty("metrics", asked)
        return cls(asked, cells, PrivateSum.for_budget(epsilon, delta, _bound(len(asked), len(cells))))

    def vector(self, figures: Mapping[str, tuple[float, float]], cells: Mapping[str, int] | None = None) -> Array:
        """(d,) what one device sends.

        Args:
            figures: metric -> (numerator, denominator) on the device's own texts.
            cells: grouping -> number of the cell that the device is in.

        Raises:
            ArgumentError: other metrics or groupings than were asked for, a cell that does not exist, or a bad figure.
        """
        cells = cells or {}
        if figures.keys() != {metric.id for metric in self.metrics}:
            raise ArgumentError("figures", "of exactly the metrics that were asked for", sorted(figures))
        if cells.keys() != self.groupings.keys():
            raise ArgumentError("cells", "of exactly the groupings that were asked for", sorted(cells))
        for name, cell in cells.items():
            checks.within(f"cells[{name}]", int(cell), 0, len(self.groupings[name]) - 1)
        pairs = np.array([metric.pair(*figures[metric.id]) for metric in self.metrics])
        found = np.zeros((self._rows, *pairs.shape))
        found[[0, *(start + int(cells[name]) for name, start in self._starts())]] = pairs
        return found.ravel()

    def release(self, vectors: Iterable[ArrayLike], streams: Streams, level: float = 0.95) -> list[Finding]:
        """The findings of one evaluation: each metric over all devices, then by each grouping.

        Args:
            vectors: of each device, once; bounded again, as no device is trusted.
            streams: of the noise; another one, or a child, for every evaluation.
            level: coverage of each interval; of a grouping's cells, of all at once.
        """
        return self.findings(
            self.summing.release(self.summing.total(vectors), streams.child("private evaluation")), level
        )

    def findings(self, noisy: NoisySum, level: float = 0.95) -> list[Finding]:
        """The findings that a released sum gives."""
        sums = noisy.values.reshape(self._rows, len(self.metrics), 2)
        found = []
        for place, metric in enumerate(self.metrics):
            found.append(self._overall(metric, _cell(metric, "", sums[0, place], noisy.std, level)))
            for name, start in self._starts():
                names = self.groupings[name]
                each = 1 - (1 - level) / len(names)
                rows = [_cell(metric, cell, sums[start + i, place], noisy.std, each) for i, cell in enumerate(names)]
                found.append(self._worst(metric, name, rows, level))
        return found

    @property
    def _rows(self) -> int:
        return 1 + sum(map(len, self.groupings.values()))

    def _starts(self) -> Iterator[tuple[str, int]]:
        """Each grouping and its first row."""
        start = 1
        for name, cells in self.groupings.items():
            yield name, start
            start += len(cells)

    def _overall(self, metric: DeviceMetric, row: Mapping[str, Any]) -> Finding:
        return self._finding(metric, f"on-device-{metric.id}", f"{metric.title} on devices", row)

    def _worst(self, metric: DeviceMetric, grouping: str, rows: list[dict[str, Any]], level: float) -> Finding:
        told = [row for row in rows if row["value"] is not None]
        worst = max if metric.direction is Direction.LOWER else min
        row = worst(told, key=lambda row: row["value"]) if told else rows[0]
        details = {"cells": rows, "worst": row["cell"] if told else None, "joint_level": level}
        title = f"{metric.title} on devices, in the worst cell by {grouping}"
        return self._finding(metric, f"on-device-{metric.id}-by-{grouping}", title, row, details)

    def _finding(
        self,
        metric: DeviceMetric,
        id: str,
        title: str,
        row: Mapping[str, Any],
        details: Mapping[str, Any] | None = None,
    ) -> Finding:
        told = row["value"] is not None
        return Finding(
            id,
            title,
            row["value"],
            row["low"],
            row["high"],
            row["level"],
            n=round(row["weight"]) if told else None,
            unit=metric.unit,
            direction=metric.direction,
            ideal=metric.ideal,
            verdict=Verdict.MEASURED if told else Verdict.INSUFFICIENT_EVIDENCE,
            source=SOURCE,
            details={**(details or {}), "privacy": self.summing.guarantee().as_dict(), "most": metric.most},
        )


def noisy_ratio(part: float, whole: float, std: float, level: float = 0.95) -> tuple[float, float, float] | None:
    """A / W in [0, 1] and the ends of its interval, or None where W cannot be told from 0.

    Args:
        part, whole: A and W, sums of w a and of w, each with independent noise.
        std: s, of the noise in each; 0 gives Wilson's interval.
        level: coverage of the population's ratio, in (0, 1).
    """
    reach = float(stats.norm.isf((1 - level) / 2))
    if whole <= reach * std or whole <= 0:
        return None
    value = min(max(part / whole, 0.0), 1.0)
    noise = (reach * std) ** 2
    square = whole**2 + reach**2 * whole - noise
    middle = (part * whole + reach**2 * whole / 2) / square
    half = math.sqrt(max(0.0, middle**2 - (part**2 - noise) / square))
    return value, max(0.0, min(middle - half, value)), min(1.0, max(middle + half, value))


def activity_cell(size: int, edges: ArrayLike) -> int:
    """In which cell of activity a device with `size` texts is: the number of ascending public edges <= size."""
    return int(np.searchsorted(np.asarray(edges), size, side="right"))


def _cell(metric: DeviceMetric, name: str, sums: Array, std: float, level: float) -> dict[str, Any]:
    found = noisy_ratio(float(sums[0]), float(sums[1]), std, level)
    value, low, high = (None, None, None) if found is None else (metric.scale * figure for figure in found)
    return {"cell": name, "value": value, "low": low, "high": high, "level": level, "weight": float(sums[1])}


def _bound(metrics: int, groupings: int) -> float:
    return math.sqrt(2 * metrics * (1 + groupings))
