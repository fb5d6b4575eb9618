import numpy as np
import pytest
from convex import Problem, Regression, problem
from simulated import train

from trustnlp.errors import ArgumentError
from trustnlp.federated.algorithm import Algorithm
from trustnlp.federated.fedavg import FedAvg
from trustnlp.federated.fednova import FedNova, reach
from trustnlp.federated.local_training import LocalTraining
from trustnlp.randomness import Streams


def trained(given: Problem, algorithm: Algorithm) -> np.ndarray:
    model = Regression(3)
    train(given, model, algorithm, streams=Streams(5))
    return model.w.detach().numpy()


def test_one_round_by_hand() -> None:
    """Wang et al., equation 9, with devices of 1 and 3 steps: tau_eff sum(p_i change_i / tau_i)."""
    given, local = problem([4, 12], spread=1.0), LocalTraining(0.1, 4)
    directions = []
    for device, own in enumerate(given.population.devices):
        w, steps = np.zeros(3), 0
        for draw in local.draws(len(own), Streams(5).numpy("batches", 0, device)):
            x, y = given.rows.x[own[draw]], given.rows.y[own[draw]]
            w, steps = w - 0.1 * x.T @ (x @ w - y) / len(draw), steps + 1
        directions.append(w / steps)
    steps = 0.25 * 1 + 0.75 * 3
    expected = 0.9 * steps * (0.25 * directions[0] + 0.75 * directions[1])
    np.testing.assert_allclose(trained(given, FedNova(1, 2, local, server_rate=0.9)), expected, rtol=1e-10)


def test_devices_of_more_steps_do_not_pull_the_model_to_their_side() -> None:
    """As the local steps go to 0, the fixed point is that of the objective; FedAvg's is not."""
    given, local = problem([4, 40], spread=2.0), LocalTraining(0.02, 4)
    far, near = (np.linalg.norm(trained(given, kind(150, 2, local)) - given.optimum) for kind in (FedAvg, FedNova))
    assert near < far / 3


def test_with_equal_steps_it_is_fedavg() -> None:
    given, local = problem([8, 8], spread=1.0), LocalTraining(0.1, 4, epochs=2, momentum=0.9)
    np.testing.assert_allclose(trained(given, FedNova(5, 2, local)), trained(given, FedAvg(5, 2, local)), rtol=1e-10)


@pytest.mark.parametrize(("steps", "momentum"), [(1, 0.0), (7, 0.0), (1, 0.9), (5, 0.5), (40, 0.9)])
def test_reach_is_how_far_a_constant_gradient_moves(steps: int, momentum: float) -> None:
    velocity, moved = 0.0, 0.0
    for _ in range(steps):
        velocity = momentum * velocity + 1
        moved += velocity
    assert reach(steps, momentum) == pytest.approx(moved, rel=1e-12)


def test_clipped_steps_are_refused() -> None:
    with pytest.raises(ArgumentError, match="'local' must be without clip_grad_norm"):
        FedNova(1, 1, LocalTraining(clip_grad_norm=1.0))
