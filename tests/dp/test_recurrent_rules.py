"""Every rule of a recurrent layer against one backward per example, and its outputs against PyTorch's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import Calls, Loss, Rows, assert_one_backward_is_exact, both, normal, random_weights, same, whole
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from trustnlp.dp.recurrent_rules import ElmanRule, GRURule, LSTMRule, RecurrentRule, Sequences, _Call
from trustnlp.dp.tape import Tape
from trustnlp.models.protocol import Batch

KINDS = {nn.LSTM: LSTMRule, nn.GRU: GRURule, nn.RNN: ElmanRule}
kinds = st.sampled_from(list(KINDS))
clip_norms = st.sampled_from([0.1, 1e9])


def all_of(layer: nn.Module, values: Tensor | PackedSequence, states: Tensor | tuple[Tensor, ...]) -> Tensor:
    """(B, ·) everything a layer gives, so that everything has a gradient; states (B, T, ·) are summed over T."""
    if isinstance(values, PackedSequence):
        total, order = torch.zeros(values.batch_sizes[0], values.data.shape[1]).double(), values.unsorted_indices
        sizes = values.batch_sizes.tolist()
        for step, rows in enumerate(values.data.split(sizes)):
            total = total + nn.functional.pad((step + 1) * rows.cos(), (0, 0, 0, len(total) - len(rows)))
        values = total if order is None else total[order]
    elif not layer.batch_first:
        values = values.transpose(0, 1)
    parts = states if isinstance(states, tuple) else (states,)
    flat = [(number + 2) * part.transpose(0, 1).flatten(1) for number, part in enumerate(parts)]
    return torch.cat([values.flatten(1), *flat], 1)


def bent(output: Tensor) -> Tensor:
    return (output * 1.3).sin().sum(1)


def packed_loss(enforce_sorted: bool, with_start: bool = False) -> Callable[[nn.Module, Batch], Tensor]:
    """Reads `x` (B, T, 3) up to `lengths` (B,); sorted by hand where PyTorch is not to do it."""

    def loss(self: nn.Module, batch: Batch) -> Tensor:
        x, lengths = batch.inputs["x"], batch.inputs["lengths"]
        start = start_from(self, batch) if with_start else None
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=enforce_sorted)
        return bent(all_of(self.layer, *self.layer(packed, start)))

    return loss


def start_from(self: nn.Module, batch: Batch) -> Tensor | tuple[Tensor, ...]:
    """An initial state that depends on each example, through a trained layer."""
    layer = self.layer
    shape = (len(batch), layer.num_layers * (1 + layer.bidirectional), layer.hidden_size)
    state = self.start(batch.inputs["s"]).view(shape).transpose(0, 1)
    return (state, state.cos()) if isinstance(layer, nn.LSTM) else state


def with_start(layer: nn.Module) -> nn.Module:
    return nn.Linear(2, layer.num_layers * (1 + layer.bidirectional) * layer.hidden_size)


def frozen_by(layer: nn.Module, frozen: list[bool]) -> nn.Module:
    """The layer, some of its parameters frozen, one of them never."""
    for parameter, still in zip(layer.parameters(), frozen, strict=False):
        parameter.requires_grad_(not still)
    layer.weight_hh_l0.requires_grad_(True)
    return layer


layers = {
    "width": st.integers(1, 4),
    "depth": st.integers(1, 2),
    "bias": st.booleans(),
    "bidirectional": st.booleans(),
    "batch_first": st.booleans(),
    "frozen": st.lists(st.booleans(), min_size=16, max_size=16) | st.just([False] * 16),
    "seed": st.integers(0, 99),
}


@st.composite
def any_layer(draw, kind: st.SearchStrategy = kinds) -> nn.Module:
    chosen = {name: draw(strategy) for name, strategy in layers.items()}
    options = {name: chosen[name] for name in ("bias", "bidirectional", "batch_first")}
    made = draw(kind)
    if made is nn.RNN:
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    layer = made(3, chosen["width"], chosen["depth"], **options)
    return frozen_by(random_weights(layer, chosen["seed"]), chosen["frozen"])


class BothLayouts(Calls):
    """`Calls` of tensors (B, T, D), given to the layer in its own layout."""

    def loss(self, batch: Batch) -> Tensor:
        values = [x if self.layer.batch_first else x.transpose(0, 1) for x in batch.inputs.values()]
        return torch.stack([bent(all_of(self.layer, *self.layer(value))) for value in values]).sum(0)


class TestAgainstOneBackwardPerExample:
    @settings(max_examples=40, deadline=None)
    @given(any_layer(), st.integers(1, 5), st.lists(st.integers(1, 7), min_size=1, max_size=2), clip_norms)
    def test_any_depth_direction_and_layout_partly_frozen_and_called_twice(self, layer, examples, lengths, clip_norm):
        data = Rows({f"x{i}": normal(examples, length, 3, seed=i) for i, length in enumerate(lengths)})
        assert_one_backward_is_exact(BothLayouts(layer), data, clip_norm, physical_batch=2)

    @settings(max_examples=30, deadline=None)
    @given(any_layer(), st.lists(st.integers(1, 6), min_size=1, max_size=5), clip_norms)
    def test_packed_sequences(self, layer, lengths, clip_norm):
        data = Rows({"x": normal(len(lengths), max(lengths), 3), "lengths": torch.tensor(lengths)})
        assert_one_backward_is_exact(Loss(packed_loss(False), layer=layer), data, clip_norm, physical_batch=3)

    @settings(max_examples=20, deadline=None)
    @given(any_layer(), st.lists(st.integers(1, 6), min_size=1, max_size=5))
    def test_packed_sequences_sorted_by_hand(self, layer, lengths):
        # By the rule alone: the engine's probe takes examples in two orders, one of which PyTorch would refuse.
        inputs = {"x": normal(len(lengths), max(lengths), 3), "lengths": torch.tensor(sorted(lengths, reverse=True))}
        model, batch = Loss(packed_loss(True), layer=layer), Batch(inputs, {})
        trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
        rows = [torch.autograd.grad(loss, trained, retain_graph=True) for loss in model.loss(batch).unbind()]
        tape = Tape(len(lengths), torch.device("cpu"))
        rule = attached(layer, tape)
        tape.in_backward = True
        model.loss(batch).sum().backward()
        rule.detach()
        assert rule.collect()
        found = {parameter: torch.zeros_like(parameter) for parameter in trained}
        factors = torch.linspace(0.5, 2, len(lengths)).double()
        squares = torch.stack([sum(part.square().sum() for part in row) for row in rows])
        assert torch.allclose(rule.squared_norms(), squares, rtol=1e-9)
        rule.add_to(found, factors)
        for parameter, *parts in zip(trained, *rows, strict=True):
            expected = (torch.stack(parts).flatten(1) * factors[:, None]).sum(0).view_as(parameter)
            assert torch.allclose(found[parameter], expected, rtol=1e-9, atol=1e-12)

    @settings(max_examples=20, deadline=None)
    @given(any_layer(), st.lists(st.integers(1, 6), min_size=1, max_size=5), clip_norms)
    def test_initial_states_that_are_functions_of_the_examples(self, layer, lengths, clip_norm):
        count = len(lengths)
        data = {"x": normal(count, max(lengths), 3), "s": normal(count, 2, seed=5), "lengths": torch.tensor(lengths)}
        model = Loss(packed_loss(False, with_start=True), layer=layer, start=random_weights(with_start(layer)))
        assert_one_backward_is_exact(model, Rows(data), clip_norm)

    @pytest.mark.parametrize("kind", KINDS)
    def test_constant_initial_states(self, kind):
        def loss(self, batch):
            state = torch.full((1, len(batch), 2), 0.5).double()
            start = (state, -state) if kind is nn.LSTM else state
            return bent(all_of(self.layer, *self.layer(batch.inputs["x"], hx=start)))

        layer = random_weights(kind(3, 2, batch_first=True))
        assert_one_backward_is_exact(Loss(loss, layer=layer), Rows({"x": normal(3, 4, 3)}))

    @pytest.mark.parametrize("kind", KINDS)
    def test_padding_that_the_loss_does_not_read_counts_nothing(self, kind):
        def loss(self, batch):
            states = self.layer(self.embedding(batch.inputs["ids"]))[0]
            return bent((states * (batch.inputs["ids"] != 0)[:, :, None]).sum(1))

        model = Loss(loss, embedding=nn.Embedding(7, 3, padding_idx=0), layer=kind(3, 2, batch_first=True))
        ids = whole(4, 6, below=7)
        ids[1, 2:] = ids[2, 1:] = 0
        assert_one_backward_is_exact(random_weights(model), Rows({"ids": ids}))

    @pytest.mark.parametrize("kind", KINDS)
    def test_two_layers_with_the_same_weights(self, kind):
        one, other = (random_weights(kind(3, 3, batch_first=True)) for _ in range(2))
        for name, parameter in one.named_parameters():
            setattr(other, name, parameter)
        model = Loss(lambda self, batch: bent(self.b(self.a(batch.inputs["x"])[0])[0].flatten(1)), a=one, b=other)
        assert_one_backward_is_exact(model, Rows({"x": normal(3, 4, 3)}))

    @pytest.mark.parametrize("kind", KINDS)
    def test_dropout_between_layers(self, kind):
        layer = random_weights(kind(3, 4, 2, batch_first=True, bidirectional=True, dropout=0.5))
        data = Rows({"x": normal(6, 4, 3)})
        model = BothLayouts(layer).train()
        fast, found, _ = both(model, data, 0.1)  # its probe gives both sides the same masks
        assert fast.fallback == ""
        assert found.norms.min() > 0


class TestOutputs:
    @settings(max_examples=40, deadline=None)
    @given(any_layer(), st.lists(st.integers(1, 6), min_size=1, max_size=5), st.sampled_from([None, True, False]))
    def test_they_are_pytorchs(self, layer, lengths, enforce_sorted):
        lengths = sorted(lengths, reverse=True) if enforce_sorted else lengths
        value = normal(len(lengths), max(lengths), 3) if layer.batch_first else normal(max(lengths), len(lengths), 3)
        if enforce_sorted is not None:
            value = pack_padded_sequence(value, lengths, layer.batch_first, enforce_sorted)
        assert_same_outputs(layer, value, len(lengths))

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("batch_first", [True, False])
    @pytest.mark.parametrize("packed", [True, False])
    def test_dropout_draws_pytorchs_masks(self, kind, batch_first, packed):
        layer = random_weights(kind(3, 4, 3, batch_first=batch_first, bidirectional=True, dropout=0.3)).train()
        value = normal(5, 5, 3)
        if packed:
            value = pack_padded_sequence(value, [2, 5, 1, 3, 5], batch_first, enforce_sorted=False)
        assert_same_outputs(layer, value, 5)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("autocast", [True, False])
    def test_half_precision_is_pytorchs_to_its_own_rounding(self, kind, autocast):
        layer = random_weights(kind(3, 4, 2, batch_first=True)).to(torch.float32 if autocast else torch.bfloat16)
        value = normal(4, 6, 3).to(layer.weight_hh_l0.dtype)
        wide = kind(3, 4, 2, batch_first=True).double()
        wide.load_state_dict(layer.state_dict())
        rule = attached(layer, Tape(4, torch.device("cpu")))
        with torch.autocast("cpu", enabled=autocast):
            found, _ = layer(value)
        rule.detach()
        assert found.dtype == torch.bfloat16
        assert torch.allclose(found.double(), wide(value.double())[0], atol=0.03)

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_layer_keeps_no_trace_of_its_rule(self, kind):
        layer = random_weights(kind(3, 2))
        before = dict(layer.__dict__)
        rule = attached(layer, Tape(4, torch.device("cpu")))
        rule.detach()
        assert layer.__dict__ == before
        assert all(parameter.requires_grad for parameter in layer.parameters())


class TestWhatGoesTheSlowWay:
    def test_a_projection(self):
        lstm = nn.LSTM(3, 4, batch_first=True, proj_size=2)
        model = random_weights(Loss(lambda self, batch: bent(self.lstm(batch.inputs["x"])[0].flatten(1)), lstm=lstm))
        fast, found, expected = both(model, Rows({"x": normal(3, 4, 3)}), 0.1)
        assert "projection" in fast.fallback
        assert same(found, expected)

    def test_one_sequence_at_a_time(self):
        def loss(self, batch):
            return torch.stack([bent(self.gru(x)[0].flatten()[None])[0] for x in batch.inputs["x"]])

        fast, found, expected = both(random_weights(Loss(loss, gru=nn.GRU(3, 2))), Rows({"x": normal(3, 4, 3)}), 0.1)
        assert "without a batch" in fast.fallback
        assert same(found, expected)

    def test_an_initial_state_that_is_trained(self):
        class Started(nn.Module):
            def __init__(self):
                super().__init__()
                self.gru, self.start = nn.GRU(3, 2, batch_first=True), nn.Parameter(torch.zeros(1, 1, 2))

            def loss(self, batch):
                x = batch.inputs["x"]
                return bent(self.gru(x, self.start.expand(-1, len(x), -1).contiguous())[0].flatten(1))

        fast, found, expected = both(random_weights(Started()), Rows({"x": normal(3, 4, 3)}), 0.1)
        assert fast.fallback
        assert same(found, expected)


def without_the_reset_gate(monkeypatch):
    monkeypatch.setattr(GRURule, "_linears", RecurrentRule._linears)


def without_the_initial_state(monkeypatch):
    real = _Call.before

    def before(self):
        states = real(self)
        return states.masked_fill(torch.arange(states.shape[1])[:, None] == 0, 0.0)

    monkeypatch.setattr(_Call, "before", before)


def with_the_widest_last_position(monkeypatch):
    monkeypatch.setattr(Sequences, "last", lambda self, values: values[:, -1])


def turned_with_its_padding(monkeypatch):
    monkeypatch.setattr(Sequences, "turned", lambda self, values: values.flip(1))


def in_the_order_of_lengths(monkeypatch):
    def of(cls, given, batch_first):
        values, lengths = pad_packed_sequence(given._replace(unsorted_indices=None, sorted_indices=None), True)
        return cls(values, lengths, given, True)

    monkeypatch.setattr(Sequences, "of", classmethod(of))


BUGS = [
    without_the_reset_gate,
    without_the_initial_state,
    with_the_widest_last_position,
    turned_with_its_padding,
    in_the_order_of_lengths,
]


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_caught(bug, monkeypatch):
    layer = random_weights(nn.GRU(3, 4, bidirectional=True, batch_first=True))
    model = Loss(packed_loss(False, with_start=True), layer=layer, start=random_weights(with_start(layer)))
    data = Rows({"x": normal(4, 5, 3), "s": normal(4, 2, seed=5), "lengths": torch.tensor([2, 5, 1, 3])})
    assert both(model, data, 0.1)[0].fallback == ""
    bug(monkeypatch)
    assert both(model, data, 0.1)[0].fallback != ""


def attached(layer: nn.Module, tape: Tape) -> RecurrentRule:
    rule = KINDS[type(layer)]([layer], {parameter for parameter in layer.parameters() if parameter.requires_grad})
    rule.attach(tape)
    return rule


def assert_same_outputs(layer: nn.Module, value: Tensor | PackedSequence, examples: int) -> None:
    """What the layer gives with a rule attached is what it gives without."""
    torch.manual_seed(0)
    expected, expected_states = layer(value)
    rule = attached(layer, Tape(examples, torch.device("cpu")))
    torch.manual_seed(0)
    try:
        found, states = layer(value)
    finally:
        rule.detach()
    assert type(found) is type(expected)
    pairs = [(found, expected)]
    if isinstance(expected, PackedSequence):
        pairs = [(a, b) for a, b in zip(found, expected, strict=True) if b is not None]
        assert [part is None for part in found] == [part is None for part in expected]
    pairs += zip(states, expected_states, strict=True)
    assert all(torch.allclose(a.double(), b.double(), rtol=0, atol=1e-12) for a, b in pairs)
    assert all(a.shape == b.shape for a, b in pairs)
