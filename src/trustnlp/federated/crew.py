"""Who visits the devices: the worker of this process, or several processes with one worker each.

Tasks are handed out as workers become free, and come back in their order, so that sums are made in one order. A worker
computes on one thread, wherever it is, as sums over several threads differ in their last bits.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from trustnlp.errors import RunError
from trustnlp.federated.algorithm import Algorithm
from trustnlp.federated.local_training import Vectors
from trustnlp.federated.population import Population
from trustnlp.federated.private_rounds import Plan
from trustnlp.federated.worker import Returned, Task, Worker
from trustnlp.models.worker_processes import begin, hear, in_words, one_thread, team
from trustnlp.randomness import Streams


class Crew(Protocol):
    """All workers of a simulation."""

    def weights(self) -> Tensor:
        """(P,) a copy of the weights in this process's model."""
        ...

    def load(self, weights: Tensor) -> None:
        """Puts the server's weights into this process's model."""
        ...

    def run(self, tasks: Sequence[Task], weights: Tensor, received: Vectors) -> Iterator[Returned]:
        """What comes back of each task, in their order."""
        ...

    def losses(self, devices: np.ndarray, weights: Tensor) -> np.ndarray:
        """(m,) each device's mean loss at the server's weights."""
        ...


@dataclass(frozen=True)
class Setting:
    """What every worker is made from.

    Args:
        model, population, algorithm, streams, plan: see `Worker`.
    """

    model: nn.Module
    population: Population
    algorithm: Algorithm
    streams: Streams
    plan: Plan | None = None

    def worker(self) -> Worker:
        """A worker of this process; the model is its own from now on."""
        return Worker(self.model, self.population, self.algorithm, self.streams, self.plan)


@contextmanager
def crew(setting: Setting, workers: int) -> Iterator[Crew]:
    """One worker here, or `workers` processes, which end with the block.

    Raises:
        ArgumentError: several workers, and something in the setting that cannot be sent to them.
        RunError: a process died, or failed at a task.
    """
    with one_thread():
        if workers == 1:
            yield _Here(setting.worker())
            return
        with team(workers, _serve, setting, name="population, model and algorithm") as members:
            yield _Processes(setting.worker(), members)


class _Here:
    """The worker of this process."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def weights(self) -> Tensor:
        return self._worker.parameters.values.clone()

    def load(self, weights: Tensor) -> None:
        self._worker.parameters.values.copy_(weights)

    def run(self, tasks: Sequence[Task], weights: Tensor, received: Vectors) -> Iterator[Returned]:
        for task in tasks:
            yield self._worker.run(task, weights, received)

    def losses(self, devices: np.ndarray, weights: Tensor) -> np.ndarray:
        return self._worker.losses(devices, weights)


@dataclass
class _Member:
    """One process: the round whose weights it has, and the number of the task that it is at."""

    process: SpawnProcess
    round: int | None = None
    task: int | None = None


class _Processes(_Here):
    """Several processes; the worker of this one computes only what is asked between rounds."""

    def __init__(self, worker: Worker, members: dict[Connection, SpawnProcess]) -> None:
        super().__init__(worker)
        self._members = {connection: _Member(process) for connection, process in members.items()}
        for connection, process in members.items():
            hear(connection, process)  # that it has its setting: until then, tasks would get between the parts of it

    def run(self, tasks: Sequence[Task], weights: Tensor, received: Vectors) -> Iterator[Returned]:
        given = iter(range(len(tasks)))
        shared = _arrays({"": weights, **received})
        for connection in self._members:
            self._give(connection, given, tasks, shared)
        early: dict[int, Returned] = {}
        for expected in range(len(tasks)):
            while expected not in early:
                busy = [each for each, member in self._members.items() if member.task is not None]
                ready = wait(busy)
                for connection in [each for each in busy if each in ready]:
                    number, returned = self._take(connection)
                    early[number] = returned
                    self._give(connection, given, tasks, shared)
            yield early.pop(expected)

    def _give(
        self, connection: Connection, given: Iterator[int], tasks: Sequence[Task], shared: dict[str, np.ndarray]
    ) -> None:
        """The next task, and the server's weights where this worker has none of this round."""
        member = self._members[connection]
        member.task = next(given, None)
        if member.task is not None:
            task = tasks[member.task]
            kept = {device: _arrays(own) for device, own in task.kept.items()}
            connection.send((replace(task, kept={}), kept, None if member.round == task.number else shared))
            member.round = task.number

    def _take(self, connection: Connection) -> tuple[int, Returned]:
        member = self._members[connection]
        answer = hear(connection, member.process)
        if isinstance(answer, str):
            raise RunError(f"a worker failed: {answer}", "mend it and run again: checkpoints are kept")
        assert member.task is not None  # noqa: S101 (only those at a task are waited for)
        total, reports, kept = answer
        return member.task, Returned(_tensors(total), reports, {device: _tensors(own) for device, own in kept.items()})


def _serve(connection: Connection) -> None:
    """A worker: one task after another, until it is ended."""
    worker = begin(connection).worker()
    connection.send("ready")
    server: Vectors = {}
    while True:
        try:
            task, kept, shared = connection.recv()
        except EOFError:
            return
        server = server if shared is None else _tensors(shared)
        task = replace(task, kept={device: _tensors(own) for device, own in kept.items()})
        connection.send(_attempt(worker, task, server))


def _attempt(worker: Worker, task: Task, server: Vectors) -> Any:
    """The parts of what is returned, by value; or an error in words."""
    received = {name: vector for name, vector in server.items() if name}
    try:
        found = worker.run(task, server[""], received)
    except Exception as error:
        traceback.print_exc()
        return in_words(error)
    return _arrays(found.total), found.reports, {device: _arrays(own) for device, own in found.kept.items()}


# Tensors would be sent as handles of shared memory, which ends with the process that made it.


def _arrays(vectors: Vectors) -> dict[str, np.ndarray]:
    return {name: vector.cpu().numpy() for name, vector in vectors.items()}


def _tensors(arrays: dict[str, np.ndarray]) -> Vectors:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
