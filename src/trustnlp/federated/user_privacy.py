"""User-level privacy of federated training: bounded updates of equal weight, noise on their sum, a fixed denominator.

    device k   drawn in a round with its own probability q_k      PoissonActivity
               update u -> u min(1, C / |u|)                      bound
    server     (sum of the drawn updates + N(0, (z C)^2)) / L     release, L a public constant

Adding or removing one device, with all its texts, moves the sum by C at most, so a round is a Poisson-sampled Gaussian
release of rate q_k and noise multiplier z for the device k (McMahan et al. 2018, arXiv 1710.06963; the accountant is
`dp.accounting`). Its epsilon is its own: the guarantee is that of the largest q_k, the median device has a lower one.

C may follow a quantile of the norms (Andrew et al. 2021, arXiv 1905.03871): every device also votes whether its update
is within C, C falls where more are within than wanted, and the votes are part of the noised release
(`dp.adaptive_thresholds`).

Shape legend: K devices, P entries of an update.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from trustnlp import checks
from trustnlp.dp import accounting
from trustnlp.dp.adaptive_thresholds import Quantile, checked
from trustnlp.dp.ledger_plan import WrittenPlan, as_floats
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.federated.device_plan import (
    REFUSED,
    DeviceStatement,
    bounded,
    check_fields,
    check_noise,
    noise_source,
    noised,
    own_streams,
    refuse_unbounded,
    text_epsilon,
)
from trustnlp.randomness import Streams

# What may stand in a plan, and why what else people ask for is refused.
_ALLOWED = {
    "unit": ("device",),
    "adjacency": ("add-remove",),
    "selection": ("poisson",),
    "weights": ("equal",),
    "denominator": ("expected-cohort",),
    "aggregation": ("synchronous",),
    "device_state": ("kept", "within-bound"),
    "metrics": ("none", "noised"),
    "noise": ("seeded", "secure"),
}


@dataclass(frozen=True)
class UserPrivacy(WrittenPlan):
    """All that decides the guarantee of a federated training.

    Guarantee: all models together are (`epsilon()`, `delta`)-differentially private for one device, with whatever
    texts it holds, under adding or removing it.

    Args:
        devices: K, how many there are; treated as public.
        rounds: how many, the empty ones included.
        expected_cohort: L > 0, the public constant by which noisy sums are divided, such as the sum of the rates.
        largest_rate: in (0, 1], of all devices' probabilities of being drawn in a round.
        noise_multiplier: z; the noise of a sum has standard deviation z C.
        delta: in (0, 1/K).
        clip_norm: C > 0; to begin with, where it adapts.
        adapt: lets C follow a quantile of the norms; None keeps it.
        median_rate: of the devices; the largest rate if None.
        unit, adjacency: whom the guarantee protects, and what neighbouring populations differ by.
        selection: how a round's devices are drawn: each independently, with its own rate.
        weights: of the updates in a sum.
        denominator: what a sum is divided by.
        aggregation: whether a release holds each device once, of one round.
        device_state: what devices remember stays there (`kept`), or what they send of it is one vector with the update,
            bounded as one (`within-bound`).
        metrics: of the devices' texts that training publishes beside the model.
        noise: `seeded` can be computed again by whoever knows the seed, `secure` by nobody.

    Raises:
        ArgumentError: a field breaks its rule.
        GuaranteeError: a combination for which no sound guarantee can be given.
    """

    devices: int
    rounds: int
    expected_cohort: float
    largest_rate: float
    noise_multiplier: float
    delta: float
    clip_norm: float = 1.0
    adapt: Quantile | None = None
    median_rate: float | None = None
    unit: str = "device"
    adjacency: str = "add-remove"
    selection: str = "poisson"
    weights: str = "equal"
    denominator: str = "expected-cohort"
    aggregation: str = "synchronous"
    device_state: str = "kept"
    metrics: str = "none"
    noise: str = "seeded"

    def __post_init__(self) -> None:
        check_fields(self, _ALLOWED, REFUSED)
        checks.at_least("devices", self.devices, 1)
        checks.at_least("rounds", self.rounds, 1)
        checks.positive("expected_cohort", self.expected_cohort)
        checks.positive("largest_rate", self.largest_rate)
        checks.within("largest_rate", self.largest_rate, 0, 1)
        if self.median_rate is not None:
            checks.within("median_rate", self.median_rate, 0, self.largest_rate)
        refuse_unbounded(self.clip_norm)
        checked(self.adapt)
        check_noise(self.noise_multiplier, self.delta, self.devices)
        as_floats(self, "expected_cohort", "largest_rate", "noise_multiplier", "delta", "clip_norm", "median_rate")

    @classmethod
    def for_budget(cls, epsilon: float, delta: float, rounds: int, rates: ArrayLike, **fields: Any) -> UserPrivacy:
        """The plan with the least noise for which every device spends at most `epsilon`.

        Args:
            epsilon: the budget, > 0; the device with the largest rate spends at least 99% of it.
            delta, rounds: as in the plan.
            rates: (K,) each device's q_k in [0, 1], not all 0, such as `PoissonSelector.rates` gives.
            fields: further fields of the plan, such as `clip_norm`, or `expected_cohort` in place of the rates' sum.

        Raises:
            ArgumentError: an argument breaks its rule.
            GuaranteeError: no noise reaches the budget.
        """
        own = np.asarray(rates, dtype=np.float64)
        if own.ndim != 1 or not ((own >= 0) & (own <= 1)).all() or not own.any():
            raise ArgumentError("rates", "(K,) probabilities from 0 to 1, not all 0", own.shape)
        found: dict[str, Any] = {
            "devices": len(own),
            "rounds": checks.at_least("rounds", rounds, 1),
            "largest_rate": float(own.max()),
            "median_rate": float(np.median(own)),
            "expected_cohort": float(own.sum()),
            "delta": delta,
        }
        draft = cls(**{**found, "noise_multiplier": accounting.MOST_NOISE, **fields})
        factor = accounting.calibrate(checks.positive("epsilon", epsilon), delta, draft.events())
        return cls(**{**found, "noise_multiplier": accounting.MOST_NOISE * factor, **fields})

    def events(self, rounds: int | None = None, rate: float | None = None) -> tuple[accounting.Event, ...]:
        """What the first `rounds` rounds, or all, release of a device that is drawn with `rate`, or the largest."""
        count = self.rounds if rounds is None else checks.at_least("rounds", rounds, 0)
        rate = self.largest_rate if rate is None else checks.within("rate", rate, 0, self.largest_rate)
        return (accounting.Event(rate, self.noise_multiplier, count),) if count and rate else ()

    def epsilon(self, rounds: int | None = None, rate: float | None = None) -> float:
        """Epsilon at `delta` of the device with the largest rate, or with `rate`, after `rounds` rounds or all."""
        return accounting.epsilon(self.events(rounds, rate), self.delta)

    def text_epsilon(self) -> float:
        """Epsilon at `delta` of one text that a device has or lacks; see `device_plan.text_epsilon`."""
        return text_epsilon(self.events(), self.delta)

    def statement(self) -> UserStatement:
        """The guarantee, in words and as a dictionary."""
        median = None if self.median_rate is None else self.epsilon(rate=self.median_rate)
        return UserStatement(**DeviceStatement.figures_of(self), median_epsilon=median)

    def bound(self, update: Tensor, clip_norm: float | None = None) -> Tensor:
        """`update` (P,), scaled so that its L2 norm is at most C; zeros where it holds NaN or infinity.

        Guarantee: a device moves a sum of what this returns by C at most, whatever it sends.

        Args:
            update: all that the device sends, in one float32 or float64 vector.
            clip_norm: of this round where it adapts; the plan's if None.
        """
        return bounded(update, self._clip_norm(clip_norm))

    def vote(self, update: Tensor, clip_norm: float) -> float:
        """1/2 where the update (P,) is within the round's clip norm and -1/2 where not; to be summed like updates."""
        norm = torch.linalg.vector_norm(update, dtype=torch.float64).view(1, 1)
        return float(self._quantile().counts(norm, torch.tensor([clip_norm], dtype=torch.float64)))

    def check_weights(self, weights: ArrayLike) -> None:
        """Checks that a cohort's aggregation weights are all 1 / L, as the guarantee takes them to be.

        Raises:
            GuaranteeError: they are not: by numbers of texts, by the realised cohort, or a device that counts twice.
        """
        found, due = np.asarray(weights, dtype=float), 1 / self.expected_cohort
        if not np.allclose(found, due, rtol=1e-9, atol=0):
            raise GuaranteeError(
                f"weights from {found.min():.4g} to {found.max():.4g} stand where each update must count "
                f"1 / {self.expected_cohort:g}, so one device can move the mean by more than the noise covers",
                "use equal weights over the expected cohort",
            )

    def release(self, total: Tensor, round: int, streams: Streams, clip_norm: float | None = None) -> Tensor:
        """(P,) the sum of bounded updates plus N(0, (z C)^2), divided by the expected cohort.

        Guarantee: together with the votes of the round, a Gaussian release of noise multiplier z.

        Args:
            total: (P,) sum over the round's devices of what `bound` returned, with the same clip norm.
            round: 0-based; one release a round, as every round has its own noise.
            streams: of the seeded noise.
            clip_norm: as given to `bound`.

        Raises:
            ArgumentError: the round is none of the plan's.
            GuaranteeError: the sum is NaN or infinite, so it is not one of bounded updates.
        """
        multiplier = self.noise_multiplier
        if self.adapt is not None:
            multiplier = self.adapt.gradient_multiplier(multiplier)
        return self._released("update", total, multiplier * self._clip_norm(clip_norm), round, streams)

    def next_clip_norm(self, votes: float, clip_norm: float, round: int, streams: Streams) -> float:
        """The clip norm of the next round, from the sum of the round's votes: noised, and charged in `epsilon`.

        C <- C exp(-rate (share within - quantile)): it falls where more updates are within it than wanted.
        """
        adapt = self._quantile()
        std = adapt.count_multiplier(self.noise_multiplier, 1) / 2
        released = self._released("votes", torch.tensor([votes], dtype=torch.float64), std, round, streams)
        return float(adapt.moved(torch.tensor([clip_norm], dtype=torch.float64), released))

    @property
    def steps(self) -> int:
        """Rounds, as the ledger counts them."""
        return self.rounds

    def event(self, step: int) -> accounting.Event:
        """What any round releases of the device with the largest rate."""
        del step
        return accounting.Event(self.largest_rate, self.noise_multiplier)

    @classmethod
    def records(cls, fields: Any) -> dict[str, Any]:
        """Those of the fields that are records themselves."""
        return {"adapt": fields["adapt"] and Quantile(**fields["adapt"])}

    def _released(self, name: str, total: Tensor, std: float, round: int, streams: Streams) -> Tensor:
        if not 0 <= round < self.rounds:
            raise ArgumentError("round", f"one of the plan's rounds 0 to {self.rounds - 1}", round)
        source = noise_source(self.noise, own_streams(self, streams))
        return noised(name, total, std, self.expected_cohort, round, source)

    def _clip_norm(self, clip_norm: float | None) -> float:
        if (clip_norm is None) != (self.adapt is None):
            rule = "given where it adapts, and left out where the plan keeps it"
            raise ArgumentError("clip_norm", rule, clip_norm)
        return self.clip_norm if clip_norm is None else refuse_unbounded(clip_norm)

    def _quantile(self) -> Quantile:
        if self.adapt is None:
            raise ArgumentError("adapt", "a Quantile, for votes to be counted", None)
        return self.adapt


@dataclass(frozen=True)
class UserStatement(DeviceStatement):
    """The guarantee of a plan; its epsilon is that of the device with the largest rate.

    Args:
        median_epsilon: of a device with the median rate; None where that is not known.
    """

    median_epsilon: float | None

    def own_figures(self) -> Mapping[str, Any]:
        """The median device's epsilon."""
        return {"median_epsilon": self.median_epsilon}

    def __str__(self) -> str:
        plan = self.plan
        median = "" if self.median_epsilon is None else f"; a device of the median rate has {self.median_epsilon:.4g}"
        follows = "" if plan.adapt is None else f" at first, {plan.adapt.describe()}"
        return "\n".join(
            [
                f"Guarantee: ({self.epsilon:.4g}, {plan.delta:g})-differential privacy for one device with all its "
                f"texts, neighbours by {plan.adjacency} of one device; it covers every intermediate model{median}.",
                "Unit: one device. A person with several devices is protected as several, and what others wrote "
                "about a person is theirs.",
                f"Sampler: each of {plan.devices} devices enters a round independently with its own probability, "
                f"{plan.largest_rate:.6g} at most; {plan.rounds} rounds. The number of devices is taken to be public, "
                "and so is whatever scales the probabilities beside a device's own data.",
                f"Mechanism: each update clipped to L2 norm {plan.clip_norm:g}{follows}; summed with equal weights, "
                f"plus Gaussian noise of {plan.noise_multiplier:.6g} times the norm, divided by the constant "
                f"{plan.expected_cohort:g}.",
                *self.closing_lines(),
            ]
        )
