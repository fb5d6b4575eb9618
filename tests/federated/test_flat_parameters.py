import pytest
import torch
from torch import nn

from trustnlp.errors import ArgumentError, ModelError
from trustnlp.federated.flat_parameters import FlatParameters


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5)
        self.head.weight = self.words.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.words(ids))


def test_parameters_and_vector_are_the_same_memory() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    before = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    flat = FlatParameters(model)
    assert torch.equal(flat.values, before)
    flat.values.zero_()
    assert all((parameter == 0).all() for parameter in model.parameters())
    model[0].bias.data.fill_(2)
    assert flat.values.sum() == 8


def test_gradients_add_up_in_the_vector() -> None:
    model, plain = Tied(), Tied()
    plain.load_state_dict(model.state_dict())
    flat = FlatParameters(model)
    ids = torch.tensor([0, 3, 3])
    for one in (model, plain):
        one(ids).square().sum().backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in plain.parameters()])
    torch.testing.assert_close(flat.gradient, expected)
    model(ids).square().sum().backward()  # a second one is added, until somebody sets the vector to zero
    torch.testing.assert_close(flat.gradient, 2 * expected)


def test_a_shared_parameter_stands_there_once_and_a_frozen_one_not() -> None:
    model = Tied()
    model.head.bias.requires_grad_(False)
    assert len(FlatParameters(model)) == 15


def test_a_model_still_answers_and_keeps_its_names() -> None:
    model = nn.LSTM(3, 2, bidirectional=True)
    inputs = torch.randn(4, 1, 3)
    before, state = model(inputs)[0], {name: value.clone() for name, value in model.state_dict().items()}
    FlatParameters(model)
    assert torch.equal(model(inputs)[0], before)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_running_statistics_are_refused() -> None:
    with pytest.raises(ModelError, match=r"1 \(BatchNorm1d\) keeps running statistics"):
        FlatParameters(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    FlatParameters(nn.BatchNorm1d(2, track_running_stats=False))


def test_nothing_to_train_and_mixed_types_are_refused() -> None:
    with pytest.raises(ModelError, match="no parameter to train"):
        FlatParameters(nn.Linear(2, 2).requires_grad_(False))
    with pytest.raises(ArgumentError, match="'model' must be with trained parameters of one type"):
        FlatParameters(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()))


def test_other_weights_are_read_without_being_copied() -> None:
    """Of an LSTM, too, which keeps lists of its weights."""
    model = nn.LSTM(3, 2, bidirectional=True)
    flat = FlatParameters(model)
    inputs, own = torch.randn(4, 1, 3), flat.values.clone()
    expected = model(inputs)[0]
    other = torch.randn_like(own)
    flat.values.copy_(other)
    there = model(inputs)[0]
    flat.values.copy_(own)
    with flat.reading(other):
        assert model.weight_ih_l0.data_ptr() == other.data_ptr()
        assert torch.equal(model(inputs)[0], there)
    assert torch.equal(model(inputs)[0], expected)
    model(inputs)[0].sum().backward()
    assert flat.gradient.abs().sum() > 0
    with pytest.raises(ZeroDivisionError), flat.reading(other):
        _ = 1 / 0
    assert torch.equal(model(inputs)[0], expected)
