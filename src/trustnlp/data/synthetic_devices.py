"""The synthetic assistant corpus on devices that come, go and change: every text is made when it is asked for.

For federated learning over consecutive periods, with the truth known:

    who is there   `users` devices in each period; a share `churn` of them leaves before the next, and as many new ones
                   join, who take over the places of those that left in the order of activity
    activity       the r-th most active of a period has texts ~ r ** -activity, at least one; between two periods a
                   share `activity_drift` of the devices that stay shuffle their places
    intent         P(intent | device, period) ~ base * taste * exp(slope * t + lean * s): slopes are `drift`, as in
                   `synthetic`; s is from 1 for the most active device of the period to -1 for the least, and
                   `correlation` is how far half of the intents lean to active devices and half to the others
    text           as in `synthetic`: habits, groups, new slot values in later periods, ambiguous labels, noise

A text is a training text or a test text by a hash of its words, so that no test text is ever on a device, whichever
devices and periods are looked at. Ten million devices need two
vectors for each period, and no text.

Shape legend: K devices that were ever there, I intents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustnlp import checks
from trustnlp.data import grammar
from trustnlp.data.corpus import Example
from trustnlp.data.synthetic import BASE, INTENTS, Parameters, Word, Wording, favourites, label_of, moments
from trustnlp.errors import ArgumentError, CorpusError
from trustnlp.randomness import Streams

TEST_SHARE = 0.1  # of all texts that can be said
_ATTEMPTS = 2_000  # to say something on the right side of the hash
ABSENT = -1


@dataclass(frozen=True)
class SyntheticDevices:
    """Devices over periods.

    Args:
        parameters: `size` training texts in each period on `users` devices; there are no canaries.
        churn: share of the devices that leave after each period, in [0, 1].
        activity_drift: share of those that stay whose activities are shuffled among them, in [0, 1].
        correlation: largest difference that activity makes to an intent's log-weight, either way, >= 0; 0 is none.
        test_size: test texts of each period, >= 1.

    Raises:
        ArgumentError: a parameter breaks its rule; canaries; fewer texts than devices.
    """

    parameters: Parameters
    churn: float = 0.0
    activity_drift: float = 0.0
    correlation: float = 0.0
    test_size: int = 1_000

    def __post_init__(self) -> None:
        checks.within("churn", self.churn, 0, 1)
        checks.within("activity_drift", self.activity_drift, 0, 1)
        checks.non_negative("correlation", self.correlation)
        checks.at_least("test_size", self.test_size, 1)
        if self.parameters.canaries:
            raise ArgumentError("parameters", "without canaries", "canaries=True", "plant them in one device's texts")
        if self.parameters.size < self.parameters.users:
            raise ArgumentError("size", f"at least one text for each of {self.parameters.users}", self.parameters.size)

    def __len__(self) -> int:
        return self.parameters.periods

    @property
    def tests(self) -> int:
        """How many test sets there are, one for each period."""
        return len(self)

    @property
    def devices(self) -> int:
        """K, of all periods together."""
        return self.parameters.users + (len(self) - 1) * self._leavers

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels that texts can have, sorted."""
        return tuple(sorted({*INTENTS, *grammar.DECISION} - {grammar.REQUEST}))

    def places(self, period: int) -> NDArray[np.int64]:
        """(K,) each device's place in the order of activity, 0 for the most active; -1 where it is not there."""
        return self._places[self._checked(period)]

    def sizes(self, period: int) -> NDArray[np.int64]:
        """(K,) how many training texts each device has in `period`."""
        places = self.places(period)
        return np.where(places == ABSENT, 0, self._by_place[places])

    def mix(self, device: int, period: int) -> NDArray[np.float64]:
        """(I,) P(intent | device, period), in the order of `synthetic.INTENTS`.

        Raises:
            ArgumentError: the device is not there in this period.
        """
        place = int(self.places(period)[device])
        if place == ABSENT:
            raise ArgumentError("device", f"one that is there in period {period}", device)
        active = 1 - 2 * (place + 0.5) / self.parameters.users
        tilt = self._slopes * moments(len(self))[period] + self._leans * active
        weights = BASE * self._speaker(device).taste * np.exp(tilt)
        return np.asarray(weights / weights.sum())

    def texts(self, period: int, device: int) -> tuple[Example, ...]:
        """The training texts of `device` in `period`; the same at every call."""
        count = int(self.sizes(period)[device])
        return self._said(period, device, count, testing=False) if count else ()

    def test(self, period: int) -> tuple[Example, ...]:
        """Test texts of `period`, each of a device drawn by its share of the period's texts."""
        sizes = self.sizes(period)
        drawn = self._streams.numpy("test devices", period).multinomial(self.test_size, sizes / sizes.sum())
        said = (self._said(period, int(k), int(drawn[k]), testing=True) for k in np.flatnonzero(drawn))
        return tuple(example for examples in said for example in examples)

    def device_of(self, user: str) -> int:
        """The device whose texts carry this user's name."""
        return int(user.removeprefix("u"))

    # --- who is there ------------------------------------------------------------------------------------------

    @property
    def _streams(self) -> Streams:
        return Streams(self.parameters.seed).child("synthetic-devices")

    @property
    def _leavers(self) -> int:
        return round(self.churn * self.parameters.users)

    def _checked(self, period: int) -> int:
        if not 0 <= period < len(self):
            raise ArgumentError("period", f"from 0 to {len(self) - 1}", period)
        return period

    @cached_property
    def _by_place(self) -> NDArray[np.int64]:
        """(users,) training texts by place: one each, the others by Zipf's law, adding up to `size`."""
        users, size = self.parameters.users, self.parameters.size
        weights = np.arange(1, users + 1) ** -float(self.parameters.activity)
        ends = np.round(np.cumsum(weights / weights.sum()) * (size - users)).astype(np.int64)
        return 1 + np.diff(ends, prepend=0)

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """(periods, K) the place of each device, one period after another."""
        users = self.parameters.users
        found = np.full((len(self), self.devices), ABSENT)
        found[0, :users] = self._streams.numpy("places", 0).permutation(users)
        for period in range(1, len(self)):
            draws, now = self._streams.numpy("places", period), found[period]
            now[:] = found[period - 1]
            left = draws.choice(np.flatnonzero(now != ABSENT), self._leavers, replace=False)
            joined = users + (period - 1) * self._leavers + np.arange(self._leavers)
            stayed = np.setdiff1d(np.flatnonzero(now != ABSENT), left)
            now[joined], now[left] = draws.permutation(now[left]), ABSENT
            moved = draws.choice(stayed, round(self.activity_drift * len(stayed)), replace=False)
            now[moved] = draws.permutation(now[moved])
        return found

    @cached_property
    def _slopes(self) -> NDArray[np.float64]:
        drift = self.parameters.drift
        return self._streams.numpy("slopes").uniform(-drift, drift, size=len(INTENTS))

    @cached_property
    def _leans(self) -> NDArray[np.float64]:
        """(I,) `correlation` for half of the intents, its negative for the others."""
        half = np.where(np.arange(len(INTENTS)) % 2, self.correlation, -self.correlation)
        return self._streams.numpy("leans").permutation(half)

    # --- what is said ------------------------------------------------------------------------------------------

    def _speaker(self, device: int) -> _Speaker:
        return _Speaker(self.parameters, self._streams.numpy("device", device))

    def _said(self, period: int, device: int, count: int, *, testing: bool) -> tuple[Example, ...]:
        draws = self._streams.numpy("test" if testing else "train", period, device)
        speaker = self._speaker(device)
        intents = draws.choice(len(INTENTS), size=count, p=self.mix(device, period)).tolist()
        times, judged = draws.random((2, count)).tolist()
        wording = Wording(self.parameters, speaker, draws)
        return tuple(
            self._example(wording, speaker.groups[0], INTENTS[intent], period + time, luck, device, testing)
            for intent, time, luck in zip(intents, times, judged, strict=True)
        )

    def _example(
        self, wording: Wording, group: str, intent: str, time: float, luck: float, device: int, testing: bool
    ) -> Example:
        for words in _attempts(wording, intent, int(time)):
            text = " ".join(token for token, _ in words)
            if _for_testing(text) == testing:
                tokens, tags = zip(*words, strict=True)
                label = label_of(intent, words, group, luck, self.parameters)
                return Example(" ".join(tokens), label, tags, f"u{device}", group, time)
        raise CorpusError(f"there is nothing new to say for {intent!r}", "ask for fewer texts on a device")


class _Speaker:
    """One device's speaker, as `Wording` wants it; the only one, so its number is 0."""

    def __init__(self, settings: Parameters, draws: np.random.Generator) -> None:
        self.groups = [grammar.GROUPS[int(draws.random() < settings.minority)]]
        self.taste: Any = draws.dirichlet([settings.concentration] * len(INTENTS))
        self.favourites = favourites(1, draws)


def _attempts(wording: Wording, intent: str, period: int) -> Iterator[list[Word]]:
    for _ in range(_ATTEMPTS):
        yield wording.fresh(intent, 0, period)


def _for_testing(text: str) -> bool:
    """Whether the hash of these words makes them a test text."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=b"trustnlp split").digest()
    return int.from_bytes(digest, "little") < TEST_SHARE * 2**64
