"""Models of one layer, data that is tensors, and the comparison of book-keeping with one backward per example."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from small_text import flat, trainable
from torch import Tensor, nn

from trustnlp.dp import FlatClipping, per_unit_clipped_sum
from trustnlp.dp.book_keeping import BookKeeping
from trustnlp.dp.clipping import Clip, ClippedSum, Clipping, examples
from trustnlp.models.protocol import Batch


@dataclass(frozen=True)
class Rows:
    """Tensors with one row per example."""

    tensors: dict[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        rows = torch.as_tensor(list(indices), dtype=torch.long)
        return Batch({name: tensor[rows] for name, tensor in self.tensors.items()}, {})


class Calls(nn.Module):
    """A layer called once for every tensor of the batch; the losses bend, so that gradients differ by example."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def loss(self, batch: Batch) -> Tensor:
        outputs = [self.layer(tensor) for tensor in batch.inputs.values()]
        outputs = [output if isinstance(output, Tensor) else self.all_of(output) for output in outputs]
        return torch.stack([(output * 1.3).sin().flatten(1).sum(1) for output in outputs]).sum(0)

    @staticmethod
    def all_of(recurrent: tuple[Tensor, tuple[Tensor, Tensor]]) -> Tensor:
        """Hidden states, last state and last cell, all of which have gradients."""
        states, (last, cell) = recurrent
        return torch.cat([states.flatten(1), 2 * last.transpose(0, 1).flatten(1), cell.transpose(0, 1).flatten(1)], 1)


class Loss(nn.Module):
    """Any function of a module and a batch as a model."""

    def __init__(self, loss: Callable[[nn.Module, Batch], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self._loss = loss
        for name, layer in layers.items():
            self.add_module(name, layer)

    def loss(self, batch: Batch) -> Tensor:
        return self._loss(self, batch)


def random_weights(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in float64, no weight of which is 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.double().parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.6)
    return model


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whole(*shape: int, below: int, seed: int = 0) -> Tensor:
    return torch.randint(0, below, shape, generator=torch.Generator().manual_seed(seed))


def clip_of(model: nn.Module, clipping: Clipping | float) -> Clip:
    """The clipping, or flat clipping to a norm, at the first step."""
    clipping = clipping if isinstance(clipping, Clipping) else FlatClipping(clipping)
    groups = clipping.groups(model, trainable(model))
    return Clip(clipping, groups, clipping.thresholds(len(set(groups.values()))))


def both(
    model, data, clipping: Clipping | float, physical_batch: int = 64, indices=None
) -> tuple[BookKeeping, ClippedSum, ClippedSum]:
    """The engine asked, what it found, and what one backward per example finds."""
    units = examples(np.arange(len(data)) if indices is None else indices)
    fast, clip = BookKeeping(physical_batch), clip_of(model, clipping)
    found = fast(model, model.loss, data, units, trainable(model), clip)
    return fast, found, per_unit_clipped_sum(model, model.loss, data, units, trainable(model), clip)


def same(found: ClippedSum, expected: ClippedSum, tolerance: float = 1e-10) -> bool:
    """Whether two clipped sums are equal but for rounding; the reference gives norms in float32."""
    one, other = flat(found.gradients), flat(expected.gradients)
    return (
        list(found.gradients) == list(expected.gradients)
        and float((one - other).norm()) <= tolerance * max(1e-3, float(other.norm()))
        and torch.allclose(found.norms.float(), expected.norms.float(), rtol=1e-6, atol=1e-9)
    )


def assert_one_backward_is_exact(model, data, clipping: Clipping | float = 0.1, **options) -> None:
    fast, found, expected = both(model, data, clipping, **options)
    assert fast.fallback == ""
    assert same(found, expected)
