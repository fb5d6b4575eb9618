"""How often a device takes part: at most once in any b consecutive rounds, and at most k times in all.

What a guarantee without sampling assumption rests on (`matrix_factorisation`), checked before a sum is released.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustnlp import checks
from trustnlp.errors import ArgumentError, GuaranteeError

_NEVER = -(2**62)


class Participation:
    """Who has taken part, when and how often.

    Args:
        devices: K.
        separation: b >= 1; between two rounds of a device lie b - 1 others at least.
        most: k >= 1, rounds of a device in all.
    """

    def __init__(self, devices: int, separation: int, most: int) -> None:
        self.separation = checks.at_least("separation", separation, 1)
        self.most = checks.at_least("most", most, 1)
        self._last = np.full(checks.at_least("devices", devices, 1), _NEVER, dtype=np.int64)
        self._times = np.zeros(devices, dtype=np.int64)
        self._next = 0

    def available(self, round: int) -> NDArray[np.bool_]:
        """(K,) whom `round` may take, for a selection to choose from."""
        found: NDArray[np.bool_] = (self._last <= round - self.separation) & (self._times < self.most)
        return found

    def admit(self, round: int, devices: ArrayLike) -> None:
        """Writes down that these devices take part in `round`; nothing is written where one may not.

        Raises:
            ArgumentError: a number that is no device's.
            GuaranteeError: a round that is not after all before, a device that stands there twice, comes too early
                or too often.
        """
        chosen = np.asarray(devices, dtype=np.int64)
        if chosen.size and not 0 <= chosen.min() <= chosen.max() < len(self._last):
            raise ArgumentError("devices", f"numbers from 0 to {len(self._last) - 1}", int(chosen.max()))
        if checks.at_least("round", round, 0) < self._next:
            raise GuaranteeError(f"round {round} comes after round {self._next - 1}", "give rounds in order, each once")
        if len(np.unique(chosen)) != len(chosen):
            raise GuaranteeError(
                "a device stands twice in one round, and would count twice", "draw without replacement"
            )
        early = chosen[self._last[chosen] > round - self.separation]
        if early.size:
            raise GuaranteeError(
                f"{early.size} devices of round {round} took part less than {self.separation} rounds ago, so their "
                "updates share noise that covers one of them",
                "choose among available(round), or plan for a smaller separation",
            )
        often = chosen[self._times[chosen] >= self.most]
        if often.size:
            raise GuaranteeError(
                f"{often.size} devices of round {round} have taken part {self.most} times, and more is not paid for",
                "choose among available(round), or plan for more participations",
            )
        self._last[chosen] = round
        self._times[chosen] += 1
        self._next = round + 1

    def state(self) -> dict[str, Any]:
        """Arrays and numbers from which `restore` goes on."""
        return {"last": self._last.copy(), "times": self._times.copy(), "next": self._next}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a `state` of as many devices."""
        if state["last"].shape != self._last.shape:
            raise ArgumentError("state", f"of {len(self._last)} devices", len(state["last"]))
        self._last, self._times, self._next = state["last"].copy(), state["times"].copy(), int(state["next"])
