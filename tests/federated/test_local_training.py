import numpy as np
import pytest
import torch
from convex import Regression, problem
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trustnlp.errors import ArgumentError
from trustnlp.federated.fedavg import FedAvg
from trustnlp.federated.flat_parameters import FlatParameters
from trustnlp.federated.local_training import Answer, LocalTraining, visit
from trustnlp.models.protocol import Batch
from trustnlp.randomness import Streams

PROBLEM = problem([5, 8])


def once(local: LocalTraining, model: nn.Module | None = None, number: int = 0, device: int = 0) -> Answer:
    model = model or Regression(3)
    flat = FlatParameters(model)
    start = torch.full_like(flat.values, 0.5)
    return visit(
        FedAvg(1, 1, local),
        model,
        flat,
        PROBLEM.population.data(device),
        start=start,
        received={},
        kept={},
        number=number,
        device=device,
        streams=Streams(3),
    )


def test_one_step_of_all_texts_is_gradient_descent() -> None:
    answer = once(LocalTraining(rate=0.1, batch_size=8))
    gradient = PROBLEM.gradient(np.full(3, 0.5), 0)
    np.testing.assert_allclose(answer.vectors["change"], -0.1 * gradient, rtol=1e-12)
    assert answer.steps == 1


def test_several_steps_with_momentum_and_clipping_are_those_of_pytorch() -> None:
    local = LocalTraining(rate=0.1, batch_size=8, epochs=4, momentum=0.9, clip_grad_norm=0.3)
    w = torch.full((3,), 0.5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([w], 0.1, momentum=0.9)
    for _ in range(4):
        w.grad = torch.from_numpy(PROBLEM.gradient(w.detach().numpy(), 0))
        nn.utils.clip_grad_norm_([w], 0.3)
        optimizer.step()
    np.testing.assert_allclose(once(local).vectors["change"], (w - 0.5).detach(), rtol=1e-6)


def test_the_rate_decays_by_rounds() -> None:
    local = LocalTraining(rate=0.1, batch_size=8, rate_decay=0.5)
    first, third = (once(local, number=number).vectors["change"] for number in (0, 2))
    np.testing.assert_allclose(third, first / 4, rtol=1e-12)


def test_the_loss_is_the_mean_over_texts_before_each_step() -> None:
    answer = once(LocalTraining(rate=1e-9, batch_size=2))  # of 2, 2 and 1 texts
    own = PROBLEM.population.devices[0]
    errors = PROBLEM.rows.x[own] @ np.full(3, 0.5) - PROBLEM.rows.y[own]
    assert answer.loss == pytest.approx((errors**2 / 2).mean(), rel=1e-6)


class Dropping(Regression):
    """Draws from the global generator, as dropout does."""

    def loss(self, batch: Batch) -> torch.Tensor:
        return super().loss(batch) * torch.rand(len(batch), dtype=torch.float64)


def test_a_visit_depends_on_round_and_device_alone() -> None:
    local = LocalTraining(batch_size=2, epochs=2)
    torch.manual_seed(0)
    first = once(local, Dropping(3), 1, 1).vectors["change"]
    torch.manual_seed(1)
    torch.testing.assert_close(once(local, Dropping(3), 1, 1).vectors["change"], first, rtol=0, atol=0)
    assert not torch.equal(once(local, Dropping(3), 2, 1).vectors["change"], first)


@given(
    texts=st.integers(1, 40), batch=st.integers(1, 12), epochs=st.integers(1, 3), steps=st.none() | st.integers(1, 30)
)
def test_draws_are_whole_passes_in_new_orders(texts: int, batch: int, epochs: int, steps: int | None) -> None:
    local = LocalTraining(batch_size=batch, epochs=epochs, steps=steps)
    draws = list(local.draws(texts, np.random.default_rng(0)))
    assert len(draws) == local.steps_of(texts)
    assert sum(map(len, draws)) == local.texts_of(texts)
    counts = np.bincount(np.concatenate(draws), minlength=texts)
    assert counts.max() - counts.min() <= 1
    if steps is None:
        assert (counts == epochs).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate": 0},
        {"batch_size": 0},
        {"epochs": 0},
        {"steps": 0},
        {"momentum": 1.0},
        {"clip_grad_norm": 0},
        {"rate_decay": 2},
    ],
)
def test_arguments_that_break_their_rule(wrong: dict[str, float]) -> None:
    with pytest.raises(ArgumentError, match=f"'{next(iter(wrong))}' must be"):
        LocalTraining(**wrong)
