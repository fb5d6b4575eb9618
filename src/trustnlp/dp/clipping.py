"""Sums of per-example gradients, each clipped: the seam at which faster ways of clipping are fitted.

Shape legend: B examples of the draw.

A clipped-sum function takes (model, loss, data, indices, parameters, clip_norm) and returns a `ClippedSum`.
Guarantee of every such function: adding or removing one example moves the joint vector of all gradients by at most
`clip_norm` in L2 norm, up to rounding. `per_example_clipped_sum` is the reference, and the oracle of all others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from trustnlp import checks
from trustnlp.errors import GuaranteeError
from trustnlp.models.protocol import Batch, Encoded

LossFunction = Callable[[Batch], Tensor]
Parameters = Mapping[str, nn.Parameter]


@dataclass(frozen=True)
class ClippedSum:
    """What a draw's examples add up to. None of it may be published before noise is added.

    Args:
        gradients: parameter name -> sum of clipped gradients, in float32 or better.
        norms: (B,) gradient norms before clipping.
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
        indices: np.ndarray,
        parameters: Parameters,
        clip_norm: float,
    ) -> ClippedSum:
        """The clipped sum of the examples at `indices`, over `parameters`."""
        ...


def per_example_clipped_sum(
    model: nn.Module,
    loss: LossFunction,
    data: Encoded,
    indices: np.ndarray,
    parameters: Parameters,
    clip_norm: float,
) -> ClippedSum:
    """The clipped sum by one backward per example (Abadi et al. 2016, arXiv 1607.00133, algorithm 1).

    Each example's gradient g, over all parameters together, is multiplied by min(1, clip_norm / |g|).

    | case                                     | what happens                                    |
    |------------------------------------------|-------------------------------------------------|
    | no example                               | zeros, mean loss NaN                            |
    | g = 0, or |g| <= clip_norm               | g is added as it is                             |
    | a parameter that the loss does not reach | its gradient is 0                               |
    | a parameter used twice (tied weights)    | counted once, with the sum of both uses         |
    | NaN or infinity in a loss or gradient    | GuaranteeError: nothing bounds it               |
    | clip_norm 0, negative, NaN or infinite   | ArgumentError                                   |

    Sensitivity: clip_norm, for adding or removing one example.
    """
    checks.positive("clip_norm", clip_norm)
    tensors = list(parameters.values())
    sums = [torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in tensors]
    norms, losses = [], []
    with _sparse_embeddings(model):
        for index in indices:
            value = loss(data.batch([int(index)]).to(tensors[0].device)).sum()
            reached = _gradient(value, tensors, sums)
            norm = _norm([part for _, part in reached])
            refuse_unbounded(value.item(), norm)
            for total, part in reached:
                total.add_(part, alpha=clip_norm / max(norm, clip_norm))
            norms.append(norm)
            losses.append(value.item())
    mean_loss = sum(losses) / len(losses) if losses else math.nan
    return ClippedSum(dict(zip(parameters, sums, strict=True)), torch.tensor(norms), mean_loss)


def _gradient(loss: Tensor, parameters: list[nn.Parameter], sums: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """For each parameter that `loss` reaches its sum and its gradient, in the precision of the sum."""
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    pairs = [(total, part.to(total.dtype)) for total, part in zip(sums, gradients, strict=True) if part is not None]
    return [(total, part.coalesce() if part.is_sparse else part) for total, part in pairs]


def _norm(gradient: list[Tensor]) -> float:
    """The joint L2 norm; rows that a sparse gradient leaves out are 0."""
    return float(get_total_norm([part.values() if part.is_sparse else part for part in gradient]))


@contextmanager
def _sparse_embeddings(model: nn.Module) -> Iterator[None]:
    """Embeddings with sparse gradients: a dense one is as large as the vocabulary, for every single example."""
    dense = [m for m in model.modules() if isinstance(m, nn.Embedding) and not (m.sparse or m.scale_grad_by_freq)]
    try:
        for module in dense:
            module.sparse = True
        yield
    finally:
        for module in dense:
            module.sparse = False


def refuse_unbounded(loss: float, norm: float) -> None:
    """Checks that an example's loss and gradient norm are finite.

    Raises:
        GuaranteeError: one is NaN or infinite.
    """
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise GuaranteeError(
            f"an example has loss {loss} and a gradient of norm {norm}, which no clipping bounds",
            "lower the learning rate, or look for divisions and logarithms of 0 in the loss",
        )
