"""What a plan guarantees, in words that a reviewer can check and as a dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trustnlp.dp import accounting

if TYPE_CHECKING:
    from trustnlp.dp.plan import PrivacyPlan

_RATES = (0.001, 0.01)


@dataclass(frozen=True)
class Statement:
    """The guarantee of a plan.

    Args:
        plan: what was asked for.
        epsilon: spent at the plan's delta after all its steps, by PLD.
        epsilon_rdp: the same by RDP, the cross-check.
        ceilings: false positive rate -> the largest true positive rate of any membership attack at that rate.
    """

    plan: PrivacyPlan
    epsilon: float
    epsilon_rdp: float
    ceilings: Mapping[float, float]

    @classmethod
    def of(cls, plan: PrivacyPlan) -> Statement:
        """The statement of `plan`."""
        events = plan.events()
        ceilings = {fpr: accounting.attack_ceiling(events, fpr) for fpr in _RATES}
        return cls(plan, plan.epsilon(), accounting.rdp_epsilon(events, plan.delta), ceilings)

    def as_dict(self) -> dict[str, Any]:
        """Every figure of the statement, JSON-able."""
        return {
            **self.plan.as_dict(),
            "sample_rate": self.plan.sample_rate,
            "epsilon": self.epsilon,
            "epsilon_rdp": self.epsilon_rdp,
            "attack_ceilings": [{"fpr": fpr, "tpr": tpr} for fpr, tpr in self.ceilings.items()],
            "text": str(self),
        }

    def __str__(self) -> str:
        plan = self.plan
        ceilings = " and ".join(f"{tpr:.2%} at {fpr:.1%}" for fpr, tpr in self.ceilings.items())
        return "\n".join(
            [
                f"Guarantee: ({self.epsilon:.4g}, {plan.delta:g})-differential privacy for one {plan.unit}, "
                f"neighbours by {plan.adjacency} of one {plan.unit}; it covers every intermediate model.",
                f"Sampler: {plan.sampling}, each of {plan.examples} examples enters a step independently with "
                f"q = {plan.sample_rate:.6g}; {plan.steps} steps. The number of examples is taken to be public.",
                f"Mechanism: {plan.clipping.describe(plan.unit)}; summed, plus Gaussian noise of {_noise(plan)} times "
                f"what one {plan.unit} can move the sum by, divided by the constant "
                f"{plan.clipping.normaliser(plan.expected_batch):g}.",
                f"Accountant: {plan.accountant.upper()}, rounded up; cross-check by RDP: {self.epsilon_rdp:.4g}.",
                f"Attack ceiling: no membership attack has a true positive rate above {ceilings} false positive rate "
                "(from the whole privacy curve of the PLD).",
                "Noise: pseudo-random and computed from the run's seed, in floating point. Whoever knows the seed can "
                "compute the noise and the draws again and undo the protection: keep the seed secret, and never train "
                "on two versions of the data with one seed. It does not withstand attacks on floating-point rounding.",
            ]
        )


def _noise(plan: PrivacyPlan) -> str:
    decay = "" if plan.noise_decay == 1 else f", {plan.noise_decay:g} times as much in each epoch as in the one before,"
    return f"sigma = {plan.noise_multiplier:.6g}{decay}"
