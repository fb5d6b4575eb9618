import numpy as np
from convex import Regression, problem
from simulated import train

from trustnlp.federated.fedavg import FedAvg
from trustnlp.federated.local_training import LocalTraining


def test_two_rounds_by_hand() -> None:
    """McMahan et al., algorithm 1: all devices, two local epochs of one batch, weights n_k / n."""
    given = problem([4, 6], spread=1.0)
    w = np.zeros(3)
    for _ in range(2):
        ends = []
        for device in range(2):
            own = w.copy()
            for _ in range(2):
                own -= 0.1 * given.gradient(own, device)
            ends.append(own)
        w = 0.4 * ends[0] + 0.6 * ends[1]
    model = Regression(3)
    train(given, model, FedAvg(2, 2, LocalTraining(0.1, 8, epochs=2)))
    np.testing.assert_allclose(model.w.detach(), w, rtol=1e-10)


def test_one_step_over_all_texts_is_gradient_descent_to_the_optimum() -> None:
    given = problem([4, 6, 20], spread=1.0)
    model = Regression(3)
    train(given, model, FedAvg(150, 3, LocalTraining(0.5, 32)))
    np.testing.assert_allclose(model.w.detach(), given.optimum, atol=1e-6)


def test_many_local_steps_stop_beside_the_optimum_where_devices_differ() -> None:
    """The drift that other algorithms mend; without it their tests would show nothing."""
    given = problem([10, 10, 20], spread=2.0)
    model = Regression(3)
    train(given, model, FedAvg(100, 3, LocalTraining(0.1, 32, epochs=10)))
    assert np.linalg.norm(model.w.detach().numpy() - given.optimum) > 0.02
