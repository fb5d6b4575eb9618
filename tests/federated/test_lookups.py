from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from trustnlp.federated.flat_parameters import FlatParameters
from trustnlp.federated.lookups import LARGE, Lookups

WORDS, WIDTH = 64, LARGE // 64
IDS = torch.tensor([[0, 3, 3], [5, 0, 9]])


class Model(nn.Module):
    def __init__(self, answer: Callable[["Model"], Tensor], **more: object) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(WORDS, WIDTH, **more)
        self.head = nn.Linear(WIDTH, 2)
        self.answer = answer

    def forward(self) -> Tensor:
        return self.answer(self)


def once(model: Model) -> Tensor:
    return model.head(model.words(IDS)).square().sum()


def twice(model: Model) -> Tensor:
    return once(model) + model.words(IDS[0]).pow(3).sum()


def tied(model: Model) -> Tensor:
    return (model.words(IDS) @ model.words.weight.T).logsumexp(-1).sum()


def in_place(model: Model) -> Tensor:
    return model.words(IDS).mul_(2).square().sum()


def unused(model: Model) -> Tensor:
    model.words(IDS)
    return model.head(torch.ones(WIDTH)).sum()


def gradient(model: Model, spared: bool, steps: int = 1) -> Tensor:
    flat = FlatParameters(model)
    for _ in range(steps):
        if spared:
            with flat.lookups.kept():
                model().backward()
                flat.lookups.add()
        else:
            model().backward()
    return flat.gradient


@pytest.mark.parametrize("answer", [once, in_place, unused])
@pytest.mark.parametrize("more", [{}, {"padding_idx": 3}])
def test_the_bits_are_those_of_pytorch(answer: Callable[[Model], Tensor], more: dict[str, int]) -> None:
    assert torch.equal(gradient(Model(answer, **more), True), gradient(Model(answer, **more), False))


@pytest.mark.parametrize("answer", [twice, tied])
def test_gradients_from_several_places_add_up(answer: Callable[[Model], Tensor]) -> None:
    expected = gradient(Model(answer), False, steps=2)
    torch.testing.assert_close(gradient(Model(answer), True, steps=2), expected)


@pytest.mark.parametrize("more", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}])
def test_tables_that_scale_are_left_to_pytorch(more: dict[str, object]) -> None:
    assert torch.equal(gradient(Model(once, **more), True), gradient(Model(once, **more), False))


def test_a_frozen_table_and_one_without_gradient_are_left_alone() -> None:
    model = Model(once)
    with Lookups(model).kept():
        model().backward()
    assert model.words.weight.grad is not None
    model = Model(once)
    model.words.requires_grad_(False)
    gradient(model, True)
    assert model.words.weight.grad is None


def test_nothing_is_left_on_the_model() -> None:
    model = Model(once)
    lookups = Lookups(model)
    with pytest.raises(ZeroDivisionError), lookups.kept():
        _ = 1 / 0
    assert not model.words._forward_hooks
    model().backward()
    assert model.words.weight.grad is not None
