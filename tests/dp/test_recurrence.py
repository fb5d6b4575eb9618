import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import Calls, Loss, Rows, assert_one_backward_is_exact, both, normal, random_weights, same
from torch import nn

from trustnlp.dp.recurrence import LSTMRecurrence


class TestLSTMRecurrence:
    @settings(max_examples=15, deadline=None)
    @given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
    def test_it_is_pytorchs_lstm(self, examples, length, width, seed):
        lstm = random_weights(nn.LSTM(3, width, batch_first=True), seed)
        x = normal(examples, length, 3, seed=seed)
        hidden, (_, cell) = lstm(x)
        gates = nn.functional.linear(x, lstm.weight_ih_l0, lstm.bias_ih_l0 + lstm.bias_hh_l0)
        found = LSTMRecurrence.apply(gates, lstm.weight_hh_l0)
        assert torch.allclose(found[0], hidden, atol=1e-12)
        assert torch.allclose(found[1], cell[0], atol=1e-12)

    def test_its_gradient_is_that_of_finite_differences(self):
        gates, weight = normal(2, 3, 8).requires_grad_(), normal(8, 2, seed=1)
        assert torch.autograd.gradcheck(LSTMRecurrence.apply, (gates, weight))


class TestLSTMRule:
    @settings(max_examples=25, deadline=None)
    @given(
        st.integers(1, 5),
        st.lists(st.integers(1, 7), min_size=1, max_size=2),
        st.integers(1, 4),
        st.integers(1, 2),
        st.booleans(),
        st.booleans(),
        st.lists(st.booleans(), min_size=16, max_size=16),
        st.integers(0, 99),
        st.sampled_from([0.1, 1e9]),
    )
    def test_any_depth_and_direction_partly_frozen(
        self, examples, lengths, width, layers, bias, bidirectional, frozen, seed, clip_norm
    ):
        lstm = nn.LSTM(3, width, layers, bias=bias, bidirectional=bidirectional, batch_first=True)
        for parameter, still in zip(lstm.parameters(), frozen, strict=False):
            parameter.requires_grad_(not still)
        lstm.weight_hh_l0.requires_grad_(True)
        data = Rows({f"x{i}": normal(examples, length, 3, seed=i) for i, length in enumerate(lengths)})
        assert_one_backward_is_exact(random_weights(Calls(lstm), seed), data, clip_norm, physical_batch=2)

    @pytest.mark.parametrize(
        "lstm",
        [
            nn.LSTM(3, 2),
            nn.LSTM(3, 2, 2, batch_first=True, dropout=0.5),
            nn.LSTM(3, 4, batch_first=True, proj_size=2),
        ],
    )
    def test_other_settings_go_the_slow_way(self, lstm):
        model = random_weights(Loss(lambda self, batch: self.lstm(batch.inputs["x"])[0].sum((1, 2)), lstm=lstm))
        fast, *_ = both(model.eval(), Rows({"x": normal(3, 4, 3)}), 0.1)
        assert "LSTM" in fast.fallback

    def test_initial_states_go_the_slow_way(self):
        def loss(self, batch):
            x = batch.inputs["x"]
            start = (torch.ones(1, len(x), 2).double(), torch.zeros(1, len(x), 2).double())
            return self.lstm(x, start)[0].sin().sum((1, 2))

        model = random_weights(Loss(loss, lstm=nn.LSTM(3, 2, batch_first=True)))
        fast, found, expected = both(model, Rows({"x": normal(3, 4, 3)}), 0.1)
        assert "initial states" in fast.fallback
        assert same(found, expected)
