"""What a forward and a backward pass leave behind for book-keeping: inputs of layers, gradients of their outputs.

A tape belongs to one rule and one physical batch. It refuses whatever would make the kept tensors mean something else:
another first dimension than the batch, tensors changed after they were kept, a second backward pass.

Gradient checkpointing computes layers a second time, in backward. Without reentrance the gradients belong to the first
time, and the second leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from trustnlp.dp.ghost_norms import Choose
from trustnlp.dp.unit_rows import UnitRows


class UnsupportedUseError(Exception):
    """A model uses a layer in a way that book-keeping cannot follow, so the slow exact path must be taken."""


class Kept:
    """A tensor, and a way to know later that nobody has written to it since.

    Attributes:
        shared: whether several layers have kept it.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor.detach()
        self._version = tensor._version
        self._products: Tensor | None = None
        self.shared = False

    def __call__(self) -> Tensor:
        """The tensor, in float32 or better.

        Raises:
            UnsupportedUseError: it was written to.
        """
        if self._tensor._version != self._version:
            raise UnsupportedUseError("a layer's input or output was overwritten in place")
        if not self._tensor.is_floating_point():
            return self._tensor
        return self._tensor.to(torch.promote_types(self._tensor.dtype, torch.float32))

    def products(self) -> Tensor:
        """(B, T, T) inner products of all pairs of positions of (B, ..., D), made once for all who share it."""
        if self._products is None:
            value = self().reshape(len(self._tensor), -1, self._tensor.shape[-1])
            self._products = value @ value.mT
        return self._products


Shared = MutableMapping[tuple[Any, ...], Kept]


class Use:
    """One call of a layer: its input, and the gradient of its output once backward has come by."""

    def __init__(self, value: Kept) -> None:
        self.value = value
        self.gradient: Kept | None = None

    def forget(self) -> None:
        """Lets go of both tensors; autograd's graph may hold this record for longer than they are needed."""
        del self.value
        self.gradient = None


class Tape:
    """Watches the outputs of the layers of one rule in one physical batch.

    Args:
        examples: B, the first dimension of everything that is watched.
        device: of the model.
        units: what the examples form; every example a unit of its own if None.
        shared: inputs that other tapes of this batch have kept.
        finished: called in backward when the gradients of all calls have come by.
        choose: which form of the norms is cheapest for inputs and output gradients; counted if None.
    """

    def __init__(
        self,
        examples: int,
        device: torch.device,
        units: UnitRows | None = None,
        shared: Shared | None = None,
        finished: Callable[[], None] | None = None,
        choose: Choose | None = None,
    ) -> None:
        self._examples = examples
        self._device = device
        self._shared: Shared = WeakValueDictionary() if shared is None else shared
        self._finished = finished
        self._uses: list[Use] = []
        self._awaited = 0
        self._closed = False
        self.units = units or UnitRows.single(examples)
        self.choose = choose
        self.in_backward = False

    def watch(self, value: Tensor, output: Tensor) -> tuple[Use, Tensor]:
        """The record of a call, and the output to go on with.

        Where all examples share one row, such as positions, that row is given to each of them: the sum of their
        gradients would not do.

        Raises:
            UnsupportedUseError: the first dimension of input or output is not the batch's.
        """
        rows = {len(value) if value.dim() else 0, len(output) if output.dim() > 1 else 0}
        if rows == {1} and self._examples > 1:
            value, output = (tensor.expand(self._examples, *tensor.shape[1:]) for tensor in (value, output))
        elif rows != {self._examples}:
            shapes = f"{tuple(value.shape)} to {tuple(output.shape)}"
            raise UnsupportedUseError(f"a layer maps {shapes} in a batch of {self._examples} examples")
        use = Use(self._kept(value))
        self._uses.append(use)
        if torch.is_grad_enabled():
            if not output.requires_grad:
                anchor = torch.zeros((), device=self._device, requires_grad=True)
                output = _Anchored.apply(output, anchor)
            elif _is_partial_view(output):
                output = output.clone()
            self._listen(use, output)
        return use, output

    def close(self) -> None:
        """Forgets everything; from now on a gradient that comes by is too late to be clipped."""
        self._closed = True
        for use in self._uses:
            use.forget()
        self._uses.clear()

    def _kept(self, value: Tensor) -> Kept:
        """The record of a tensor, one for all layers that read it; while it lives, so does the tensor's memory."""
        key = value.data_ptr(), value.shape, value.stride(), value.dtype, value._version
        kept = self._shared.get(key)
        if kept is None:
            kept = self._shared[key] = Kept(value)
        else:
            kept.shared = True
        return kept

    def _listen(self, use: Use, output: Tensor) -> None:
        """Keeps the gradient of `output`; through its base if it is a view, as views lose hooks when written to."""

        def receive(gradient: Tensor) -> None:
            if not self.in_backward or self._closed or use.gradient is not None:
                raise UnsupportedUseError("the loss takes gradients itself, or the graph is gone through twice")
            use.gradient = Kept(gradient.reshape(shape))
            self._awaited -= awaited
            if self._finished is not None and awaited and not self._awaited:
                self._finished()

        shape = output.shape
        awaited = not self.in_backward  # what is computed again in backward may never have a gradient
        self._awaited += awaited
        (output if output._base is None else output._base).register_hook(receive)


def _is_partial_view(tensor: Tensor) -> bool:
    """Whether it is a view of something else than all of another tensor's entries in their order."""
    base = tensor._base
    return base is not None and not (
        base.requires_grad and base.numel() == tensor.numel() and base.is_contiguous() and tensor.is_contiguous()
    )


class _Anchored(torch.autograd.Function):
    """A copy that autograd follows though nothing before it is trained."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor) -> Tensor:
        del ctx, anchor
        return output.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None]:
        del ctx, gradient
        return None, None
