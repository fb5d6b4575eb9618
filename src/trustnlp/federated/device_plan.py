"""What every plan of user-level privacy shares: what it refuses, how updates are bounded, noised and told about.

A plan is a frozen record of all that decides a guarantee for one device with all its texts. The two kinds of plans,
`user_privacy` and `factorised_privacy`, differ in what they assume of draws and in the noise of later rounds.

Shape legend: P entries of an update.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trustnlp import checks
from trustnlp.dp import accounting
from trustnlp.dp.ledger_plan import WrittenPlan
from trustnlp.dp.noise import Noise, SeededNoise
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.randomness import Streams

_NOT_POISSON = "use selection='poisson', or factorised_privacy, which assumes nothing of draws"
REFUSED = {
    ("adjacency", "replace"): (
        "replacing a device moves the sum by twice the clip norm, and the noise is not calibrated for that",
        "use adjacency='add-remove'",
    ),
    ("selection", "fixed-size"): (
        "in a cohort of fixed size one device displaces another, and the accountant's amplification is not that of "
        "independent draws",
        _NOT_POISSON,
    ),
    ("selection", "multinomial"): (
        "a device that is drawn twice counts twice, and draws that share a size are not independent",
        _NOT_POISSON,
    ),
    ("selection", "by-loss"): (
        "who is drawn depends on losses of private texts, which leave the devices without noise",
        "use selection='poisson' with rates that follow from public constants and the device's own activity",
    ),
    ("weights", "samples"): (
        "weighted by its number of texts, an update moves the sum by more than the clip norm",
        "use weights='equal', and let the rates favour active devices",
    ),
    ("denominator", "realised-cohort"): (
        "the number of devices drawn is private, and dividing by it lets one device change every other's share",
        "use denominator='expected-cohort'",
    ),
    ("aggregation", "buffered"): (
        "in an asynchronous buffer a device may arrive several times in one release, and arrivals are not "
        "independent draws",
        "use aggregation='synchronous'",
    ),
    ("device_state", "released"): (
        "control variates or other device state that is sent beside the update is neither bounded nor noised "
        "(SCAFFOLD)",
        "send one vector of both within the bound (device_state='within-bound'), or keep the state on the device",
    ),
    ("metrics", "exact"): (
        "losses and accuracies of a cohort are figures of private texts, and nothing would noise them",
        "use metrics='noised' with private_evaluation, or 'none'",
    ),
    ("noise", "none"): ("without noise nothing is guaranteed", "train without a plan to train without privacy"),
}
FALSE_POSITIVE_RATES = (0.001, 0.01)
_CLOSE, _VAST = 1e-2, 200.0  # epsilons: steps of a search, and where it ends
SOURCES = {
    "seeded": "pseudo-random, from the run's seed. Whoever knows the seed can undo the protection: keep it secret, and "
    "publish at most one run of a plan and a seed.",
    "secure": "from a cryptographic generator whose key is never stored. The draws still come from the run's seed: "
    "keep it secret.",
}
# Entries of a scaled vector are rounded, each by a relative 2^-24 at most: its norm must not end above the bound.
_BELOW = 1 - 2.0**-22


@dataclass(frozen=True)
class DeviceStatement(ABC):
    """The guarantee of a plan; `own_figures` and `own_lines` are what one kind of plan adds.

    Args:
        plan: what was asked for.
        epsilon: of all rounds, by PLD.
        epsilon_rdp: the same by RDP, the cross-check.
        ceilings: false positive rate -> the largest true positive rate of any attack that asks whether a device took
            part.
    """

    plan: Any
    epsilon: float
    epsilon_rdp: float
    ceilings: Mapping[float, float]

    @classmethod
    def figures_of(cls, plan: Any) -> dict[str, Any]:
        """The fields that all statements have, computed from what the plan releases."""
        events = plan.events()
        return {
            "plan": plan,
            "epsilon": plan.epsilon(),
            "epsilon_rdp": accounting.rdp_epsilon(events, plan.delta),
            "ceilings": {fpr: accounting.attack_ceiling(events, fpr) for fpr in FALSE_POSITIVE_RATES},
        }

    @abstractmethod
    def own_figures(self) -> Mapping[str, Any]:
        """Figures beside those of all statements, JSON-able."""

    @abstractmethod
    def __str__(self) -> str: ...

    def as_dict(self) -> dict[str, Any]:
        """Every figure of the statement, JSON-able."""
        return {
            **self.plan.as_dict(),
            "epsilon": self.epsilon,
            "epsilon_rdp": self.epsilon_rdp,
            **self.own_figures(),
            "attack_ceilings": [{"fpr": fpr, "tpr": tpr} for fpr, tpr in self.ceilings.items()],
            "text": str(self),
        }

    def closing_lines(self) -> list[str]:
        """How the figures were found, what they mean for attacks, and where the noise comes from."""
        ceilings = " and ".join(f"{tpr:.2%} at {fpr:.1%}" for fpr, tpr in self.ceilings.items())
        return [
            f"Accountant: PLD, rounded up; cross-check by RDP: {self.epsilon_rdp:.4g}.",
            f"Attack ceiling: no attack that asks whether a device took part has a true positive rate above "
            f"{ceilings} false positive rate.",
            f"Noise: {SOURCES[self.plan.noise]}",
        ]


def check_fields(
    plan: Any, allowed: Mapping[str, tuple[str, ...]], refused: Mapping[tuple[str, str], tuple[str, str]]
) -> None:
    """Checks that a plan's fields have one of the allowed values.

    Args:
        plan: with these fields.
        allowed: values by field.
        refused: reason and mend by field and value.

    Raises:
        GuaranteeError: a value that is refused for a reason.
        ArgumentError: a value that is unknown.
    """
    for name, options in allowed.items():
        value = getattr(plan, name)
        if (name, value) in refused:
            raise GuaranteeError(*refused[name, value])
        checks.one_of(name, value, options)


def bounded(update: Tensor, clip_norm: float) -> Tensor:
    """`update`, scaled so that its L2 norm is at most `clip_norm` > 0; zeros where it holds NaN or infinity.

    Raises:
        ArgumentError: it is not a float32 or float64 vector.
    """
    if update.ndim != 1 or update.dtype not in (torch.float32, torch.float64):
        raise ArgumentError("update", "a float32 or float64 vector", (update.dtype, tuple(update.shape)))
    norm = float(torch.linalg.vector_norm(update, dtype=torch.float64))
    if not math.isfinite(norm):  # no finite vector of float32 gets there; one of float64 must be beyond 1e154
        return torch.zeros_like(update)
    return update.clone() if norm <= clip_norm else update * (_BELOW * clip_norm / norm)


def noised(name: str, total: Tensor, std: float, divisor: float, block: int, source: Noise) -> Tensor:
    """(total + N(0, std^2)) / divisor, a new tensor.

    Raises:
        GuaranteeError: the total is NaN or infinite.
    """
    if not bool(torch.isfinite(total).all()):
        raise GuaranteeError("the sum is NaN or infinite, so not one of bounded updates", "bound every update first")
    released = total.clone()
    source.release_({name: released}, block, {name: std}, divisor)
    return released


def noise_source(noise: str, streams: Streams) -> Noise:
    """The source of `seeded` or `secure` noise."""
    if noise == "seeded":
        return SeededNoise(streams)
    from trustnlp.dp.secure_noise import SecureNoise

    return SecureNoise()


def own_streams(plan: WrittenPlan, streams: Streams) -> Streams:
    """Those of a plan's noise: no two plans share any, so that what one seed releases of both cannot be subtracted."""
    return streams.child(f"dp/{plan.digest()}")


def text_epsilon(events: Sequence[accounting.Event], delta: float) -> float:
    """Epsilon at `delta` of one text that a device has or lacks, which is more than that of the device.

    A text that goes is a device that leaves with it and comes back without it: two changes, so (2 e, (1 + exp e) d)
    for every (e, d) that the events have. The least e is taken for which the second is at most `delta`; infinite where
    it is beyond 200. By RDP, as a PLD has no tail for so small a d.

    Args:
        events: that were released of the device.

    Source: group privacy, Dwork and Roth 2014, "The Algorithmic Foundations of Differential Privacy", section 2.3.
    """
    if not events:
        return 0.0
    tried, found = 0.0, accounting.rdp_epsilon(events, delta)
    while found > tried:
        tried = found + _CLOSE
        if tried > _VAST:
            return math.inf
        found = accounting.rdp_epsilon(events, delta / (1 + math.exp(tried)))
    return 2 * tried


def refuse_unbounded(clip_norm: Any) -> float:
    """`clip_norm` as a float > 0.

    Raises:
        GuaranteeError: there is none, or it is infinite.
        ArgumentError: it is no number > 0.
    """
    if clip_norm is None or clip_norm == math.inf:
        raise GuaranteeError(
            "without a clip norm one device can move the sum by any amount, and no noise covers that",
            "give a clip_norm, such as the median norm of updates",
        )
    return float(checks.positive("clip_norm", clip_norm))


def check_noise(noise_multiplier: float, delta: float, devices: int) -> None:
    """Checks that noise protects and that delta is below 1/K.

    Raises:
        ArgumentError: delta is not.
        GuaranteeError: noise so low that it protects nobody.
    """
    checks.positive("noise_multiplier", noise_multiplier, "train without a plan to train without privacy")
    if noise_multiplier < accounting.LEAST_NOISE:
        raise GuaranteeError(
            f"a noise multiplier of {noise_multiplier:g}, below {accounting.LEAST_NOISE}, protects nobody",
            "use more noise, or train without a plan to train without privacy",
        )
    checks.inside("delta", delta, 0, 1, "a delta such as 1e-6 is common")
    if delta * devices >= 1:
        mend = "a larger delta would allow publishing one device's texts"
        raise ArgumentError("delta", f"below 1/K = {1 / devices:.3g}", delta, mend)
