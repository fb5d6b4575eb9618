"""A server that waits for no round: it steps whenever enough answers have come, however old the weights they began at.

    second     0        1        2        3        4        5
    device 0   |-- 0 -->         |-- 1 -->         |-- 2 -->
    device 1   |------- 0 ------>         |------- 1 ------>       two at a time, a buffer of two;
    device 2            |----------- 0 ----------->                each arrow has the version at which the device began
    server     version 0         1                 2        3

When a device is done is a matter of the conditions alone, so the order of all answers is known before anything is
computed. An answer is computed when it comes, together with those of other devices that began at the same version, by
all workers at once. Every visit depends on its version and device alone, so neither the number of workers nor a kill
changes a bit: a checkpoint holds who is under way and the weights where they began, and what was computed early is
computed again.

Shape legend: K devices.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.federated.algorithm import Algorithm, Round
from trustnlp.federated.cohort import Devices, Selection, answers
from trustnlp.federated.conditions import Conditions
from trustnlp.federated.crew import Crew, Setting
from trustnlp.federated.fedbuff import FedBuff
from trustnlp.federated.local_training import Vectors
from trustnlp.federated.private_rounds import Plan
from trustnlp.federated.screening import Screen
from trustnlp.federated.simulator import RoundRecord, Server
from trustnlp.federated.worker import Report, Returned, Task

MEMORY = 32  # newest changes whose median length says which ones are too long; a buffer may be too few for that
WAITS = 10  # devices whose end a step awaits, for each answer that it needs


@dataclass(frozen=True, order=True)
class Flight:
    """A device under way; the first to end comes first, and of those that end at once the one of the lowest number.

    Args:
        ends: seconds since the simulation began.
        device: its number in the population.
        version: of the weights at which it began, the number of the server's step.
        weight: that the selection gives it, 1 unless it is an importance.
        seconds: that it takes.
        texts: that it trains on, passes counted.
        lost: why it will not come back; empty if it will.
    """

    ends: float
    device: int
    version: int
    weight: float
    seconds: float
    texts: int
    lost: str


@dataclass(frozen=True)
class Landed:
    """A flight that has ended, and what it brought; nothing if the device was lost."""

    flight: Flight
    returned: Returned | None

    @property
    def usable(self) -> bool:
        """Whether its answer may join the buffer."""
        return self.returned is not None and not self.returned.reports[0].problem

    @property
    def reports(self) -> Sequence[Report]:
        """Of its visit, one or none."""
        return () if self.returned is None else self.returned.reports


class AsynchronousServer(Server):
    """A `Server` whose rounds are the steps between which a buffer fills.

    A place that becomes free is filled by one draw of the selection among the devices that are there and not under way,
    after all answers that come at the same time have been taken. From one version a device begins once, as it would
    answer the same again. The weights of a selection count as far as they are importances; of a cohort of one, all
    others are 1. Where nobody is left to begin, a step is made of what has come.

    Availability and dropout are those of the round whose number the version is.
    """

    def __init__(
        self, setting: Setting, selection: Selection, conditions: Conditions, hands: Crew, folder: Path | None = None
    ) -> None:
        self._buffered = _checked(setting.algorithm, conditions, setting.plan)
        super().__init__(setting, selection, conditions, hands, folder)
        self._clock = 0.0
        self._begun = 0  # flights so far
        self._flying: list[Flight] = []  # a heap
        self._asked: set[int] = set()  # devices that have begun at the newest version
        self._versions: dict[int, Vectors] = {}  # what was sent to those under way; the weights are under ""
        self._screen = Screen(MEMORY)
        self._early: dict[int, Returned] = {}  # computed answers of devices under way

    def round(self) -> RoundRecord:
        """Waits until the buffer is full and takes one step."""
        begun, since = time.perf_counter(), self._clock
        landed = self._wait()
        good = [one for one in landed if one.usable]
        if good:
            self._follow_buffer(good)
        reports = [report for one in landed for report in one.reports]
        self._learn(reports, {one.flight.device: one.flight.seconds for one in landed})
        self._record(
            reports,
            np.array([one.flight.texts for one in landed], dtype=np.int64),
            Counter(one.flight.lost for one in landed if one.flight.lost),
            self._clock - since,
            [self._staleness(one) for one in good],
        )
        self._refuse_to_stand_still()
        self.number += 1
        self._asked.clear()
        needed = {flight.version for flight in self._flying}
        self._versions = {version: sent for version, sent in self._versions.items() if version in needed}
        self._seconds += time.perf_counter() - begun
        return self._records[-1]

    def _wait(self) -> list[Landed]:
        """All flights that end before the buffer is full.

        As long as nothing is known of lengths, also before as many answers have come as devices train at once: a step
        of a few could not tell which of them is too long, and one that went wrong would not be mended by the next.
        """
        known = self._screen.ceiling is not None
        size = self._buffered.buffer if known else max(self._buffered.buffer, self._algorithm.cohort)
        landed: list[Landed] = []
        while sum(one.usable for one in landed) < size and len(landed) < WAITS * size and self._anyone():
            landed.append(self._land(heapq.heappop(self._flying)))
        if known:
            return landed
        came = iter(self._screen.sift([one.returned for one in landed if one.returned is not None]))
        return [one if one.returned is None else Landed(one.flight, next(came)) for one in landed]

    def _anyone(self) -> bool:
        """Whether any device is under way, once free places are filled."""
        if not self._flying or self._flying[0].ends > self._clock:
            self._fill()
        return bool(self._flying)

    def _fill(self) -> None:
        while len(self._flying) < self._algorithm.cohort:
            chosen = self._selector.select(
                self.number,
                1,
                self._streams.numpy("selection", self._begun),
                available=self._free(),
                probe=lambda devices: self._hands.losses(devices, self.weights),
            )
            if not len(chosen):
                return
            for device, weight in zip(chosen.devices.tolist(), chosen.weights.tolist(), strict=True):
                self._begin(device, weight)

    def _free(self) -> Callable[[Devices], NDArray[np.bool_]]:
        """Which devices could begin."""
        there = self._conditions.available(self.number, self._streams)
        busy = np.array(sorted({flight.device for flight in self._flying} | self._asked), dtype=np.int64)
        return lambda devices: ~np.isin(devices, busy) & answers(there, devices)

    def _begin(self, device: int, weight: float) -> None:
        texts = self._algorithm.local.texts_of(int(self._population.sizes[device]))
        outcome = self._conditions.outcome(
            self.number, np.array([device]), np.array([texts]), self._streams, size=2 * self.weights.nbytes
        )
        seconds, back = float(outcome.seconds[0]), bool(outcome.returned[0])
        # Of a lost device nobody tells the server, which gives it up at the deadline where there is one.
        waits = seconds if back or math.isinf(self._conditions.deadline) else self._conditions.deadline
        lost = "" if back else next(iter(outcome.reasons))
        flight = Flight(self._clock + waits, device, self.number, weight, seconds, texts, lost)
        heapq.heappush(self._flying, flight)
        self._asked.add(device)
        self._begun += 1
        if self.number not in self._versions:
            sent = {"": self.weights, **self._algorithm.sent(self._state)}
            self._versions[self.number] = {name: vector.clone() for name, vector in sent.items()}

    def _land(self, flight: Flight) -> Landed:
        self._clock = flight.ends
        if flight.lost:
            return Landed(flight, None)
        if flight.device not in self._early:
            self._compute(flight)
        returned = self._early.pop(flight.device)
        return Landed(flight, returned if self._screen.ceiling is None else self._screen.sift([returned])[0])

    def _compute(self, flight: Flight) -> None:
        """The answer that has come and the next few of the same version, by all workers at once."""
        later = [
            each
            for each in self._flying
            if each.version == flight.version and not each.lost and each.device not in self._early
        ]
        those = [flight, *heapq.nsmallest(self._buffered.buffer - 1, later)]
        damage = self._conditions.damage(np.array([each.device for each in those]), self._streams).tolist()
        tasks = [
            Task(flight.version, (each.device,), (1.0,), damage={} if factor == 1 else {each.device: factor})
            for each, factor in zip(those, damage, strict=True)
        ]
        sent = self._versions[flight.version]
        received = {name: vector for name, vector in sent.items() if name}
        for each, returned in zip(those, self._hands.run(tasks, sent[""], received), strict=True):
            self._early[each.device] = returned

    def _staleness(self, one: Landed) -> int:
        return self.number - one.flight.version

    def _follow_buffer(self, good: Sequence[Landed]) -> None:
        """The server's step from the mean of the discounted answers."""
        factors = [one.flight.weight * self._buffered.discount(self._staleness(one)) / len(good) for one in good]
        mean: Vectors = {}
        for one, factor in zip(good, factors, strict=True):
            for name, vector in cast(Returned, one.returned).total.items():
                mean[name] = mean[name].add_(vector, alpha=factor) if name in mean else vector * factor
        self._update(mean, Round(self.number, len(self._population.sizes), len(good), sum(factors)))

    # --- going on ----------------------------------------------------------------------------------------------

    def _memory(self) -> dict[str, Any]:
        return super()._memory() | {
            "clock": self._clock,
            "begun": self._begun,
            "flying": [list(astuple(flight)) for flight in sorted(self._flying)],
            "versions": {str(version): sent for version, sent in self._versions.items()},
        }

    def _remember(self, state: Mapping[str, Any]) -> None:
        super()._remember(state)
        self._clock, self._begun = state["clock"], state["begun"]
        self._flying = [Flight(*each) for each in state["flying"]]  # sorted, and so a heap
        self._versions = {int(version): self._here(sent) for version, sent in state["versions"].items()}

    def _here(self, sent: Mapping[str, Tensor]) -> Vectors:
        return {name: vector.to(self.weights.device) for name, vector in sent.items()}


def _checked(algorithm: Algorithm, conditions: Conditions, privacy: Plan | None) -> FedBuff:
    if not isinstance(algorithm, FedBuff) or algorithm.remembers:
        rule = "FedBuff itself, with nothing around it and nothing kept on devices"
        raise ArgumentError("algorithm", rule, type(algorithm).__name__)
    if privacy is not None:
        raise GuaranteeError(
            "devices that begin whenever a place is free are neither drawn by themselves nor counted by rounds, as "
            "plans of user-level privacy take for granted",
            "use an algorithm of rounds, such as FedAvg",
        )
    if conditions.over_selection > 1:
        why = "an asynchronous server has no round that could end without somebody"
        raise ArgumentError("over_selection", "1", conditions.over_selection, why)
    return algorithm
