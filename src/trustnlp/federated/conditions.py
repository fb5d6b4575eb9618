"""The world that devices live in: who is there, who comes back, when, and with what.

    available   a share of the devices in each round, by time of day in the device's own zone
    dropout     a chosen device that never comes back, independently of everything
    seconds     startup + texts * epochs / speed + bytes / bandwidth; speed and bandwidth lognormal over devices
    late        back after the deadline, when the round is over
    surplus     back after as many as the round was made for (over-selection)
    faulty      a few devices whose updates are NaN, or a million times too large, in every round

Everything is a hash of the seed, the round and the device, so that a device meets the same fate whoever else was
chosen, and 10^7 devices need no memory. The figures are assumptions about a world, and none of them is measured.

What stays unbiased when devices are lost, given the chosen ones (`rescaled`):

    lost independently, at one rate     `inverse` weights w / (1 - dropout): exactly, for all weights
                                        `share`, w over the sum of those back: exactly where all weights are equal and
                                        somebody came back; a ratio of sums, nearly unbiased, where they are not
    late, or surplus                    nothing: slow devices are slow for a reason, such as many texts
    private training                    `none`: a fixed denominator, whoever is lost

Shape legend: K devices, m of a cohort.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from trustnlp import checks
from trustnlp.errors import ArgumentError
from trustnlp.federated import options
from trustnlp.federated.cohort import Cohort, Devices
from trustnlp.federated.device_hash import normal, uniform
from trustnlp.randomness import Streams

Floats = NDArray[np.float64]
RESCALINGS = ("share", "inverse", "none")
HUGE = 1e6  # by how much an update of such a device is too large


class Fate(IntEnum):
    """What became of a chosen device."""

    RETURNED = 0
    DROPPED_OUT = 1
    LATE = 2
    SURPLUS = 3


@dataclass(frozen=True)
class Conditions:
    """One world; the default is one where everybody is there and comes back, after some seconds.

    Args:
        availability: share of the devices that can be chosen, on average over the day, in (0, 1].
        swing: how far the share swings about that over the day, relative to it, in [0, 1]; at 0.5 it is highest
            at 1.5 times the average, when it is noon where the device is. The highest may not exceed 1.
        rounds_per_day: > 0.
        dropout: the probability that a chosen device never comes back, in [0, 1).
        startup: seconds before a device begins, >= 0.
        speed: texts a second of the median device, > 0.
        speed_spread: standard deviation of its logarithm, >= 0.
        bandwidth: bytes a second of the median device, > 0.
        bandwidth_spread: standard deviation of its logarithm, >= 0.
        deadline: seconds after which nobody is waited for, > 0; infinite for none.
        over_selection: how many devices are invited for each that is wanted, >= 1.
        nan, huge: shares of the devices that are faulty, in [0, 1]; together at most 1.
    """

    availability: float = 1.0
    swing: float = 0.0
    rounds_per_day: float = 24.0
    dropout: float = 0.0
    startup: float = 1.0
    speed: float = 100.0
    speed_spread: float = 0.5
    bandwidth: float = 1e6
    bandwidth_spread: float = 0.5
    deadline: float = math.inf
    over_selection: float = 1.0
    nan: float = 0.0
    huge: float = 0.0

    def __post_init__(self) -> None:
        for name in ("availability", "swing", "dropout", "nan", "huge"):
            checks.within(name, getattr(self, name), 0, 1)
        for name in ("availability", "rounds_per_day", "speed", "bandwidth"):
            checks.positive(name, getattr(self, name))
        for name in ("startup", "speed_spread", "bandwidth_spread"):
            checks.non_negative(name, getattr(self, name))
        if not self.deadline > 0:
            raise ArgumentError("deadline", "a number > 0, or infinite", self.deadline)
        if self.dropout == 1:
            raise ArgumentError("dropout", "below 1", self.dropout, "somebody has to come back")
        if checks.positive("over_selection", self.over_selection) < 1:
            raise ArgumentError("over_selection", "a number >= 1", self.over_selection)
        if self.availability * (1 + self.swing) > 1 + 1e-9:
            highest = self.availability * (1 + self.swing)
            raise ArgumentError("swing", "such that availability * (1 + swing) is at most 1", highest)
        if self.nan + self.huge > 1:
            raise ArgumentError("huge", "such that nan + huge is at most 1", self.nan + self.huge)

    def available(self, round: int, streams: Streams) -> Callable[[Devices], NDArray[np.bool_]] | None:
        """Who can be chosen in `round`, for `Selector.select`: a function of devices, or None if everybody can."""
        if self.availability == 1:
            return None
        key, zones = _key(streams, "available", round), _key(streams, "zone")

        def there(devices: Devices) -> NDArray[np.bool_]:
            day = round / self.rounds_per_day + uniform(zones, devices)  # whole at the device's noon
            share = self.availability * (1 + self.swing * np.cos(2 * np.pi * day))
            return np.asarray(uniform(key, devices) < share)

        return there

    def invited(self, wanted: int) -> int:
        """How many devices to choose for a round that wants `wanted` of them back."""
        return math.ceil(checks.at_least("wanted", wanted, 1) * self.over_selection - 1e-9)

    def seconds(self, devices: Devices, texts: NDArray[np.int64], streams: Streams, *, size: float = 0) -> Floats:
        """(m,) how long devices take for `texts`, (m,), all epochs counted, and to move `size` bytes in all."""
        speed = self.speed * np.exp(self.speed_spread * normal(_key(streams, "speed"), devices))
        bandwidth = self.bandwidth * np.exp(self.bandwidth_spread * normal(_key(streams, "bandwidth"), devices))
        return np.asarray(self.startup + texts / speed + size / bandwidth)

    def damage(self, devices: Devices, streams: Streams) -> Floats:
        """(m,) by what each device multiplies its updates, in every round: 1, NaN if faulty, or a million."""
        place = uniform(_key(streams, "fault"), devices)
        return np.select([place < self.nan, place < self.nan + self.huge], [np.nan, HUGE], 1.0)

    def outcome(
        self,
        round: int,
        devices: Devices,
        texts: NDArray[np.int64],
        streams: Streams,
        *,
        wanted: int | None = None,
        size: float = 0,
    ) -> Outcome:
        """What becomes of the chosen devices in a round.

        Args:
            round: 0-based.
            devices: (m,) their numbers.
            texts: (m,) how many texts each trains on, all epochs counted.
            streams: of the run; same streams, same fates.
            wanted: after how many the round is over; None waits for all.
            size: bytes that each sends and gets, in all.
        """
        checks.same_length(devices=devices, texts=texts)
        seconds = self.seconds(devices, texts, streams, size=size)
        fates = np.full(len(devices), Fate.RETURNED, np.int8)
        fates[seconds > self.deadline] = Fate.LATE
        fates[uniform(_key(streams, "dropout", round), devices) < self.dropout] = Fate.DROPPED_OUT
        back = np.flatnonzero(fates == Fate.RETURNED)
        in_order = back[np.argsort(seconds[back], kind="stable")]
        enough = len(devices) if wanted is None else checks.at_least("wanted", wanted, 1)
        fates[in_order[enough:]] = Fate.SURPLUS
        in_order = in_order[:enough]
        last = float(seconds[in_order[-1]]) if len(in_order) else 0.0
        # Nobody tells the server that a device is lost, so it waits where there is a deadline to wait for.
        waits = len(in_order) < enough and math.isfinite(self.deadline)
        ended = self.deadline if waits else last
        return Outcome(devices, fates, seconds, self.damage(devices, streams), ended)


@dataclass(frozen=True, eq=False)
class Outcome:
    """How a round went.

    Args:
        devices: (m,) those chosen.
        fates: (m,) `Fate` of each.
        seconds: (m,) when each was or would have been back.
        damage: (m,) by what each device multiplies its update.
        round_seconds: after which the round was over.
    """

    devices: Devices
    fates: NDArray[np.int8]
    seconds: Floats
    damage: Floats
    round_seconds: float

    @property
    def returned(self) -> NDArray[np.bool_]:
        """(m,) who came back in time."""
        return np.asarray(self.fates == Fate.RETURNED)

    @property
    def reasons(self) -> Mapping[str, int]:
        """How many of the others were lost, by reason."""
        lost = {fate: int((self.fates == fate).sum()) for fate in Fate if fate is not Fate.RETURNED}
        return {fate.name.lower().replace("_", " "): count for fate, count in lost.items() if count}


def rescaled(cohort: Cohort, returned: NDArray[np.bool_], how: str = "share", dropout: float = 0.0) -> Cohort:
    """The cohort of those who came back, with weights that make up for the others.

    Args:
        cohort: as it was chosen.
        returned: (m,) who came back.
        how: `share` keeps the sum of the weights (the ratio estimator of Hajek 1971); `inverse` divides each by
            1 - dropout (Horvitz and Thompson 1952, JASA 47:663-685); `none` leaves them. What each keeps unbiased is
            told at the head of this module. Nobody back is a cohort without devices.
        dropout: the rate at which devices are lost, in [0, 1), for `inverse` alone.

    Raises:
        ArgumentError: another way, lengths that differ, a dropout out of range.
    """
    checks.one_of("how", how, RESCALINGS)
    checks.same_length(cohort=cohort, returned=returned)
    checks.within("dropout", dropout, 0, 1 - 1e-9)
    weights = cohort.weights[returned]
    if how == "inverse":
        weights = weights / (1 - dropout)
    elif how == "share" and weights.sum() > 0:
        weights = weights * (cohort.weights.sum() / weights.sum())
    return Cohort(cohort.devices[returned], weights)


def parse(text: str) -> Conditions:
    """The world that a command line writes, such as `dropout=0.3,deadline=60`.

    Raises:
        ArgumentError: an unknown option, or a value that breaks its rule.
    """
    return options.record("conditions", text, Conditions)


def _key(streams: Streams, name: str, *index: int) -> int:
    return streams.key(f"conditions-{name}", *index)


IDEAL = Conditions()
