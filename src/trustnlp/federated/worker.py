"""Devices visited one after another by one worker, their answers screened, bounded and added up as they come.

A worker has one model, trained in place again and again, and keeps one sum, whatever the cohort: no update of a device
outlives its visit.

Shape legend: P entries of all trained parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from trustnlp.federated.algorithm import CHANGE, Algorithm
from trustnlp.federated.flat_parameters import FlatParameters
from trustnlp.federated.local_training import Answer, Vectors, visit
from trustnlp.federated.population import Population
from trustnlp.federated.private_rounds import Plan, bounded
from trustnlp.models.evaluation import losses
from trustnlp.randomness import Streams

NOT_FINITE = "not finite"
TOO_LONG = "too long"


@dataclass(frozen=True)
class Task:
    """Devices for one worker in one round, in a fixed order.

    Args:
        number: of the round.
        devices: their numbers in the population.
        weights: with which each answer joins the sum.
        longest: a change of a larger 2-norm is left out.
        clip_norm: of this round, where a plan adapts it.
        kept: what devices have kept since their last visit, by device.
        damage: factor by which a device's answer is spoilt, by device: to test what comes of it.
    """

    number: int
    devices: tuple[int, ...]
    weights: tuple[float, ...]
    longest: float = math.inf
    clip_norm: float | None = None
    kept: Mapping[int, Vectors] = field(default_factory=dict)
    damage: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What a server hears of one visit beside the sum.

    Args:
        device, weight: as in the task.
        texts: of the device.
        steps: that it made.
        loss: mean over its texts, in its steps.
        length: 2-norm of its change.
        problem: why its answer is not in the sum; empty where it is.
    """

    device: int
    weight: float
    texts: int
    steps: int
    loss: float
    length: float
    problem: str = ""


@dataclass(frozen=True)
class Returned:
    """What one worker gives back of a task.

    Args:
        total: weighted sums of the answers' vectors; empty where no answer was usable.
        reports: one for each device of the task, in its order.
        kept: what devices keep from now on.
    """

    total: Vectors
    reports: tuple[Report, ...]
    kept: Mapping[int, Vectors]


class Worker:
    """One model and one flat vector, with which devices are visited.

    Args:
        model: overwritten by every visit.
        population: of devices.
        algorithm: its hooks.
        streams: every visit draws from these at (round, device).
        plan: of user-level privacy; what a device sends is bounded by it before it is added up.
    """

    def __init__(
        self,
        model: nn.Module,
        population: Population,
        algorithm: Algorithm,
        streams: Streams,
        plan: Plan | None = None,
    ) -> None:
        self.parameters = FlatParameters(model)
        self._model, self._population, self._algorithm = model, population, algorithm
        self._streams, self._plan = streams, plan

    def run(self, task: Task, weights: Tensor, received: Vectors) -> Returned:
        """Visits the devices of `task`, beginning each visit at the server's `weights` (P,)."""
        total: Vectors = {}
        reports, kept = [], {}
        for device, weight in zip(task.devices, task.weights, strict=True):
            memory = {name: vector.clone() for name, vector in task.kept.get(device, {}).items()}
            data = self._population.data(device)
            answer = visit(
                self._algorithm,
                self._model,
                self.parameters,
                data,
                start=weights,
                received=received,
                kept=memory,
                number=task.number,
                device=device,
                streams=self._streams,
            )
            answer = _spoilt(answer, task.damage.get(device, 1.0))
            length = norm(answer.vectors[CHANGE])
            problem = _problem(answer, length, task.longest)
            reports.append(Report(device, weight, len(data), answer.steps, answer.loss, length, problem))
            if not problem:
                kept[device] = memory
                _add(total, self._sent(answer.vectors, task.clip_norm), weight)
        return Returned(total, tuple(reports), kept)

    def losses(self, devices: np.ndarray, weights: Tensor) -> np.ndarray:
        """(m,) each device's mean loss at the server's weights, which it computes itself."""
        self.parameters.values.copy_(weights)
        return np.array([losses(self._model, self._population.data(int(device))).mean() for device in devices])

    def _sent(self, vectors: Vectors, clip_norm: float | None) -> Vectors:
        return vectors if self._plan is None else bounded(self._plan, vectors, clip_norm)


def _add(total: Vectors, vectors: Vectors, weight: float) -> None:
    for name, vector in vectors.items():
        if name in total:
            total[name].add_(vector, alpha=weight)
        else:
            total[name] = vector * weight


def norm(vector: Tensor) -> float:
    """The 2-norm; NaN or infinite exactly where an entry is."""
    found = float(torch.linalg.vector_norm(vector))
    return found if math.isfinite(found) else float(torch.linalg.vector_norm(vector.double()))


def _spoilt(answer: Answer, factor: float) -> Answer:
    if factor == 1.0:
        return answer
    return Answer({name: vector * factor for name, vector in answer.vectors.items()}, answer.loss, answer.steps)


def _problem(answer: Answer, length: float, longest: float) -> str:
    beside = (norm(vector) for name, vector in answer.vectors.items() if name != CHANGE)
    if not all(math.isfinite(one) for one in (length, *beside)):
        return NOT_FINITE
    return TOO_LONG if length > longest else ""
