"""Sums of bounded vectors, one from each device, with noise on the sum: what private analytics are made of.

    device     vector v -> v min(1, B / |v|)                  bounded
    server     sum of these + noise of deviation z B          release

The server needs the noised sum alone, and not who sent what. Here one process adds the noise; secure aggregation would
take sums of the same vectors.

    gaussian           real vectors; accounted for by PLD
    discrete-gaussian  whole numbers, as modular sums need them; its Renyi divergences are at most the Gaussian's
                       (Canonne, Kamath and Steinke 2020, arXiv 2004.00010), and by these it is accounted for

Shape legend: n devices, d entries.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.optimize import brentq

from trustnlp import checks
from trustnlp.dp import accounting
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.federated import device_plan
from trustnlp.randomness import Streams

Array = NDArray[np.float64]

KINDS = ("gaussian", "discrete-gaussian")


@dataclass(frozen=True)
class Guarantee:
    """What a figure costs, in privacy.

    Args:
        epsilon, delta: of everything that is released with it.
        mechanism: in words.
        unit: whom it protects.
        adjacency: what neighbouring populations differ by.
    """

    epsilon: float
    delta: float
    mechanism: str
    unit: str = "device"
    adjacency: str = "add-remove"

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"({self.epsilon:.4g}, {self.delta:.3g})-differential privacy for one {self.unit}, neighbours by "
            f"{self.adjacency} of one {self.unit}: {self.mechanism}"
        )


@dataclass(frozen=True)
class NoisySum:
    """A released sum.

    Args:
        values: (d,) the sums with noise; nothing is cut off, so counts may be negative.
        std: standard deviation of the noise in each entry.
        kind: of the noise.
    """

    values: Array = field(repr=False)
    std: float
    kind: str = "gaussian"

    def margin(self, level: float = 0.95, figures: int = 1) -> float:
        """Half the width of an interval that covers the sum without noise; of all `figures` at once (Bonferroni).

        Says nothing of devices that were not asked. Discrete noise has 1 more, as its tails are within those of a
        Gaussian moved by 1 (Canonne, Kamath and Steinke 2020, proposition 25).
        """
        checks.inside("level", level, 0, 1)
        tail = (1 - level) / 2 / checks.at_least("figures", figures, 1)
        return float(stats.norm.isf(tail)) * self.std + (self.kind != "gaussian")


@dataclass(frozen=True)
class PrivateSum:
    """How sums of bounded vectors are released.

    Guarantee: all `releases` together are (`epsilon()`, `delta`)-differentially private for one device that sends one
    vector to each, under adding or removing it. Vectors may be chosen by earlier releases.

    Args:
        bound: B > 0, the largest L2 norm of a device's vector.
        noise_multiplier: z; each entry's noise has standard deviation z B.
        delta: in (0, 1), well below 1 / number of devices.
        releases: how many sums.
        kind: `gaussian`, or `discrete-gaussian` for whole numbers.
        noise: `seeded` can be computed again by whoever knows the seed; `secure`, of Gaussian noise alone, by nobody.

    Raises:
        ArgumentError: a field breaks its rule.
        GuaranteeError: no bound, or noise that protects nobody.
    """

    bound: float
    noise_multiplier: float
    delta: float
    releases: int = 1
    kind: str = "gaussian"
    noise: str = "seeded"

    def __post_init__(self) -> None:
        device_plan.refuse_unbounded(self.bound)
        device_plan.check_noise(self.noise_multiplier, self.delta, 1)
        checks.at_least("releases", self.releases, 1)
        checks.one_of("kind", self.kind, KINDS)
        checks.one_of("noise", self.noise, ("seeded", "secure"))
        if (self.kind, self.noise) == ("discrete-gaussian", "secure"):
            raise ArgumentError("noise", "'seeded' for discrete noise", self.noise, "use kind='gaussian'")

    @classmethod
    def for_budget(cls, epsilon: float, delta: float, bound: float, **fields: Any) -> PrivateSum:
        """The one with the least noise that spends at most `epsilon`, and at least 99% of it.

        Raises:
            ArgumentError: an argument breaks its rule.
            GuaranteeError: no noise reaches the budget, or so little that it protects nobody.
        """
        checks.positive("epsilon", epsilon, "give a budget such as 1")
        draft = cls(bound, accounting.MOST_NOISE, delta, **fields)
        if draft.kind == "gaussian":
            factor = accounting.calibrate(epsilon, delta, draft.events())
            return cls(bound, accounting.MOST_NOISE * factor, delta, **fields)

        def excess(log_noise: float) -> float:
            return cls(bound, math.exp(log_noise), delta, **fields).epsilon() - 0.995 * epsilon

        ends = math.log(accounting.LEAST_NOISE), math.log(accounting.MOST_NOISE)
        if not excess(ends[0]) > 0 > excess(ends[1]):
            raise GuaranteeError(f"no noise of 0.1 to 16384 spends epsilon {epsilon:g}", "give another epsilon")
        return cls(bound, math.exp(brentq(excess, *ends, xtol=1e-4)), delta, **fields)

    @property
    def std(self) -> float:
        """Of the noise in each entry: z B."""
        return self.noise_multiplier * self.bound

    def epsilon(self) -> float:
        """Epsilon at `delta` of all releases: by PLD, of discrete noise by Renyi divergences."""
        spent = accounting.epsilon if self.kind == "gaussian" else accounting.rdp_epsilon
        return spent(self.events(), self.delta)

    def guarantee(self) -> Guarantee:
        """Of all releases together."""
        times = "one sum" if self.releases == 1 else f"{self.releases} sums"
        how = f"{times} of vectors of norm {self.bound:g} at most, plus {self.kind} noise of deviation {self.std:.4g}"
        return Guarantee(self.epsilon(), self.delta, how)

    def bounded(self, vector: ArrayLike) -> Array:
        """(d,) the device's vector within the bound; zeros where it holds NaN or infinity.

        With discrete noise entries are cut to whole numbers towards 0, which makes no norm larger.
        """
        found = device_plan.bounded(torch.tensor(np.asarray(vector, dtype=np.float64)), self.bound).numpy()
        return found if self.kind == "gaussian" else np.trunc(found)

    def total(self, vectors: Iterable[ArrayLike]) -> Array:
        """(d,) the sum of the devices' bounded vectors, one from each. Not to be published."""
        total: Array | None = None
        for vector in vectors:
            part = self.bounded(vector)
            total = part if total is None else total + part
        if total is None:
            raise ArgumentError("vectors", "from at least one device", "none")
        return total

    def release(self, total: ArrayLike, streams: Streams, number: int = 0) -> NoisySum:
        """The sum with noise.

        Args:
            total: (d,) sum of what `bounded` returned.
            streams: of seeded noise; another one, or a child, for every query.
            number: of the release, from 0 to `releases` - 1, each once.

        Raises:
            ArgumentError: a number outside the plan.
            GuaranteeError: a sum that is NaN or infinite, or not of whole numbers where noise is discrete.
        """
        exact = np.array(total, dtype=np.float64)
        if not 0 <= number < self.releases:
            raise ArgumentError("number", f"one of the {self.releases} releases that are paid for, from 0", number)
        if self.kind == "gaussian":
            source = device_plan.noise_source(self.noise, streams)
            noisy = device_plan.noised("private sum", torch.from_numpy(exact), self.std, 1.0, number, source)
            return NoisySum(noisy.numpy(), self.std)
        if not (np.isfinite(exact) & (exact == np.trunc(exact))).all():
            raise GuaranteeError("discrete noise hides whole numbers alone", "sum what bounded() returned")
        generator = streams.numpy("noise/private sum", number)
        return NoisySum(exact + discrete_gaussian(self.std, exact.shape, generator), self.std, self.kind)

    def events(self) -> tuple[accounting.Event, ...]:
        """What all releases spend of a device."""
        return (accounting.Event(1.0, self.noise_multiplier, self.releases),)


def discrete_gaussian(sigma: float, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Whole numbers x with probability proportional to exp(-x^2 / (2 sigma^2)), of `shape`.

    By rejection from discrete Laplace noise (Canonne, Kamath and Steinke 2020, algorithm 3); where they use exact
    fractions, probabilities here are double precision, and time depends on what is drawn.
    """
    checks.positive("sigma", sigma)
    scale = math.floor(sigma) + 1
    found: list[Array] = []
    missing = math.prod(shape)
    while missing > 0:
        ends = generator.geometric(-math.expm1(-1 / scale), (2, 2 * missing))
        drawn = (ends[0] - ends[1]).astype(np.float64)
        log_accept = -((np.abs(drawn) - sigma**2 / scale) ** 2) / (2 * sigma**2)
        kept = drawn[np.log1p(-generator.random(len(drawn))) <= log_accept][:missing]
        found.append(kept)
        missing -= len(kept)
    return np.concatenate([np.empty(0), *found]).reshape(shape)
