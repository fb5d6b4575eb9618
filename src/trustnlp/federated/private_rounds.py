"""A plan of user-level privacy at work in a simulation: what it refuses, bounds, releases and keeps to itself.

    before the first round   begin(plan, …)               refuses what the plan's guarantee does not cover
    on a device              bounded                      the change within the clip norm, and a vote where it adapts
    on the server            release                      the noised mean

What a device sends beside its change, weights by texts, cohorts chosen by loss, rounds that end when enough have come
back: each would make the guarantee wrong, so each is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.federated.algorithm import CHANGE, Algorithm
from trustnlp.federated.cohort import Available, Cohort, Selection, Selector, answers
from trustnlp.federated.conditions import Conditions
from trustnlp.federated.factorised_privacy import FactorisedPrivacy
from trustnlp.federated.local_training import Vectors
from trustnlp.federated.poisson_activity import PoissonActivity, PoissonSelector
from trustnlp.federated.selection import Activity, Log, TopK, Uniform
from trustnlp.federated.user_privacy import UserPrivacy
from trustnlp.randomness import Streams

Plan = UserPrivacy | FactorisedPrivacy
VOTES = "votes"
_BLIND = (Uniform, Activity, Log, TopK, PoissonActivity)  # to losses, and so to texts


class PrivateRounds(Protocol):
    """A plan at work in one training."""

    def clip_norm(self) -> float | None:
        """Of the next round, where it adapts."""
        ...

    def available(self, there: Available | None) -> Available | None:
        """Whom the next round may take of those that are there."""
        ...

    def release(self, total: Vectors, round: int, cohort: Cohort, weights: Tensor) -> Tensor:
        """(P,) the noised mean of bounded changes, as a step from `weights`; the only thing that leaves the round."""
        ...

    def state(self) -> dict[str, Any]:
        """What `restore` goes on from."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`, in which arrays may have become tensors."""
        ...


def begin(
    plan: Plan,
    algorithm: Algorithm,
    selection: Selection,
    selector: Selector,
    conditions: Conditions,
    devices: int,
    streams: Streams,
) -> PrivateRounds:
    """The plan at work.

    Raises:
        GuaranteeError: something for which the plan's guarantee would not hold, with the mend.
        ArgumentError: the plan is of another number of devices or of fewer rounds.
    """
    if algorithm.sends != (CHANGE,):
        beside = ", ".join(name for name in algorithm.sends if name != CHANGE)
        raise GuaranteeError(
            f"{type(algorithm).__name__} sends {beside} beside the change, which nothing bounds or noises",
            "use an algorithm that sends its change alone, such as FedAvg, FedProx, FedOpt or FedDyn",
        )
    if conditions.over_selection > 1:
        raise GuaranteeError(
            "a round that ends when enough have come back leaves out one device because of another",
            "use over_selection=1, with a deadline if need be",
        )
    if plan.devices != devices:
        raise ArgumentError("privacy", f"a plan of {devices} devices", plan.devices)
    if isinstance(plan, UserPrivacy):
        return _Sampled(plan, algorithm, selection, selector, streams)
    return _Factorised(plan, algorithm, selection, streams)


def bounded(plan: Plan, vectors: Vectors, clip_norm: float | None) -> Vectors:
    """What a device adds to the sum: its change within the clip norm, and its vote where that adapts."""
    change = vectors[CHANGE]
    if isinstance(plan, FactorisedPrivacy) or clip_norm is None:
        return {CHANGE: plan.bound(change)}
    vote = torch.tensor([plan.vote(change, clip_norm)], dtype=torch.float64)
    return {CHANGE: plan.bound(change, clip_norm), VOTES: vote}


class _Sampled:
    """Fresh noise in every round, amplified by Poisson draws."""

    def __init__(
        self, plan: UserPrivacy, algorithm: Algorithm, selection: Selection, selector: Selector, streams: Streams
    ) -> None:
        if not isinstance(selection, PoissonActivity) or not isinstance(selector, PoissonSelector):
            raise GuaranteeError(
                f"{type(selection).__name__} does not draw each device by itself, as the accountant takes for granted",
                "use selection=PoissonActivity, or a FactorisedPrivacy plan, which assumes nothing of draws",
            )
        rates = selector.rates(algorithm.cohort)
        if rates.largest > plan.largest_rate * (1 + 1e-12):
            raise GuaranteeError(
                f"a device is drawn with probability {rates.largest:.6g}; the plan pays for {plan.largest_rate:.6g}",
                "make the plan by `private_rounds.plan_for`, or from the selector's own rates",
            )
        if plan.expected_cohort != algorithm.cohort:
            rule = f"a plan that divides by the cohort, expected_cohort={algorithm.cohort}"
            raise ArgumentError("privacy", rule, plan.expected_cohort)
        if plan.rounds < algorithm.rounds:
            raise ArgumentError("privacy", f"a plan of at least {algorithm.rounds} rounds", plan.rounds)
        self._plan, self._streams = plan, streams
        self._clip_norm = None if plan.adapt is None else plan.clip_norm

    def clip_norm(self) -> float | None:
        return self._clip_norm

    def available(self, there: Available | None) -> Available | None:
        return there

    def release(self, total: Vectors, round: int, cohort: Cohort, weights: Tensor) -> Tensor:
        if len(cohort):
            self._plan.check_weights(cohort.weights)
        change = total.get(CHANGE, torch.zeros_like(weights))  # an empty round is noised like any other
        step = self._plan.release(change, round, self._streams, self._clip_norm)
        if self._clip_norm is not None:
            votes = float(total[VOTES]) if VOTES in total else 0.0
            self._clip_norm = self._plan.next_clip_norm(votes, self._clip_norm, round, self._streams)
        return step

    def state(self) -> dict[str, Any]:
        return {"clip_norm": self._clip_norm}

    def restore(self, state: Mapping[str, Any]) -> None:
        refuse_to_release_again(self._plan.noise)
        self._clip_norm = state["clip_norm"]


class _Factorised:
    """Noise correlated over rounds, whoever is chosen as long as nobody comes too often."""

    def __init__(self, plan: FactorisedPrivacy, algorithm: Algorithm, selection: Selection, streams: Streams) -> None:
        if not isinstance(selection, _BLIND):
            raise GuaranteeError(
                f"{type(selection).__name__} chooses by losses of private texts, which leave the devices without noise",
                "use a selection by activity alone",
            )
        if plan.cohort != algorithm.cohort:
            raise ArgumentError("privacy", f"a plan that divides by the cohort, cohort={algorithm.cohort}", plan.cohort)
        if plan.factorisation.rounds < algorithm.rounds:
            rule = f"a plan of at least {algorithm.rounds} rounds"
            raise ArgumentError("privacy", rule, plan.factorisation.rounds)
        self._plan = plan
        self._release = plan.begin(streams)

    def clip_norm(self) -> None:
        return None

    def available(self, there: Available | None) -> Available:
        free = self._release.available()
        return lambda devices: free[devices] & answers(there, devices)

    def release(self, total: Vectors, round: int, cohort: Cohort, weights: Tensor) -> Tensor:
        del round
        return self._release.release(total.get(CHANGE, torch.zeros_like(weights)), cohort.devices)

    def state(self) -> dict[str, Any]:
        return self._release.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        refuse_to_release_again(self._plan.noise)
        taken = {name: one.numpy() if isinstance(one, Tensor) else one for name, one in state["participation"].items()}
        self._release.restore({**state, "participation": taken})


def refuse_to_release_again(noise: str) -> None:
    """Raises where a round that was lost with a killed run could not be released with the same noise.

    Raises:
        GuaranteeError: secure noise, which nobody can draw again.
    """
    if noise == "secure":
        raise GuaranteeError(
            "rounds after the checkpoint were released with noise that cannot be drawn again, so going on would "
            "release them twice",
            "begin again in another folder with what is left of the budget, or use noise='seeded'",
        )


def plan_for(
    epsilon: float,
    delta: float,
    algorithm: Algorithm,
    selection: PoissonActivity,
    sizes: NDArray[np.int64],
    **fields: Any,
) -> UserPrivacy:
    """The plan with the least noise with which `algorithm` and `selection` spend at most `epsilon`.

    Guarantee: user level, one device with all its texts, add-remove, at the rate of the most active device.

    Args:
        epsilon: the budget, > 0.
        delta: in (0, 1/K).
        sizes: (K,) texts of each device.
        fields: further fields of `UserPrivacy`, such as `clip_norm`.

    Raises:
        ArgumentError, GuaranteeError: see `UserPrivacy.for_budget`.
    """
    rates = selection.begin(sizes).rates(algorithm.cohort).of(sizes)
    return UserPrivacy.for_budget(
        epsilon, delta, algorithm.rounds, rates, **{"expected_cohort": float(algorithm.cohort), **fields}
    )
