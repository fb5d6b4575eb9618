"""What bounds a gradient: units, clips, clipped sums, and the slow sum that is the oracle of all faster ones.

Shape legend: U units of the draw, K groups of parameters that are clipped together.

    unit        what is clipped as one: an example, all examples of a user, a micro-batch
    Clipping    the frozen choice in a plan: groups, thresholds, factors, units and sensitivity
    Clip        a clipping at one step: group of each parameter and the thresholds of that step

A clipped-sum function takes (model, loss, data, units, parameters, clip) and returns a `ClippedSum`. Guarantee of
every such function: adding or removing one unit moves the gradients of group k by at most the clip's threshold k in L2
norm, up to rounding. `per_unit_clipped_sum` is the reference.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from trustnlp import checks
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.models.protocol import Batch, Encoded

if TYPE_CHECKING:
    from trustnlp.dp.adaptive_thresholds import Quantile

_LEAST = 1e-30  # below, a threshold may be 0 in single precision, and 0 / 0 clips nothing
LossFunction = Callable[[Batch], Tensor]
Parameters = Mapping[str, nn.Parameter]


@dataclass(frozen=True)
class Unit:
    """Examples whose gradients are added up and clipped as one.

    Args:
        rows: indices of the examples; may be empty.
        weight: what each of their losses is multiplied by, a public constant.
    """

    rows: np.ndarray
    weight: float = 1.0


def examples(indices: np.ndarray | Sequence[int]) -> list[Unit]:
    """Every example a unit of its own."""
    return [Unit(row) for row in np.asarray(indices, int).reshape(-1, 1)]


class Clipping(ABC):
    """How gradients are bounded; a frozen record, part of the plan, since it decides what noise is enough.

    Attributes:
        kind: its name in a plan's JSON.
        sensitivity: by how many thresholds at most one protected unit moves a group's sum.
        adapt: how thresholds follow the data, at the budget's expense; None keeps them.
    """

    kind: ClassVar[str]
    sensitivity: ClassVar[float] = 1.0
    adapt: Quantile | None = None

    def groups(self, model: nn.Module, parameters: Parameters) -> dict[str, int]:
        """The group, 0 to K - 1, of each parameter by name; all in one."""
        del model
        return dict.fromkeys(parameters, 0)

    @abstractmethod
    def thresholds(self, count: int) -> Tensor:
        """(count,) thresholds to begin with, in float64."""

    def factors(self, norms: Tensor, thresholds: Tensor) -> Tensor:
        """What units are multiplied by, (U, K), given their norms (U, K): min(1, C / norm)."""
        return thresholds / torch.maximum(norms, thresholds)

    def units(self, indices: np.ndarray, expected: int, generator: np.random.Generator) -> list[Unit]:
        """The units that a draw's examples form, where `expected` examples are drawn on average."""
        del expected, generator
        return examples(indices)

    def normaliser(self, expected: int) -> float:
        """The public constant that the noisy sum is divided by, where `expected` examples are drawn on average."""
        return float(expected)

    def sum_function(self) -> ClippedSumFunction:
        """The fastest way to its clipped sums."""
        from trustnlp.dp.book_keeping import BookKeeping

        return BookKeeping()

    @abstractmethod
    def describe(self, unit: str) -> str:
        """What is clipped to what, in words, where `unit` is protected."""

    def as_dict(self) -> dict[str, Any]:
        """Its kind and fields, JSON-able."""
        return {"kind": self.kind, **asdict(self)}  # type: ignore[call-overload]


@dataclass(frozen=True)
class Clip:
    """A clipping at one step.

    Args:
        clipping: the plan's.
        groups: parameter name -> group.
        thresholds: (K,) the largest L2 norms of a unit's gradient in each group, > 0.
    """

    clipping: Clipping
    groups: Mapping[str, int]
    thresholds: Tensor

    def __post_init__(self) -> None:
        for value in self.thresholds.tolist():
            checks.positive("clip_norm", value)
            if value < _LEAST:
                raise ArgumentError("clip_norm", f"{_LEAST:g} or more, as single precision needs it", value)
        if set(self.groups.values()) != set(range(len(self.thresholds))):
            rule = f"one of {len(self.thresholds)} groups for each parameter, and no group without one"
            raise ArgumentError("groups", rule, sorted(set(self.groups.values())))

    def factors(self, norms: Tensor) -> Tensor:
        """(U, K) what units are multiplied by, given their norms (U, K)."""
        return self.clipping.factors(norms, self.thresholds.to(norms))


@dataclass(frozen=True)
class ClippedSum:
    """What a draw's units add up to. None of it may be published before noise is added.

    Args:
        gradients: parameter name -> sum of clipped gradients, in float32 or better.
        norms: (U, K) gradient norms before clipping.
        mean_loss: of the examples; NaN for an empty draw.
    """

    gradients: dict[str, Tensor]
    norms: Tensor
    mean_loss: float


class ClippedSumFunction(Protocol):
    """A way to compute a clipped sum."""

    def __call__(
        self,
        model: nn.Module,
        loss: LossFunction,
        data: Encoded,
        units: Sequence[Unit],
        parameters: Parameters,
        clip: Clip,
    ) -> ClippedSum:
        """The clipped sum of the units, over `parameters`."""
        ...


def per_unit_clipped_sum(
    model: nn.Module,
    loss: LossFunction,
    data: Encoded,
    units: Sequence[Unit],
    parameters: Parameters,
    clip: Clip,
    physical_batch: int | None = None,
) -> ClippedSum:
    """The clipped sum by one backward per unit (Abadi et al. 2016, arXiv 1607.00133, algorithm 1).

    Each unit's gradient in each group is multiplied by the clip's factor. A unit of more than `physical_batch` examples
    goes through the model in parts of at most so many, which saves memory and changes nothing else.

    | case                                     | what happens                                    |
    |------------------------------------------|-------------------------------------------------|
    | no unit                                  | zeros, mean loss NaN                            |
    | a unit without examples                  | its gradient and norms are 0                    |
    | g = 0, or |g| <= threshold (flat)        | g is added as it is                             |
    | a parameter that the loss does not reach | its gradient is 0                               |
    | a parameter used twice (tied weights)    | counted once, with the sum of both uses         |
    | NaN or infinity in a loss or gradient    | GuaranteeError: nothing bounds it               |

    Sensitivity: threshold k in group k, for adding or removing one unit.
    """
    tensors = list(parameters.values())
    groups = [clip.groups[name] for name in parameters]
    sums = [torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in tensors]
    norms, losses = torch.zeros(len(units), len(clip.thresholds), dtype=torch.float64), []
    with _sparse_embeddings(model):
        for number, unit in enumerate(units):
            if not len(unit.rows):
                continue
            gradient: list[Tensor | None] = [None] * len(tensors)
            parts = []
            for rows in _split(unit.rows, physical_batch):
                values = loss(data.batch(rows).to(tensors[0].device))
                gradient = _added(gradient, _gradient(unit.weight * values.sum(), tensors, sums))
                parts.append(values.detach().flatten())
            values = torch.cat(parts)
            norms[number] = _norms(gradient, groups, len(clip.thresholds))
            refuse_unbounded(float(values.sum()), float(norms[number].norm()))
            factors = clip.factors(norms[number : number + 1])[0].tolist()
            for total, part, group in zip(sums, gradient, groups, strict=True):
                if part is not None:
                    total.add_(part, alpha=factors[group])
            losses += values.tolist()
    mean_loss = sum(losses) / len(losses) if losses else math.nan
    return ClippedSum(dict(zip(parameters, sums, strict=True)), norms, mean_loss)


def _gradient(loss: Tensor, parameters: list[nn.Parameter], sums: list[Tensor]) -> list[Tensor | None]:
    """The gradient of each parameter in the precision of its sum; None where `loss` does not reach it."""
    parts = torch.autograd.grad(loss, parameters, allow_unused=True)
    same = [None if part is None else part.to(total.dtype) for total, part in zip(sums, parts, strict=True)]
    return [part.coalesce() if part is not None and part.is_sparse else part for part in same]


def _split(rows: np.ndarray, size: int | None) -> list[np.ndarray]:
    return np.array_split(rows, 1 if size is None else -(-len(rows) // size))


def _added(gradient: list[Tensor | None], more: list[Tensor | None]) -> list[Tensor | None]:
    """Their sum, where None is 0."""
    pairs = zip(gradient, more, strict=True)
    total = [one if other is None else other if one is None else one + other for one, other in pairs]
    return [part.coalesce() if part is not None and part.is_sparse else part for part in total]


def _norms(gradient: Sequence[Tensor | None], groups: list[int], count: int) -> Tensor:
    """(K,) L2 norms of each group; rows that a sparse gradient leaves out are 0."""
    reached = [(part, group) for part, group in zip(gradient, groups, strict=True) if part is not None]
    squares = torch.zeros(count, dtype=torch.float64)
    if reached:
        norms = torch._foreach_norm([part.values() if part.is_sparse else part for part, _ in reached])
        values = torch.stack([norm.to(reached[0][0].device) for norm in norms]).double().cpu()  # waits once
        squares.index_add_(0, torch.tensor([group for _, group in reached]), values.square())
    return squares.sqrt()


@contextmanager
def _sparse_embeddings(model: nn.Module) -> Iterator[None]:
    """Embeddings with sparse gradients: a dense one is as large as the vocabulary, for every single unit."""
    trained = [m for m in model.modules() if isinstance(m, nn.Embedding) and m.weight.requires_grad]
    dense = [module for module in trained if not (module.sparse or module.scale_grad_by_freq)]
    try:
        for module in dense:
            module.sparse = True
        yield
    finally:
        for module in dense:
            module.sparse = False


def refuse_unbounded(loss: float, norm: float) -> None:
    """Checks that a unit's loss and gradient norm are finite.

    Raises:
        GuaranteeError: one is NaN or infinite.
    """
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise GuaranteeError(
            f"an example has loss {loss} and a gradient of norm {norm}, which no clipping bounds",
            "lower the learning rate, or look for divisions and logarithms of 0 in the loss",
        )
