"""What a plan guarantees, in words that a reviewer can check and as a dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trustnlp.dp import accounting
from trustnlp.dp.micro_batches import MicroBatchClipping

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
                f"Unit: {_UNITS[plan.unit]}",
                f"Sampler: {plan.sampling}, each of {plan.examples} {plan.unit}s enters a step independently with "
                f"q = {plan.sample_rate:.6g}; {_truncation(plan)}{plan.steps} steps. The number of {plan.unit}s is "
                "taken to be public.",
                f"Mechanism: {plan.clipping.describe(plan.unit)}; summed, plus Gaussian noise of {_noise(plan)} times "
                f"what one {plan.unit} can move the sum by, divided by the constant "
                f"{plan.clipping.normaliser(plan.expected_batch):g}.",
                *_beside_exact(plan),
                f"Accountant: {plan.accountant.upper()}, rounded up; cross-check by RDP: {self.epsilon_rdp:.4g}.",
                f"Attack ceiling: no membership attack has a true positive rate above {ceilings} false positive rate "
                "(from the whole privacy curve of the PLD).",
                f"Noise: {_SOURCES[plan.noise]}",
            ]
        )


_UNITS = {
    "example": "one example. Somebody with several examples is not protected as a whole: with k of them, epsilon is up "
    "to k times as large, and delta more than k times. Where people have several, plan for users.",
    "user": "all examples of one user, however many, as far as users are named rightly. Who appears under two names is "
    "protected as two users, and what others wrote about a person is theirs.",
}
_SOURCES = {
    "seeded": "pseudo-random and computed from the run's seed, in floating point. Whoever knows the seed can compute "
    "the noise and the draws again and undo the protection: keep the seed secret. Two runs of one plan and one seed "
    "share their noise, whatever else differs (data, learning rate, first weights): publish one of them at most. It "
    "does not withstand attacks on floating-point rounding.",
    "secure": "from a cryptographic generator (AES-256 in counter mode) whose key comes from the operating system and "
    "is never stored, rounded to a public grid against attacks on floating point. The draws still come from the run's "
    "seed, and the guarantee rests on their secrecy too: keep the seed secret.",
}


def _noise(plan: PrivacyPlan) -> str:
    if plan.noise_decay == 1:
        return f"sigma = {plan.noise_multiplier:.6g}"
    last = plan.event(plan.steps - 1).noise_multiplier
    return (
        f"sigma = {plan.noise_multiplier:.6g} in the first epoch of {plan.steps_per_epoch} steps, {plan.noise_decay:g} "
        f"times as much in each epoch as in the one before, and {last:.6g} in the last (every step is accounted for "
        "with its own),"
    )


def _truncation(plan: PrivacyPlan) -> str:
    if plan.largest_batch is None:
        return ""
    share = accounting.kept_at_cap(plan.event(0))[0]
    return (
        f"of more than {plan.largest_batch} a random subset of {plan.largest_batch} is kept, in at most {share:.2g} of "
        f"the steps, where one {plan.unit} may take another's place and count twice; "
    )


def _beside_exact(plan: PrivacyPlan) -> list[str]:
    """What a reviewer should know who compares micro-batches with exact clipping."""
    if not isinstance(plan.clipping, MicroBatchClipping):
        return []
    size = plan.clipping.size
    return [
        f"Beside exact clipping: there, one {plan.unit} adds a gradient of norm C at most, and noise of sigma C is "
        f"enough. Here one {plan.unit} more can turn its micro-batch's mean gradient from any direction of norm C to "
        "the opposite, so by 2 C, and noise of 2 sigma C is added for the same guarantee. As the sum has "
        f"{size} times fewer terms, the mean gradient carries {2 * size} times the noise of exact clipping to that C."
    ]
