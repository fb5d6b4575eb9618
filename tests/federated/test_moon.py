"""The contrastive term and its gradient by hand, two rounds by hand, and what has no representation."""

import numpy as np
import pytest
import torch
from convex import Regression, problem
from hypothesis import given
from hypothesis import strategies as st
from simulated import train
from torch import nn

from trustnlp.errors import ArgumentError, ModelError
from trustnlp.federated.fedavg import FedAvg
from trustnlp.federated.local_training import LocalTraining
from trustnlp.federated.moon import Moon, contrast
from trustnlp.models.protocol import Batch

FIRST = np.array([[0.3, -0.2, 0.5], [0.1, 0.4, -0.6]])


class Wide(nn.Module):
    """Represents a row x by W x, and predicts the sum of that."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(FIRST))

    def representation(self, batch: Batch) -> torch.Tensor:
        return batch.inputs["x"] @ self.w.T

    def loss(self, batch: Batch) -> torch.Tensor:
        return (self.representation(batch).sum(1) - batch.targets["y"]).square() / 2

    def logits(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {"label": self.representation(batch)}


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def term(z: np.ndarray, near: np.ndarray, far: np.ndarray, t: float) -> float:
    """Li et al., equation 3, as it is written there."""
    positive, negative = np.exp(cosine(z, near) / t), np.exp(cosine(z, far) / t)
    return -np.log(positive / (positive + negative))


def gradient(z: np.ndarray, near: np.ndarray, far: np.ndarray, t: float) -> np.ndarray:
    """Of the term by z: the chance of taking `far` for the right one, times how the cosines differ in gradient."""

    def of_cosine(b: np.ndarray) -> np.ndarray:
        return b / np.linalg.norm(z) / np.linalg.norm(b) - cosine(z, b) * z / (z @ z)

    positive, negative = np.exp(cosine(z, near) / t), np.exp(cosine(z, far) / t)
    return negative / (positive + negative) / t * (of_cosine(far) - of_cosine(near))


@given(seed=st.integers(0, 10**6), temperature=st.floats(0.1, 5))
def test_the_term_and_its_gradient_by_hand(seed: int, temperature: float) -> None:
    near, far, own = np.random.default_rng(seed).normal(size=(3, 4, 5))
    z = torch.tensor(own, requires_grad=True)
    found = contrast(z, torch.from_numpy(near), torch.from_numpy(far), temperature)
    found.sum().backward()
    np.testing.assert_allclose(found.detach(), [term(*each, temperature) for each in zip(own, near, far, strict=True)])
    expected = [gradient(*each, temperature) for each in zip(own, near, far, strict=True)]
    np.testing.assert_allclose(z.grad, expected, rtol=1e-7, atol=1e-10)


def test_two_rounds_by_hand() -> None:
    """At the first visit there is no term; at the second it pushes away from where the first has ended."""
    one = problem([4])
    x, y = one.rows.x, one.rows.y

    def local_steps(server: np.ndarray, last: np.ndarray | None) -> np.ndarray:
        w = server.copy()
        for _ in range(2):
            g = ((x @ w.T).sum(1) - y)[:, None, None] * np.ones((2, 1)) * x[:, None, :]
            if last is not None:
                pulls = [gradient(w @ row, server @ row, last @ row, 0.7) for row in x]
                g = g + 3.0 * np.array(pulls)[:, :, None] * x[:, None, :]
            w = w - 0.1 * g.mean(0)
        return w

    last = local_steps(FIRST, None)
    server = FIRST + 0.5 * (last - FIRST)
    end = server + 0.5 * (local_steps(server, last) - server)
    model = Wide()
    train(one, model, Moon(2, 1, LocalTraining(0.1, 8, epochs=2), server_rate=0.5, mu=3.0, temperature=0.7))
    np.testing.assert_allclose(model.w.detach(), end, rtol=1e-9)
    assert np.abs(end - server - 0.5 * (local_steps(server, None) - server)).max() > 1e-4  # so the term was there


def test_without_the_term_it_is_fedavg_to_the_bit() -> None:
    two = problem([4, 6], spread=1.0)
    found = []
    for algorithm in (FedAvg(4, 2, LocalTraining(0.1, 2)), Moon(4, 2, LocalTraining(0.1, 2), mu=0.0)):
        model = Wide()
        train(two, model, algorithm)
        found.append(model.w.detach())
    assert torch.equal(*found)


def test_a_model_without_representation_is_refused() -> None:
    with pytest.raises(ModelError, match=r"Regression has no representation .* give it a method representation"):
        train(problem([4]), Regression(3), Moon(1, 1))


@pytest.mark.parametrize("wrong", [{"mu": -1.0}, {"temperature": 0.0}])
def test_arguments_that_break_their_rule(wrong: dict[str, float]) -> None:
    with pytest.raises(ArgumentError, match=f"'{next(iter(wrong))}' must be"):
        Moon(1, 1, **wrong)
