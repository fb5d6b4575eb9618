"""Who takes part in a round and with what weight: the contract between selection rules and the server.

    rule (frozen record) ── begin(sizes) ──> Selector ── select(round, m, generator) ──> Cohort
                                                └── observe(devices, losses, seconds) when they have come back

A rule is **unbiased** where the mean over draws of sum(weights * update) is sum(n_k / n * update_k) over the devices
that were there to be chosen, whatever their sizes n_k and updates: the FedAvg objective, n = sum n_k (McMahan et al.
2017, arXiv 1602.05629; Fraboni et al., arXiv 2107.12211). A device without texts never takes part.

Shape legend: K devices, m of a cohort.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trustnlp import checks
from trustnlp.errors import ArgumentError, GuaranteeError

Devices = NDArray[np.int64]
# Who can be chosen: (K,) yes or no, or a function that is asked about some devices, (m,) -> (m,). The function spares
# a pass over all devices in every round.
Available = NDArray[np.bool_] | Callable[[Devices], NDArray[np.bool_]]
# The local losses of some devices under the server's weights, (m,) -> (m,); NaN of a device that does not answer.
Probe = Callable[[Devices], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Cohort:
    """The devices of one round: the server's step is sum(weights * update).

    Args:
        devices: (m,) distinct numbers of devices; selectors give them in ascending order. May be empty.
        weights: (m,) finite and >= 0; of a device that was drawn twice, both shares.

    Raises:
        ArgumentError: a device that stands there twice, or lengths that differ.
        GuaranteeError: a weight that is negative, NaN or infinite.
    """

    devices: Devices
    weights: NDArray[np.float64]

    def __post_init__(self) -> None:
        checks.same_length(devices=self.devices, weights=self.weights)
        if len(np.unique(self.devices)) < len(self.devices):
            raise ArgumentError("devices", "distinct", "a device that stands there twice", "add up its weights")
        if not (np.isfinite(self.weights) & (self.weights >= 0)).all():
            raise GuaranteeError("a cohort has weights that are negative, NaN or infinite")

    def __len__(self) -> int:
        return len(self.devices)


class Selector(Protocol):
    """A rule at work on one population; may remember what it has observed."""

    def select(
        self,
        round: int,
        cohort: int,
        generator: np.random.Generator,
        *,
        available: Available | None = None,
        probe: Probe | None = None,
    ) -> Cohort:
        """The devices of round `round` (0-based), `cohort` of them where the rule and `available` allow."""

    def observe(self, devices: Devices, losses: NDArray[np.float64], seconds: NDArray[np.float64]) -> None:
        """Hears once a round of the devices that came back, (m,) each: their losses in training, and their seconds."""

    def state(self) -> dict[str, Any]:
        """All that it remembers, as arrays and plain numbers."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state()`: the same draws as if it had never stopped."""


class Selection(Protocol):
    """A selection rule: a frozen record of its parameters."""

    @property
    def unbiased(self) -> bool:
        """Whether the rule is unbiased, as told at the head of this module, for every population and cohort."""

    def begin(self, sizes: NDArray[np.int64]) -> Selector:
        """The rule at work on devices with `sizes` texts each, (K,)."""


@dataclass(frozen=True, eq=False)
class Request:
    """What a selector is asked for, see `Selector.select`."""

    round: int
    cohort: int
    generator: np.random.Generator
    available: Available | None
    probe: Probe | None

    def __post_init__(self) -> None:
        checks.at_least("round", self.round, 0)
        checks.at_least("cohort", self.cohort, 1)

    def there(self, devices: Devices) -> NDArray[np.bool_]:
        """(m,) whether each of `devices` can be chosen."""
        return answers(self.available, devices)


class PlainSelector(ABC):
    """A selector that remembers nothing unless it says so."""

    def select(
        self,
        round: int,
        cohort: int,
        generator: np.random.Generator,
        *,
        available: Available | None = None,
        probe: Probe | None = None,
    ) -> Cohort:
        """See `Selector`."""
        return self.choose(Request(round, cohort, generator, available, probe))

    @abstractmethod
    def choose(self, request: Request) -> Cohort:
        """The cohort that `request` asks for."""

    def observe(self, devices: Devices, losses: NDArray[np.float64], seconds: NDArray[np.float64]) -> None:  # noqa: B027
        """Nothing is remembered."""

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes only what `state` gives.

        Raises:
            ArgumentError: the state of another rule.
        """
        if state:
            raise ArgumentError("state", "empty, as this rule remembers nothing", sorted(state))


def answers(available: Available | None, devices: Devices) -> NDArray[np.bool_]:
    """(m,) whether each of `devices` can be chosen."""
    if available is None:
        return np.ones(len(devices), dtype=bool)
    return np.asarray(available(devices) if callable(available) else available[devices], dtype=bool)


def shares(weighting: str, times: NDArray[Any], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights that add up to 1, (m,): `equal` shares of the draws, or `samples`, in which a draw counts n_k.

    Args:
        weighting: `equal` or `samples`.
        times: (m,) how often each device was drawn.
        sizes: (m,) its texts.
    """
    raw = np.asarray(times if weighting == "equal" else times * sizes, dtype=float)
    return raw / raw.sum() if len(raw) else raw
