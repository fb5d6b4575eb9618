import numpy as np
import pytest
from convex import Regression, problem
from simulated import train

from trustnlp.errors import ArgumentError
from trustnlp.federated.feddyn import FedDyn
from trustnlp.federated.local_training import LocalTraining
from trustnlp.federated.selection import Uniform

EQUAL = Uniform(weighting="equal")


def test_three_rounds_by_hand() -> None:
    """Acar et al., algorithm 1, with four steps of descent for each local optimum."""
    given, alpha = problem([10, 20], spread=2.0), 0.5
    w, h, own = np.zeros(3), np.zeros(3), np.zeros((2, 3))
    for _ in range(3):
        ends = []
        for device in range(2):
            y = w.copy()
            for _ in range(4):
                y -= 0.1 * (given.gradient(y, device) - own[device] + alpha * (y - w))
            own[device] -= alpha * (y - w)
            ends.append(y)
        h -= alpha * np.mean([y - w for y in ends], 0)
        w = np.mean(ends, 0) - h / alpha
    model = Regression(3)
    train(given, model, FedDyn(3, 2, LocalTraining(0.1, 32, epochs=4), alpha=alpha), selection=EQUAL)
    np.testing.assert_allclose(model.w.detach(), w, rtol=1e-10)


@pytest.mark.parametrize("cohort", [2, 4])
def test_the_optimum_of_all_devices_is_reached_in_spite_of_local_steps(cohort: int) -> None:
    given = problem([10] * 4, spread=2.0)
    model = Regression(3)
    train(given, model, FedDyn(60, cohort, LocalTraining(0.2, 32, epochs=8), alpha=0.5), selection=EQUAL)
    np.testing.assert_allclose(model.w.detach(), given.optimum, atol=1e-3)


def test_a_weight_of_zero_is_refused() -> None:
    with pytest.raises(ArgumentError, match="'alpha' must be a number > 0"):
        FedDyn(1, 1, alpha=0.0)
