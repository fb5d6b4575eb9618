"""The rules of recurrent layers: LSTM, GRU and Elman's RNN, of any depth, in one or both directions.

Shape legend: B examples, T positions, D inputs, H hidden width, G gates, L layers times directions.

At every position a layer's gates are sums of two linear maps, of the input x_t and of the state h_(t-1) before:

| layer     | gradients of what W_ih x_t gives | gradients of what W_hh h_(t-1) gives             |
|-----------|----------------------------------|--------------------------------------------------|
| LSTM, RNN | g_t                              | the same: one product of [x_t, h_(t-1)] and g_t  |
| GRU       | g_t                              | g_t, times the reset gate in the new gate's rows |

Packed sequences are unpacked into their order in the batch, so that row i is example i. What a layer does beyond an
example's last position is never read, so its gradient there is 0.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from trustnlp.dp.ghost_norms import OuterProducts
from trustnlp.dp.layer_rules import LayerRule, Sums, joined
from trustnlp.dp.recurrence import ElmanRecurrence, GRURecurrence, LSTMRecurrence
from trustnlp.dp.tape import Kept, Tape, UnsupportedUseError, Use
from trustnlp.models.bilstm import reverse

State = tuple[Tensor, ...]


class _Call(NamedTuple):
    """One layer in one direction: its use, where it started from (B, H), its states, and a GRU's reset gates."""

    use: Use
    start: Kept
    states: Kept
    others: tuple[Kept, ...]

    def before(self) -> Tensor:
        """(B, T, H) the state before every position."""
        return torch.cat([self.start()[:, None], self.states()[:, :-1]], 1)


class _Linear(NamedTuple):
    """Weights and biases with the same gradients g (B, T, G * H) of what they give; an input (B, T, ·) for each."""

    inputs: dict[str, Tensor]
    g: Tensor


class _Share(NamedTuple):
    """Trained weights side by side, and trained biases, whose sums come from the same products."""

    weights: list[nn.Parameter]
    biases: list[nn.Parameter]
    products: OuterProducts


class RecurrentRule(LayerRule):
    """What the rules of recurrent layers share: layers, directions, packed sequences, initial states, dropout."""

    parts = 1  # tensors of a state

    def __init__(self, modules: Sequence[nn.Module], trained: Set[nn.Parameter]) -> None:
        super().__init__(modules, trained)
        self._ways = ("", "_reverse") if self.module.bidirectional else ("",)
        self._calls: dict[str, list[_Call]] = {}
        self._shares: list[_Share] = []

    @staticmethod
    def refusal(module: Any) -> str:
        """Why this rule does not fit the layer's settings; empty where it does."""
        return "a projection" if module.proj_size else ""

    def attach(self, tape: Tape) -> None:
        """See `Rule.attach`."""
        super().attach(tape)
        self._calls.clear()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the layer gives, computed here: hidden states in the input's layout, and last states (L, B, H)."""
        given, start = _arguments(*args, **kwargs)
        sequences = Sequences.of(given, self.module.batch_first)
        states = self._start(start, sequences.values)
        value = sequences.values
        last: list[list[Tensor]] = []
        with self._constants():
            for layer in range(self.module.num_layers):
                value = sequences.dropout(value, self._dropout) if layer else value
                runs = []
                for way in self._ways:
                    begin = tuple(part[len(last)] for part in states)
                    found = self._run(sequences.turned(value) if way else value, f"_l{layer}{way}", begin)
                    runs.append(sequences.turned(found[0]) if way else found[0])
                    last.append([sequences.last(part) for part in found])
                value = torch.cat(runs, -1) if len(runs) > 1 else runs[0]
        ends = tuple(map(torch.stack, zip(*last, strict=True)))
        return sequences.restored(value), ends if self.parts > 1 else ends[0]

    @property
    def _dropout(self) -> float:
        return self.module.dropout if self.module.training else 0.0

    def _start(self, given: Any, value: Tensor) -> State:
        """The initial state, each of its tensors (L, B, H)."""
        module = self.module
        shape = (module.num_layers * len(self._ways), len(value), module.hidden_size)
        if given is None:
            return (value.new_zeros(shape),) * self.parts
        state = given if self.parts > 1 else (given,)
        if len(state) != self.parts or any(part.shape != shape for part in state):
            raise UnsupportedUseError(f"{type(module).__name__} is given initial states that are not {shape}")
        return tuple(state)

    def _run(self, value: Tensor, name: str, start: State) -> State:
        """The parts of the state at all positions, each (B, T, H), of one layer in one direction.

        Half precision is for products; states add up in single.
        """
        weights = self._weights(name)
        use, sums = self._tape.watch(value, F.linear(value, weights["weight_ih"], self._bias(weights)))
        wide = torch.promote_types(sums.dtype, torch.float32)
        begin = tuple(part.to(wide) for part in start)
        found = self._recur(sums.to(wide), {kind: weight.to(wide) for kind, weight in weights.items()}, begin)
        others = tuple(map(Kept, found[self.parts :]))
        self._calls.setdefault(name, []).append(_Call(use, Kept(start[0]), Kept(found[0]), others))
        return tuple(part.to(sums.dtype) for part in found[: self.parts])

    def _weights(self, name: str) -> dict[str, Tensor]:
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return {kind: getattr(self.module, kind + name) for kind in kinds if hasattr(self.module, kind + name)}

    def _bias(self, weights: dict[str, Tensor]) -> Tensor | None:
        """What is added to the sums of inputs at every position."""
        return weights["bias_ih"] + weights["bias_hh"] if "bias_ih" in weights else None

    def _recur(self, sums: Tensor, weights: dict[str, Tensor], start: State) -> State:
        """The parts of the state at all positions, then what else `_linears` needs, each (B, T, H)."""
        raise NotImplementedError

    def _linears(self, call: _Call, g: Tensor) -> list[_Linear]:
        """The linear maps of a call; g (B, T, G * H) is the gradient of the sums of inputs."""
        return [_Linear({"ih": call.use.value(), "hh": call.before()}, g)]

    def collect(self) -> bool:
        """See `Rule.collect`."""
        self._shares.clear()
        for name, calls in self._calls.items():
            reached = [self._linears(call, call.use.gradient()) for call in calls if call.use.gradient is not None]
            self._shares += [share for same in zip(*reached, strict=True) for share in self._share(name, same)]
        self._calls.clear()
        return bool(self._shares)

    def _share(self, name: str, calls: Sequence[_Linear]) -> list[_Share]:
        """What is trained of the same linear maps in all calls; nothing where all of it is frozen."""
        kinds = [kind for kind in calls[0].inputs if f"weight_{kind}{name}" in self.trained]
        biases = [f"bias_{kind}{name}" for kind in calls[0].inputs if f"bias_{kind}{name}" in self.trained]
        if not (kinds or biases):
            return []
        units = self._tape.units
        a = joined([torch.cat([call.inputs[kind] for kind in kinds], -1) for call in calls], units) if kinds else None
        g = joined([call.g for call in calls], units)
        products = OuterProducts(a, g, len(biases), choose=self._tape.choose)
        weights = [self.trained[f"weight_{kind}{name}"] for kind in kinds]
        return [_Share(weights, [self.trained[bias] for bias in biases], products)]

    def squared_norms(self) -> Tensor:
        """See `Rule.squared_norms`."""
        return torch.stack([share.products.squared_norms() for share in self._shares]).sum(0)

    def add_to(self, sums: Sums, factors: Tensor) -> None:
        """See `Rule.add_to`."""
        for weights, biases, products in self._shares:
            if weights:
                columns = [weight.shape[1] for weight in weights]
                matrix = factors.new_zeros(len(weights[0]), sum(columns))
                products.add_matrix(matrix, factors)
                for weight, part in zip(weights, matrix.split(columns, 1), strict=True):
                    sums[weight].add_(part)
            if biases:
                vector = products.vector(factors)
                for bias in biases:
                    sums[bias].add_(vector)

    def drop(self) -> None:
        """See `Rule.drop`."""
        super().drop()
        self._shares.clear()


class LSTMRule(RecurrentRule):
    """`nn.LSTM`."""

    parts = 2

    def _recur(self, sums: Tensor, weights: dict[str, Tensor], start: State) -> State:
        found: State = LSTMRecurrence.apply(sums, weights["weight_hh"], *start)
        return found


class ElmanRule(RecurrentRule):
    """`nn.RNN`, with tanh or relu."""

    def _recur(self, sums: Tensor, weights: dict[str, Tensor], start: State) -> State:
        return (ElmanRecurrence.apply(sums, weights["weight_hh"], *start, self.module.nonlinearity == "relu"),)


class GRURule(RecurrentRule):
    """`nn.GRU`."""

    def _bias(self, weights: dict[str, Tensor]) -> Tensor | None:
        """Without the new gate's hidden bias, which the reset gate multiplies."""
        if "bias_ih" not in weights:
            return None
        bias, last = weights["bias_ih"] + weights["bias_hh"], 2 * self.module.hidden_size
        bias[last:] = weights["bias_ih"][last:]
        return bias

    def _recur(self, sums: Tensor, weights: dict[str, Tensor], start: State) -> State:
        weight, width = weights["weight_hh"], self.module.hidden_size
        bias = weights["bias_hh"][2 * width :] if "bias_hh" in weights else weight.new_zeros(width)
        found: State = GRURecurrence.apply(sums, weight, bias, *start)
        return found

    def _linears(self, call: _Call, g: Tensor) -> list[_Linear]:
        inner = g.clone()
        inner[..., 2 * self.module.hidden_size :] *= call.others[0]()
        return [_Linear({"ih": call.use.value()}, g), _Linear({"hh": call.before()}, inner)]


class Sequences(NamedTuple):
    """What a recurrent layer reads, as rows of a batch.

    Args:
        values: (B, T, D).
        lengths: (B,) how many positions each example has; None where all have T.
        packed: where they came from; None for a plain tensor.
        batch_first: of a plain tensor.
    """

    values: Tensor
    lengths: Tensor | None
    packed: PackedSequence | None
    batch_first: bool

    @classmethod
    def of(cls, given: Tensor | PackedSequence, batch_first: bool) -> Sequences:
        """From a layer's argument.

        Raises:
            UnsupportedUseError: one sequence without a batch.
        """
        if isinstance(given, PackedSequence):
            values, lengths = pad_packed_sequence(given, batch_first=True)
            return cls(values, lengths.to(values.device), given, True)
        if given.dim() != 3:
            raise UnsupportedUseError("a recurrent layer is called without a batch")
        return cls(given if batch_first else given.transpose(0, 1), None, None, batch_first)

    def turned(self, values: Tensor) -> Tensor:
        """`values` (B, T, ·) read backwards, each example within its own length."""
        return values.flip(1) if self.lengths is None else reverse(values, self.lengths)

    def last(self, values: Tensor) -> Tensor:
        """(B, ·) of each example's last position."""
        if self.lengths is None:
            return values[:, -1]
        return values[torch.arange(len(values), device=values.device), self.lengths - 1]

    def dropout(self, values: Tensor, rate: float) -> Tensor:
        """`values` (B, T, ·) with some entries set to 0, drawn in PyTorch's order."""
        if not rate:
            return values
        flat = self._flat(values)
        dropped = F.dropout(flat, rate)
        if self.packed is None:
            return dropped.transpose(0, 1)
        return pad_packed_sequence(self.packed._replace(data=dropped), batch_first=True)[0]

    def restored(self, values: Tensor) -> Tensor | PackedSequence:
        """`values` (B, T, ·) in the layout of the layer's argument."""
        if self.packed is not None:
            return self.packed._replace(data=self._flat(values))
        return values if self.batch_first else values.transpose(0, 1)

    def _flat(self, values: Tensor) -> Tensor:
        """As PyTorch holds them between two layers: (T, B, ·), or the entries of a packed sequence."""
        if self.packed is None or self.lengths is None:
            return values.transpose(0, 1).contiguous()
        order = self.packed.sorted_indices
        lengths = self.lengths.cpu()
        if order is not None:
            values, lengths = values.index_select(0, order), lengths[order.cpu()]
        return pack_padded_sequence(values, lengths, batch_first=True).data


def _arguments(input: Tensor | PackedSequence, hx: Any = None) -> tuple[Tensor | PackedSequence, Any]:
    """The arguments of a recurrent layer's `forward`, by PyTorch's names."""
    return input, hx
