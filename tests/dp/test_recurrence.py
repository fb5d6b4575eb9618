import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import normal, random_weights
from torch import Tensor, nn

from trustnlp.dp.recurrence import ElmanRecurrence, GRURecurrence, LSTMRecurrence

shapes = given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))


def layer_of(kind: type[nn.Module], width: int, seed: int, **options) -> nn.Module:
    return random_weights(kind(3, width, batch_first=True, **options), seed)


def sums_of(layer: nn.Module, x: Tensor, hidden_bias: Tensor) -> Tensor:
    return nn.functional.linear(x, layer.weight_ih_l0, layer.bias_ih_l0 + hidden_bias)


@settings(max_examples=15, deadline=None)
@shapes
def test_an_lstm_is_pytorchs(examples, length, width, seed):
    lstm, x = layer_of(nn.LSTM, width, seed), normal(examples, length, 3, seed=seed)
    state, cell = normal(examples, width, seed=seed + 1), normal(examples, width, seed=seed + 2)
    hidden, (_, last) = lstm(x, (state[None], cell[None]))
    found = LSTMRecurrence.apply(sums_of(lstm, x, lstm.bias_hh_l0), lstm.weight_hh_l0, state, cell)
    assert torch.allclose(found[0], hidden, rtol=0, atol=1e-12)
    assert torch.allclose(found[1][:, -1], last[0], rtol=0, atol=1e-12)


@settings(max_examples=15, deadline=None)
@shapes
def test_a_gru_is_pytorchs(examples, length, width, seed):
    gru, x = layer_of(nn.GRU, width, seed), normal(examples, length, 3, seed=seed)
    state = normal(examples, width, seed=seed + 1)
    outer, inner = gru.bias_hh_l0.clone(), gru.bias_hh_l0[2 * width :]
    outer[2 * width :] = 0
    found, _ = GRURecurrence.apply(sums_of(gru, x, outer), gru.weight_hh_l0, inner, state)
    assert torch.allclose(found, gru(x, state[None])[0], rtol=0, atol=1e-12)


@settings(max_examples=15, deadline=None)
@shapes
def test_elmans_is_pytorchs(examples, length, width, seed):
    for kind in ("tanh", "relu"):
        rnn, x = layer_of(nn.RNN, width, seed, nonlinearity=kind), normal(examples, length, 3, seed=seed)
        state = normal(examples, width, seed=seed + 1)
        found = ElmanRecurrence.apply(sums_of(rnn, x, rnn.bias_hh_l0), rnn.weight_hh_l0, state, kind == "relu")
        assert torch.allclose(found, rnn(x, state[None])[0], rtol=0, atol=1e-12)


class TestGradientsAreThoseOfFiniteDifferences:
    def test_lstm(self):
        sums, state, cell = normal(2, 3, 8), normal(2, 2, seed=2), normal(2, 2, seed=3)
        free = [tensor.requires_grad_() for tensor in (sums, state, cell)]
        weight = normal(8, 2, seed=1)
        assert torch.autograd.gradcheck(lambda x, h, c: LSTMRecurrence.apply(x, weight, h, c), free)

    @pytest.mark.parametrize("part", [0, 1])
    def test_lstm_where_one_output_is_not_read(self, part):
        sums, weight, start = normal(2, 3, 8).requires_grad_(), normal(8, 2, seed=1), normal(2, 2, seed=2)
        assert torch.autograd.gradcheck(lambda x: LSTMRecurrence.apply(x, weight, start, start)[part], sums)

    def test_gru(self):
        sums, state = normal(2, 3, 6).requires_grad_(), normal(2, 2, seed=2).requires_grad_()
        weight, bias = normal(6, 2, seed=1), normal(2, seed=4)
        assert torch.autograd.gradcheck(lambda x, h: GRURecurrence.apply(x, weight, bias, h)[0], (sums, state))

    @pytest.mark.parametrize("relu", [True, False])
    def test_elman(self, relu):
        sums, state = normal(2, 3, 2).requires_grad_(), normal(2, 2, seed=2).requires_grad_()
        weight = normal(2, 2, seed=1)
        assert torch.autograd.gradcheck(lambda x, h: ElmanRecurrence.apply(x, weight, h, relu), (sums, state))


def test_the_reset_gates_of_a_gru_are_given_without_gradient():
    sums, weight, state = normal(2, 1, 6), normal(6, 2, seed=1), normal(2, 2, seed=2)
    _, resets = GRURecurrence.apply(sums.requires_grad_(), weight, torch.zeros(2).double(), state)
    assert not resets.requires_grad
    assert torch.allclose(resets[:, 0], (sums[:, 0, :2] + state @ weight[:2].t()).sigmoid())
