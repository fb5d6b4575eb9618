"""A probe: does a fast way of clipping give what one backward per example gives?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from trustnlp.dp.clipping import Clip, ClippedSum, LossFunction, Parameters, examples, per_unit_clipped_sum
from trustnlp.dp.validation import rounding
from trustnlp.errors import GuaranteeError
from trustnlp.models.protocol import Batch, Encoded
from trustnlp.models.training import seeded

_CANDIDATES = 8


def disagreement(
    fast: Callable[[Batch], ClippedSum],
    model: nn.Module,
    loss: LossFunction,
    data: Encoded,
    parameters: Parameters,
    clip: Clip,
) -> str:
    """What is wrong with `fast` on a few examples of `data`; empty if norms and sums are those of the slow path.

    The examples are taken in two orders, since a model may sort its rows by length. Random masks are the same on both
    sides: the slow path takes each row's gradient from the whole batch.

    Raises:
        GuaranteeError: a loss or a gradient that is not finite.
    """
    chosen = _of_unlike_lengths(data)
    device = next(iter(parameters.values())).device
    for order in (chosen, chosen[::-1]):
        batch = data.batch(order)
        with seeded(0, model):
            eps = rounding(model, loss, batch.to(device))
        rows = _row_by_row(model, loss, batch, parameters, clip)
        try:
            with seeded(0, model):
                found = fast(batch)
        except GuaranteeError:
            raise
        except Exception as error:  # the slow path went well, so whatever this is, it is the fast one's
            return f"in a probe it failed: {error}"
        if not _agree(found, rows, eps):
            return "in a probe its gradients were not those of one backward per example"
    return ""


class _Only:
    """Data that is one batch."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __len__(self) -> int:
        return len(self._batch)

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        del indices
        return self._batch


def _of_unlike_lengths(data: Encoded) -> list[int]:
    """The shortest, a middle and the longest of the first examples."""

    def size(index: int) -> int:
        return sum(tensor.numel() for tensor in data.batch([index]).inputs.values())

    ordered = sorted(range(min(_CANDIDATES, len(data))), key=size)
    return list(dict.fromkeys((ordered[0], ordered[len(ordered) // 2], ordered[-1])))


def _row_by_row(
    model: nn.Module, loss: LossFunction, batch: Batch, parameters: Parameters, clip: Clip
) -> list[ClippedSum]:
    """The slow path on every row of `batch`, with the random masks that the whole batch gets."""
    rows = []
    for row in range(len(batch)):

        def of_row(whole: Batch, row: int = row) -> Tensor:
            return loss(whole)[row]

        with seeded(0, model):
            rows.append(per_unit_clipped_sum(model, of_row, _Only(batch), examples([0]), parameters, clip))
    return rows


def _agree(found: ClippedSum, rows: Sequence[ClippedSum], eps: float) -> bool:
    """Whether norms and sums are equal up to the square root of `eps`, what a forward pass rounds to."""
    norms = torch.cat([row.norms for row in rows])
    expected = {name: torch.stack([row.gradients[name] for row in rows]).sum(0) for name in found.gradients}
    total = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    pairs = [(found.gradients[name], gradient, total) for name, gradient in expected.items()]
    return all(_close(*pair, eps) for pair in [(found.norms.to(norms.dtype), norms, norms.norm()), *pairs])


def _close(found: Tensor, expected: Tensor, scale: Tensor, eps: float) -> bool:
    """Whether two tensors differ by rounding, where the figures that were rounded may have been as large as `scale`."""
    return bool((found - expected).norm() <= eps**0.5 * expected.norm() + eps * (1 + 1e3 * scale))
