"""What a forward and a backward pass leave behind for book-keeping: inputs of layers, gradients of their outputs.

A tape belongs to one physical batch. It refuses whatever would make the kept tensors mean something else: another
first dimension than the batch, tensors changed after they were kept, a second backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class UnsupportedUseError(Exception):
    """A model uses a layer in a way that book-keeping cannot follow, so the slow exact path must be taken."""


class Kept:
    """A tensor, and a way to know later that nobody has written to it since."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor.detach()
        self._version = tensor._version

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


class Use:
    """One call of a layer: its input, and the gradient of its output once backward has come by."""

    def __init__(self, value: Tensor) -> None:
        self.value = Kept(value)
        self.gradient: Kept | None = None


class Tape:
    """Watches the outputs of layers in one physical batch.

    Args:
        examples: B, the first dimension of everything that is watched.
        device: of the model.
    """

    def __init__(self, examples: int, device: torch.device) -> None:
        self._examples = examples
        self._anchor = torch.zeros((), device=device, requires_grad=True)
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
        use = Use(value)
        if torch.is_grad_enabled():
            if not output.requires_grad:
                output = _Anchored.apply(output, self._anchor)
            elif _is_partial_view(output):
                output = output.clone()
            self._listen(use, output)
        return use, output

    def _listen(self, use: Use, output: Tensor) -> None:
        """Keeps the gradient of `output`; through its base if it is a view, as views lose hooks when written to."""

        def receive(gradient: Tensor) -> None:
            if not self.in_backward or use.gradient is not None:
                raise UnsupportedUseError("the loss takes gradients itself, or the graph is gone through twice")
            use.gradient = Kept(gradient.reshape(shape))

        shape = output.shape
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
