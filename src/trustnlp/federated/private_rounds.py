"""A plan of user-level privacy at work in a simulation: what it refuses, bounds, releases and keeps to itself.

    before the first round   begin(plan, …)               refuses what the plan's guarantee does not cover
    on a device              bounded                      the change within the clip norm, and a vote where it adapts
    on the server            release                      a line in the ledger, and then the noised mean
    after a kill             resume_at                    the first round that the ledger does not know

What a device sends beside its change, weights by texts, cohorts chosen by loss, rounds that end when enough have come
back: each would make the guarantee wrong, so each is refused. A round that the ledger has charged is never released
again, whether its noise could be drawn again or not; where a kill has lost its result, training goes on without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trustnlp.dp.ledger import FILE_NAME, Ledger
from trustnlp.dp.plan import PrivacyPlan
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

    def resume_at(self, round: int) -> int:
        """The round after all that were charged, where `round` is the one after all whose results were kept.

        Raises:
            GuaranteeError: more were kept than charged; or later noise needs that of a round that was lost.
        """
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
    folder: Path | None = None,
) -> PrivateRounds:
    """The plan at work, with a ledger in `folder`, or in memory; nothing is written where anything is refused.

    Raises:
        GuaranteeError: something for which the plan's guarantee would not hold, with the mend; or the folder has the
            ledger of another plan.
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
        _check_sampled(plan, algorithm, selection, selector)
        return _Sampled(plan, _ledger(plan, folder), streams)
    _check_factorised(plan, algorithm, selection)
    return _Factorised(plan, _ledger(plan, folder), streams)


def read_ledger(path: str | Path) -> Ledger:
    """The ledger at `path`, of a plan for examples, users or devices.

    Raises:
        GuaranteeError, RunError: see `Ledger.read`.
    """
    return Ledger.read(path, (PrivacyPlan, UserPrivacy, FactorisedPrivacy))


def _ledger(plan: Plan, folder: Path | None) -> Ledger:
    return Ledger.in_memory(plan) if folder is None else Ledger.open(folder / FILE_NAME, plan)


def bounded(plan: Plan, vectors: Vectors, clip_norm: float | None) -> Vectors:
    """What a device adds to the sum: its change within the clip norm, and its vote where that adapts."""
    change = vectors[CHANGE]
    if isinstance(plan, FactorisedPrivacy) or clip_norm is None:
        return {CHANGE: plan.bound(change)}
    vote = torch.tensor([plan.vote(change, clip_norm)], dtype=torch.float64)
    return {CHANGE: plan.bound(change, clip_norm), VOTES: vote}


def _check_sampled(plan: UserPrivacy, algorithm: Algorithm, selection: Selection, selector: Selector) -> None:
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


def _check_factorised(plan: FactorisedPrivacy, algorithm: Algorithm, selection: Selection) -> None:
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


class _Sampled:
    """Fresh noise in every round, amplified by Poisson draws."""

    def __init__(self, plan: UserPrivacy, ledger: Ledger, streams: Streams) -> None:
        self._plan, self._ledger, self._streams = plan, ledger, streams
        self._clip_norm = None if plan.adapt is None else plan.clip_norm

    def clip_norm(self) -> float | None:
        return self._clip_norm

    def available(self, there: Available | None) -> Available | None:
        return there

    def release(self, total: Vectors, round: int, cohort: Cohort, weights: Tensor) -> Tensor:
        if len(cohort):
            self._plan.check_weights(cohort.weights)
        _charge(self._ledger, round)
        change = total.get(CHANGE, torch.zeros_like(weights))  # an empty round is noised like any other
        step = self._plan.release(change, round, self._streams, self._clip_norm)
        if self._clip_norm is not None:
            votes = float(total[VOTES]) if VOTES in total else 0.0
            self._clip_norm = self._plan.next_clip_norm(votes, self._clip_norm, round, self._streams)
        return step

    def resume_at(self, round: int) -> int:
        return _charged(self._ledger, round)

    def state(self) -> dict[str, Any]:
        return {"clip_norm": self._clip_norm}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._clip_norm = state["clip_norm"]


class _Factorised:
    """Noise correlated over rounds, whoever is chosen as long as nobody comes too often."""

    def __init__(self, plan: FactorisedPrivacy, ledger: Ledger, streams: Streams) -> None:
        self._ledger = ledger
        self._release = plan.begin(streams)

    def clip_norm(self) -> None:
        return None

    def available(self, there: Available | None) -> Available:
        free = self._release.available()
        return lambda devices: free[devices] & answers(there, devices)

    def release(self, total: Vectors, round: int, cohort: Cohort, weights: Tensor) -> Tensor:
        _charge(self._ledger, round)
        return self._release.release(total.get(CHANGE, torch.zeros_like(weights)), cohort.devices)

    def resume_at(self, round: int) -> int:
        if _charged(self._ledger, round) > round:
            raise GuaranteeError(
                f"round {round} was charged, and a kill has lost what it released; the noise of later rounds takes "
                "back part of its noise, and who took part in it is not known",
                "begin again in another folder with what is left of the budget",
            )
        return round

    def state(self) -> dict[str, Any]:
        return self._release.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        taken = {name: one.numpy() if isinstance(one, Tensor) else one for name, one in state["participation"].items()}
        self._release.restore({**state, "participation": taken})


def _charge(ledger: Ledger, round: int) -> None:
    """Writes the round down before its release exists."""
    if ledger.spent != round:
        raise GuaranteeError(
            f"round {round} comes where the ledger awaits round {ledger.spent}, so rounds are missing or double",
            "go on from the checkpoint beside the ledger, or begin again in another folder",
        )
    ledger.spend()


def _charged(ledger: Ledger, round: int) -> int:
    if ledger.spent < round:
        raise GuaranteeError(
            f"the checkpoint was made after {round} rounds, but the ledger knows of {ledger.spent}",
            "put the ledger file of this run back, or begin again in another folder",
        )
    return ledger.spent


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
