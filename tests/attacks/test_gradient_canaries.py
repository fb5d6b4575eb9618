import numpy as np
import pytest
import torch

from trustnlp.attacks.gradient_canaries import PULL, CanaryModel, GradientCanaries, views, watch
from trustnlp.errors import ArgumentError
from trustnlp.models.protocol import Draw

INCLUDED = np.array([True, False, True, True])


class Descent:
    """Plain SGD on the sum of the drawn examples' losses."""

    def __init__(self, model: CanaryModel) -> None:
        self.model = model

    def __call__(self, data: GradientCanaries, draw: Draw) -> float:
        loss = self.model.loss(data.batch(draw.indices)).sum()
        loss.backward()
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter -= parameter.grad
                parameter.grad = None
        return float(loss.detach())


def draws(*indices: list[int]) -> list[Draw]:
    return [Draw(step, np.array(drawn), None) for step, drawn in enumerate(indices)]


def test_gradients_are_orthogonal_and_far_beyond_any_clip_norm():
    canaries = GradientCanaries(np.ones(3, dtype=bool))
    model = CanaryModel(len(canaries))
    gradients = []
    for number in range(4):
        parts = torch.autograd.grad(model.loss(canaries.batch([number])).sum(), list(model.parameters()))
        gradients.append(torch.cat([part.flatten() for part in parts]))
    products = torch.stack(gradients) @ torch.stack(gradients).T
    assert torch.equal(products, 2 * PULL**2 * torch.eye(4))


def test_the_last_example_is_always_in_and_never_scored():
    canaries = GradientCanaries(INCLUDED)
    assert len(canaries) == 5
    assert canaries.batch(range(5)).inputs["pull"].tolist() == [PULL, 0, PULL, PULL, PULL]
    assert canaries.blank().batch(range(5)).inputs["pull"].tolist() == [0, 0, 0, 0, PULL]
    assert watch(canaries, Descent, draws([0, 4])).shape == (1, 2, 4)


def test_movements_are_of_drawn_canaries_that_were_in():
    seen = watch(GradientCanaries(INCLUDED), Descent, draws([0, 1], [], [0, 3]))
    expected = PULL * np.array([[1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1]], dtype=float)
    np.testing.assert_array_equal(seen, np.stack([expected, expected], 1))


def test_views_against_their_definitions():
    generator = np.random.default_rng(0)
    seen, blank = generator.normal(size=(2, 5, 2, 7))
    found = views(seen, blank)
    assert list(found) == ["whole", "embedding", "linear", "spread", "against-blank"]
    for canary in range(7):
        steps = [float(seen[t, 0, canary] + seen[t, 1, canary]) for t in range(5)]
        assert found["whole"][canary] == pytest.approx(sum(steps))
        assert found["embedding"][canary] == pytest.approx(seen[:, 0, canary].sum())
        assert found["linear"][canary] == pytest.approx(seen[:, 1, canary].sum())
        assert found["spread"][canary] == pytest.approx(np.var(steps))
        assert found["against-blank"][canary] == pytest.approx(sum(steps) - blank[:, :, canary].sum())


def test_one_step_has_no_spread():
    assert "spread" not in views(np.zeros((1, 2, 3)), np.zeros((1, 2, 3)))


def test_views_of_different_runs_are_refused():
    with pytest.raises(ArgumentError, match="blank"):
        views(np.zeros((2, 2, 3)), np.zeros((1, 2, 3)))


@pytest.mark.parametrize("wrong", [np.array([1, 0]), np.ones((2, 2), dtype=bool), np.array([True])])
def test_coins_that_are_none_are_refused(wrong):
    with pytest.raises(ArgumentError):
        GradientCanaries(wrong)
