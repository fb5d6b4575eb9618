"""Recurrences that tell the gradients of their gates, as PyTorch's own do not.

Shape legend: B examples, T positions, H hidden width, G gates.

A recurrent layer is two linear maps, from the input and from the last state to the gates, with a recurrence between
them. Here is the recurrence alone: from the gates' sums of inputs (B, T, G * H), in PyTorch's order of gates, to hidden
states (B, T, H). Its gradient is with respect to these sums and to the initial states; weights count as constants.

Results are laid out time first, so that a step's rows are neighbours in memory. `out=` saves most of a step's
allocations, and keeps autocast from changing what precision a state is added up in.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input


class LSTMRecurrence(torch.autograd.Function):
    """Input, forget, new, output gate to hidden states and cells (Hochreiter and Schmidhuber 1997, Gers et al. 2000).

    `LSTMRecurrence.apply(sums, weight, state, cell)` with sums (B, T, 4H), weight (4H, H), and initial state and cell
    (B, H) gives hidden states and cells, both (B, T, H).
    """

    @staticmethod
    def forward(ctx: Any, sums: Tensor, weight: Tensor, state: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states and cells; one sigmoid goes over all gates, see `_tanh`."""
        examples, length, width = len(sums), sums.shape[1], weight.shape[1]
        gates = sums.new_empty(length, examples, 4 * width)
        hidden, tanhs = (sums.new_empty(length, examples, width) for _ in range(2))
        cells = sums.new_empty(length + 1, examples, width)
        cells[0] = cell
        turned, less_one = weight.t(), sums.new_full((), -1.0)
        for step in range(length):
            gate = torch.addmm(sums[:, step], state, turned, out=gates[step])
            entry, forget, new, leave = gate.chunk(4, 1)
            new.add_(new)
            gate.sigmoid_()
            torch.add(less_one, new, alpha=2, out=new)
            torch.mul(forget, cells[step], out=cells[step + 1]).addcmul_(entry, new)
            state = torch.mul(leave, _tanh(cells[step + 1], less_one, out=tanhs[step]), out=hidden[step])
        ctx.save_for_backward(gates, cells, tanhs, weight)
        ctx.set_materialize_grads(False)
        return hidden.transpose(0, 1), cells[1:].transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of the sums, and of the initial state and cell."""
        by_hidden, by_cells = gradients
        gates, cells, tanhs, weight = ctx.saved_tensors
        length, examples, width = tanhs.shape
        result = gates.new_empty(examples, length, 4, width)
        part, state, cell = gates.new_empty(examples, width), torch.zeros_like(cells[0]), torch.zeros_like(cells[0])
        for step in range(length - 1, -1, -1):
            entry, forget, new, leave = gates[step].chunk(4, 1)
            to_entry, to_forget, to_new, to_leave = result[:, step].unbind(1)
            if by_hidden is not None:
                state.add_(by_hidden[:, step])
            if by_cells is not None:
                cell.add_(by_cells[:, step])
            _sigmoid_backward(torch.mul(state, tanhs[step], out=part), leave, grad_input=to_leave)
            cell.add_(_tanh_backward(torch.mul(state, leave, out=part), tanhs[step], grad_input=part))
            _sigmoid_backward(torch.mul(cell, new, out=part), entry, grad_input=to_entry)
            _sigmoid_backward(torch.mul(cell, cells[step], out=part), forget, grad_input=to_forget)
            _tanh_backward(torch.mul(cell, entry, out=part), new, grad_input=to_new)
            torch.mm(result[:, step].flatten(1), weight, out=state)
            cell.mul_(forget)
        return result.flatten(2), None, state, cell


class GRURecurrence(torch.autograd.Function):
    """Reset, update, new gate to hidden states, with the reset after the product (Cho et al. 2014, as in cuDNN).

    `GRURecurrence.apply(sums, weight, bias, state)` with sums (B, T, 3H), weight (3H, H), the new gate's hidden bias
    (H,) and the initial state (B, H) gives hidden states and reset gates, both (B, T, H); the latter have no gradient.
    With g the gradient of the sums, that of what `weight` adds to the new gate is g times the reset gate.
    """

    @staticmethod
    def forward(ctx: Any, sums: Tensor, weight: Tensor, bias: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states and reset gates."""
        examples, length, width = len(sums), sums.shape[1], weight.shape[1]
        gates, product = sums.new_empty(length, examples, 3, width), sums.new_empty(examples, 3, width)
        inner, states = sums.new_empty(length, examples, width), sums.new_empty(length + 1, examples, width)
        states[0] = state
        turned, less_one = weight.t(), sums.new_full((), -1.0)
        for step in range(length):
            here, gate = sums[:, step].unflatten(1, (3, width)), gates[step]
            torch.mm(states[step], turned, out=product.flatten(1))
            torch.add(here[:, :2], product[:, :2], out=gate[:, :2]).sigmoid_()
            reset, update, new = gate.unbind(1)
            torch.add(product[:, 2], bias, out=inner[step])
            _tanh(torch.addcmul(here[:, 2], reset, inner[step]), less_one, out=new)
            torch.lerp(new, states[step], update, out=states[step + 1])
        ctx.save_for_backward(gates, inner, states, weight)
        hidden, resets = states[1:].transpose(0, 1), gates[:, :, 0].transpose(0, 1)
        ctx.mark_non_differentiable(resets)
        return hidden, resets

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_hidden: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the sums, and of the initial state."""
        gates, inner, states, weight = ctx.saved_tensors
        length, examples, _, width = gates.shape
        result = gates.new_empty(examples, length, 3, width)
        part, state = gates.new_empty(examples, width), torch.zeros_like(states[0])
        product = gates.new_empty(examples, 3, width)
        for step in range(length - 1, -1, -1):
            reset, update, new = gates[step].unbind(1)
            to_reset, to_update, to_new = result[:, step].unbind(1)
            state.add_(by_hidden[:, step])
            torch.sub(states[step], new, out=part).mul_(state)
            _sigmoid_backward(part, update, grad_input=to_update)
            _tanh_backward(torch.addcmul(state, state, update, value=-1, out=part), new, grad_input=to_new)
            _sigmoid_backward(torch.mul(to_new, inner[step], out=part), reset, grad_input=to_reset)
            product.copy_(result[:, step])[:, 2].mul_(reset)
            state.mul_(update).addmm_(product.flatten(1), weight)
        return result.flatten(2), None, None, state


class ElmanRecurrence(torch.autograd.Function):
    """The plain recurrence of `nn.RNN` (Elman 1990): the last state's product added, then tanh or relu.

    `ElmanRecurrence.apply(sums, weight, state, relu)` with sums (B, T, H), weight (H, H) and the initial state (B, H)
    gives hidden states (B, T, H).
    """

    @staticmethod
    def forward(ctx: Any, sums: Tensor, weight: Tensor, state: Tensor, relu: bool) -> Tensor:
        """Hidden states."""
        hidden = sums.new_empty(sums.shape[1], len(sums), len(weight))
        turned = weight.t()
        for step, out in enumerate(hidden):
            state = torch.addmm(sums[:, step], state, turned, out=out)
            state.relu_() if relu else state.tanh_()
        ctx.save_for_backward(hidden, weight)
        ctx.relu = relu
        return hidden.transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_hidden: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the sums, and of the initial state."""
        hidden, weight = ctx.saved_tensors
        slopes = (hidden > 0).to(hidden.dtype) if ctx.relu else 1 - hidden.square()
        result = torch.empty_like(by_hidden, memory_format=torch.contiguous_format)
        state = torch.zeros_like(hidden[0])
        for step in range(len(hidden) - 1, -1, -1):
            torch.mul(state.add_(by_hidden[:, step]), slopes[step], out=result[:, step])
            torch.mm(result[:, step], weight, out=state)
        return result, None, state, None


def _tanh(value: Tensor, less_one: Tensor, out: Tensor) -> Tensor:
    """tanh(x) = 2 sigmoid(2x) - 1, which takes a third of the time; exact to a rounding of 1."""
    torch.add(value, value, out=out).sigmoid_()
    return torch.add(less_one, out, alpha=2, out=out)
