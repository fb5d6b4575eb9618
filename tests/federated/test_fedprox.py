import numpy as np
import pytest
from convex import Regression, problem
from simulated import train

from trustnlp.errors import ArgumentError
from trustnlp.federated.fedavg import FedAvg
from trustnlp.federated.fedprox import FedProx
from trustnlp.federated.local_training import LocalTraining

GIVEN = problem([10, 10, 20], spread=2.0)
LOCAL = LocalTraining(0.1, 32, epochs=10)


def test_two_local_steps_by_hand() -> None:
    """The second step is pulled back by mu (w - w_server), Li et al., equation 2."""
    first = -0.1 * GIVEN.gradient(np.zeros(3), 0)
    second = first - 0.1 * (GIVEN.gradient(first, 0) + 0.5 * first)
    model, alone = Regression(3), problem([10, 10, 20], spread=2.0)
    object.__setattr__(alone.population, "devices", alone.population.devices[:1])
    train(alone, model, FedProx(1, 1, LocalTraining(0.1, 32, epochs=2), mu=0.5))
    np.testing.assert_allclose(model.w.detach(), second, rtol=1e-10)


def test_without_the_term_it_is_fedavg() -> None:
    found = []
    for algorithm in (FedAvg(5, 2, LOCAL), FedProx(5, 2, LOCAL, mu=0.0)):
        model = Regression(3)
        train(GIVEN, model, algorithm)
        found.append(model.w.detach().numpy())
    np.testing.assert_array_equal(*found)


def test_devices_drift_less() -> None:
    """With the same local work it ends nearer to the optimum; and its fixed point goes there as mu grows."""
    distances = []
    for mu in (0.0, 1.0, 8.0):
        model = Regression(3)
        train(GIVEN, model, FedProx(150, 3, LOCAL, mu=mu))
        distances.append(np.linalg.norm(model.w.detach().numpy() - GIVEN.optimum))
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < distances[0] / 3


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ArgumentError, match="'mu' must be a number >= 0"):
        FedProx(1, 1, mu=-1.0)
