"""The rule of LSTMs, and the recurrence that it rests on.

Shape legend: B examples, T positions, D inputs, H hidden width.

PyTorch's own LSTM tells neither its inner states nor the gradients of its gates. With both, an LSTM's weights are
linear layers from [x_t, h_(t-1)] to the gates at every position.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from trustnlp.dp.ghost_norms import OuterProducts
from trustnlp.dp.layer_rules import LayerRule, Sums, joined
from trustnlp.dp.tape import Kept, Tape, UnsupportedUseError, Use


class _Call(NamedTuple):
    use: Use
    states: Kept


class LSTMRule(LayerRule):
    """`nn.LSTM` over (B, T, D) of any depth, in one or both directions, started from zero."""

    def __init__(self, modules: Sequence[nn.Module], trained: Set[nn.Parameter]) -> None:
        super().__init__(modules, trained)
        directions = ("", "_reverse") if self.module.bidirectional else ("",)
        self._directions = [[f"_l{layer}{way}" for way in directions] for layer in range(self.module.num_layers)]
        self._calls: dict[str, list[_Call]] = {}
        self._products: dict[str, OuterProducts] = {}

    @staticmethod
    def refusal(module: Any) -> str:
        """Why this rule does not fit the layer's settings; empty where it does."""
        if not module.batch_first or module.proj_size:
            return "batch_first=False or a projection"
        return "dropout between layers" if module.dropout and module.num_layers > 1 else ""

    def attach(self, tape: Tape) -> None:
        """See `Rule.attach`."""
        super().attach(tape)
        self._calls.clear()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the LSTM gives, computed here: (B, T, directions * H), and last states and cells."""
        if len(args) != 1 or kwargs or not isinstance(args[0], Tensor) or args[0].dim() != 3:
            raise UnsupportedUseError("an LSTM is called with initial states, packed or without a batch")
        value, states, cells = args[0], [], []
        with self._constants():
            for names in self._directions:
                runs = [self._run(value, name, bool(way)) for way, name in enumerate(names)]
                value = torch.cat([run[0] for run in runs], -1) if len(runs) > 1 else runs[0][0]
                states += [run[1] for run in runs]
                cells += [run[2] for run in runs]
        return value, (torch.stack(states), torch.stack(cells))

    def _run(self, value: Tensor, name: str, backwards: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden states (B, T, H) of one layer in one direction, and its last state and cell (B, H)."""
        value = value.flip(1) if backwards else value
        weights, bias = self._weights(name), None
        if self.module.bias:
            bias = weights["bias_ih"] + weights["bias_hh"]
        use, gates = self._tape.watch(value, F.linear(value, weights["weight_ih"], bias))
        hidden, cell = LSTMRecurrence.apply(gates, weights["weight_hh"])
        self._calls.setdefault(name, []).append(_Call(use, Kept(hidden)))
        return hidden.flip(1) if backwards else hidden, hidden[:, -1], cell

    def _weights(self, name: str) -> dict[str, Tensor]:
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return {kind: getattr(self.module, kind + name) for kind in kinds if hasattr(self.module, kind + name)}

    def collect(self) -> bool:
        """See `Rule.collect`."""
        self._products.clear()
        for name, calls in self._calls.items():
            pairs = [(self._inputs(call, name), call.use.gradient()) for call in calls if call.use.gradient is not None]
            if pairs:
                a, g = joined([inputs for inputs, _ in pairs]), joined([gradient for _, gradient in pairs])
                self._products[name] = OuterProducts(a if a.shape[2] else None, g, len(self._kinds(name, "bias")))
        self._calls.clear()
        return bool(self._products)

    def _inputs(self, call: _Call, name: str) -> Tensor:
        """(B, T, D + H) what the gates' trained weights are multiplied by: inputs, and states of the step before."""
        states = call.states()
        parts = {"weight_ih": call.use.value(), "weight_hh": F.pad(states, (0, 0, 1, 0))[:, :-1]}
        return torch.cat([states[..., :0], *(parts[kind] for kind in self._kinds(name, "weight"))], -1)

    def _kinds(self, name: str, of: str) -> list[str]:
        """Which of the two weights, or of the two biases, are trained."""
        return [kind for kind in (f"{of}_ih", f"{of}_hh") if kind + name in self.trained]

    def squared_norms(self) -> Tensor:
        """See `Rule.squared_norms`."""
        return torch.stack([products.squared_norms() for products in self._products.values()]).sum(0)

    def add_to(self, sums: Sums, factors: Tensor) -> None:
        """See `Rule.add_to`."""
        for name, products in self._products.items():
            weights = [self.trained[kind + name] for kind in self._kinds(name, "weight")]
            if weights:
                columns = [weight.shape[1] for weight in weights]
                matrix = factors.new_zeros(len(weights[0]), sum(columns))
                products.add_matrix(matrix, factors)
                for weight, part in zip(weights, matrix.split(columns, 1), strict=True):
                    sums[weight].add_(part)
            biases = self._kinds(name, "bias")
            if biases:
                vector = products.vector(factors)
                for kind in biases:
                    sums[self.trained[kind + name]].add_(vector)


class LSTMRecurrence(torch.autograd.Function):
    """(B, T, 4H) input gates, before their nonlinearity and in PyTorch's order, to hidden states (B, T, H).

    Also gives the last cell (B, H). Starts from zero (Hochreiter and Schmidhuber 1997, with forget gates). The gradient
    is with respect to the input gates alone; `weight` (4H, H) counts as a constant.
    """

    @staticmethod
    def forward(ctx: Any, pre: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states (B, T, H) and the last cell (B, H)."""
        examples, length, width = pre.shape[0], pre.shape[1], weight.shape[1]
        gates = torch.empty_like(pre, memory_format=torch.contiguous_format)
        cells = pre.new_zeros(examples, length + 1, width)
        tanhs, hidden = (pre.new_empty(examples, length, width) for _ in range(2))
        turned, state, cell = weight.t(), pre.new_zeros(examples, width), cells[:, 0]
        for step in range(length):
            gate = torch.addmm(pre[:, step], state, turned)
            gate[:, : 2 * width].sigmoid_()
            gate[:, 2 * width : 3 * width].tanh_()
            gate[:, 3 * width :].sigmoid_()
            entry, forget, new, leave = gate.split(width, 1)
            cell = torch.addcmul(forget * cell, entry, new)
            tanh = cell.tanh()
            state = leave * tanh
            gates[:, step], cells[:, step + 1], tanhs[:, step], hidden[:, step] = gate, cell, tanh, state
        ctx.save_for_backward(gates, cells, tanhs, weight)
        return hidden, cell

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """(B, T, 4H) gradient of the input gates."""
        hidden_gradient, cell_gradient = gradients
        gates, cells, tanhs, weight = ctx.saved_tensors
        examples, length, width = tanhs.shape
        local, by_cell = _slopes(gates, cells, tanhs)
        forget = gates[:, :, width : 2 * width]
        result = torch.empty_like(gates)
        state, cell = torch.zeros_like(cell_gradient), cell_gradient
        for step in range(length - 1, -1, -1):
            state = state + hidden_gradient[:, step]
            cell = torch.addcmul(cell, state, by_cell[:, step])
            both = torch.stack([cell, cell, cell, state], 1)
            torch.mul(local[:, step], both.view(examples, -1), out=result[:, step])
            state = result[:, step] @ weight
            cell = cell * forget[:, step]
        return result, None


def _slopes(gates: Tensor, cells: Tensor, tanhs: Tensor) -> tuple[Tensor, Tensor]:
    """What the gradient of cell or hidden state is multiplied by: towards the gates (B, T, 4H), towards the cell."""
    entry, forget, new, leave = gates.chunk(4, 2)
    local = torch.cat(
        [
            new * entry * (1 - entry),
            cells[:, :-1] * forget * (1 - forget),
            entry * (1 - new * new),
            tanhs * leave * (1 - leave),
        ],
        2,
    )
    return local, leave * (1 - tanhs * tanhs)
