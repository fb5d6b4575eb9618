"""User-level privacy with correlated noise: DP-FTRL, whose guarantee assumes nothing of how devices are drawn.

    device     update u -> u min(1, C / |u|)                                   bound
    server     refuses devices that come too early or too often               Participation
               (sum of the round's updates + row of C^-1 Z) / L                release

Adding noise by a factorisation (`matrix_factorisation`) takes the place of amplification by sampling (`user_privacy`):
devices may come when they are idle, in cohorts of fixed size, and only how often each of them comes is bounded
(Kairouz et al. 2021, arXiv 2103.00039; Choquette-Choo et al. 2023, arXiv 2306.08153).

Shape legend: T rounds, K devices, P entries of an update.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from trustnlp import checks
from trustnlp.dp import accounting
from trustnlp.dp.ledger_plan import WrittenPlan, as_floats
from trustnlp.errors import GuaranteeError
from trustnlp.federated import device_plan
from trustnlp.federated.device_plan import DeviceStatement, own_streams
from trustnlp.federated.matrix_factorisation import CorrelatedNoise, Factorisation, independent, least_error
from trustnlp.federated.participation import Participation
from trustnlp.randomness import Streams

_ALLOWED = {
    "unit": ("device",),
    "adjacency": ("zero-out",),
    "weights": ("equal",),
    "denominator": ("fixed",),
    "aggregation": ("synchronous",),
    "device_state": ("kept", "within-bound"),
    "metrics": ("none", "noised"),
    "noise": ("seeded", "secure"),
}
_REFUSED = {
    **device_plan.REFUSED,
    ("adjacency", "add-remove"): (
        "without one device a schedule may choose others, and the noise covers one device's updates alone",
        "use adjacency='zero-out': one device's updates count as zeros",
    ),
}


@dataclass(frozen=True)
class FactorisedPrivacy(WrittenPlan):
    """All that decides the guarantee of a federated training with correlated noise.

    Guarantee: all models together are (`epsilon()`, `delta`)-differentially private for one device whose updates are
    replaced by zeros, whoever chooses cohorts and however, as long as every device takes part at most once in any
    `separation` consecutive rounds and at most `participations` times, and as choices depend on no device's texts but
    through released models. Updates may depend on earlier releases.

    Args:
        devices: K, how many there are; treated as public.
        factorisation: C.
        separation: b at least, see above.
        participations: k.
        cohort: L > 0, the public constant by which noisy sums are divided.
        noise_multiplier: z; Z has standard deviation z C times the sensitivity.
        delta: in (0, 1/K).
        clip_norm: C > 0; it does not adapt, as noise is shared by rounds.
        unit, adjacency: whom the guarantee protects, and what neighbouring populations differ by.
        weights, denominator, aggregation, device_state, metrics, noise: as in `UserPrivacy`.

    Raises:
        ArgumentError: a field breaks its rule.
        GuaranteeError: a combination for which no sound guarantee can be given.
    """

    devices: int
    factorisation: Factorisation
    separation: int
    participations: int
    cohort: float
    noise_multiplier: float
    delta: float
    clip_norm: float = 1.0
    unit: str = "device"
    adjacency: str = "zero-out"
    weights: str = "equal"
    denominator: str = "fixed"
    aggregation: str = "synchronous"
    device_state: str = "kept"
    metrics: str = "none"
    noise: str = "seeded"

    def __post_init__(self) -> None:
        device_plan.check_fields(self, _ALLOWED, _REFUSED)
        checks.at_least("devices", self.devices, 1)
        checks.positive("cohort", self.cohort)
        device_plan.refuse_unbounded(self.clip_norm)
        device_plan.check_noise(self.noise_multiplier, self.delta, self.devices)
        as_floats(self, "cohort", "noise_multiplier", "delta", "clip_norm")
        self.sensitivity()

    @classmethod
    def for_budget(
        cls,
        epsilon: float,
        delta: float,
        rounds: int,
        *,
        devices: int,
        cohort: float,
        separation: int,
        participations: int | None = None,
        bands: int | None = None,
        **fields: Any,
    ) -> FactorisedPrivacy:
        """The plan of least error that spends at most `epsilon`, and at least 99% of it.

        Args:
            epsilon: the budget, > 0.
            delta, devices, cohort, separation: as in the plan.
            rounds: T.
            participations: k; as many as the separation allows if None.
            bands: b, at most the separation; as many as that if None.
            fields: further fields of the plan, such as `clip_norm`.

        Raises:
            ArgumentError: an argument breaks its rule.
            GuaranteeError: no noise reaches the budget, or more bands than the separation allows.
        """
        checks.at_least("rounds", rounds, 1)
        possible = -(-rounds // checks.at_least("separation", separation, 1))
        times = possible if participations is None else min(participations, possible)
        width = min(separation, rounds) if bands is None else bands
        factor = least_error(rounds, width, max(separation, width), times)
        draft = cls(devices, factor, separation, times, cohort, accounting.MOST_NOISE, delta, **fields)
        scale = accounting.calibrate(checks.positive("epsilon", epsilon), delta, draft.events())
        return cls(devices, factor, separation, times, cohort, accounting.MOST_NOISE * scale, delta, **fields)

    def sensitivity(self) -> float:
        """Of C X, per unit of the clip norm."""
        return self.factorisation.sensitivity(self.separation, self.participations)

    def error(self) -> float:
        """Standard deviation of the noise in an entry of the server's sum of mean updates, root mean square."""
        scale = self.noise_multiplier * self.clip_norm / self.cohort
        return scale * self.factorisation.error(self.separation, self.participations)

    def events(self) -> tuple[accounting.Event, ...]:
        """All rounds together: one Gaussian release."""
        return (accounting.Event(1.0, self.noise_multiplier),)

    def epsilon(self) -> float:
        """Epsilon at `delta` of all rounds together; of fewer rounds it is at most that."""
        return accounting.epsilon(self.events(), self.delta)

    def bound(self, update: Tensor) -> Tensor:
        """`update` (P,), scaled so that its L2 norm is at most C; zeros where it holds NaN or infinity."""
        return device_plan.bounded(update, self.clip_norm)

    def begin(self, streams: Streams) -> FactorisedRelease:
        """The releases of one training, in order."""
        return FactorisedRelease(self, streams)

    def statement(self) -> FactorisedStatement:
        """The guarantee and the error to be expected, in words and as a dictionary."""
        return FactorisedStatement(**DeviceStatement.figures_of(self))

    @property
    def steps(self) -> int:
        """Rounds, as the ledger counts them."""
        return self.factorisation.rounds

    def event(self, step: int) -> accounting.Event | None:
        """All that rounds release together, charged with the first: the noise of later ones is not their own."""
        return self.events()[0] if step == 0 else None

    @classmethod
    def records(cls, fields: Any) -> dict[str, Any]:
        """Those of the fields that are records themselves."""
        return {"factorisation": Factorisation(**fields["factorisation"])}


class FactorisedRelease:
    """The rounds of one training: refuses cohorts that break the plan, and adds the round's noise.

    Args:
        plan: what may be released.
        streams: of the seeded noise.
    """

    def __init__(self, plan: FactorisedPrivacy, streams: Streams) -> None:
        self.plan = plan
        self.participation = Participation(plan.devices, plan.separation, plan.participations)
        std = plan.noise_multiplier * plan.clip_norm * plan.sensitivity()
        self._noise = CorrelatedNoise(plan.factorisation, std, plan.noise, own_streams(plan, streams))

    def available(self) -> NDArray[np.bool_]:
        """(K,) whom the next round may take."""
        return self.participation.available(self._noise.round)

    def release(self, total: Tensor, devices: ArrayLike) -> Tensor:
        """(P,) the sum of the next round's bounded updates with its noise, divided by the cohort.

        Args:
            total: (P,) sum of what `plan.bound` returned.
            devices: (m,) who is in it.

        Raises:
            ArgumentError: all rounds are released.
            GuaranteeError: a device takes part too early or too often; or the sum is NaN or infinite.
        """
        if not bool(torch.isfinite(total).all()):
            raise GuaranteeError("the sum is NaN or infinite, so not one of bounded updates", "bound every update")
        self.participation.admit(self._noise.round, devices)
        return (total + self._noise.next(total)) / self.plan.cohort

    def state(self) -> dict[str, Any]:
        """What `restore` goes on from; keep it as secret as the seed."""
        return {"participation": self.participation.state(), "noise": self._noise.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`."""
        self.participation.restore(state["participation"])
        self._noise.restore(state["noise"])


@dataclass(frozen=True)
class FactorisedStatement(DeviceStatement):
    """The guarantee of a plan, and the error that it costs."""

    def own_figures(self) -> Mapping[str, Any]:
        """By how much one device moves the sums, and the error of these."""
        return {"sensitivity": self.plan.sensitivity(), "error": self.plan.error()}

    def __str__(self) -> str:
        plan, factor = self.plan, self.plan.factorisation
        fresh = independent(factor.rounds).error(plan.separation, plan.participations)
        gain = fresh / factor.error(plan.separation, plan.participations)
        return "\n".join(
            [
                f"Guarantee: ({self.epsilon:.4g}, {plan.delta:g})-differential privacy for one device with all its "
                "texts, neighbours by replacing its updates by zeros; it covers every intermediate model.",
                "Unit: one device. A person with several devices is protected as several.",
                f"Schedule: nothing is assumed of draws; each of {plan.devices} devices takes part at most once in any "
                f"{plan.separation} consecutive rounds and at most {plan.participations} times in {factor.rounds}, "
                "which is checked in every round.",
                f"Mechanism: each update clipped to L2 norm {plan.clip_norm:g}; summed with equal weights, plus noise "
                f"that is correlated over {factor.bands} rounds, {plan.noise_multiplier:.6g} times the sensitivity "
                f"{plan.sensitivity():.6g}, divided by the constant {plan.cohort:g}.",
                f"Error: {plan.error():.4g} in an entry of the sum over rounds (root mean square); fresh noise in "
                f"every round would make it {gain:.3g} times as large.",
                *self.closing_lines(),
            ]
        )
