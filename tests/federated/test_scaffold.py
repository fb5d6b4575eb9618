import numpy as np
import pytest
from convex import Regression, problem
from simulated import train

from trustnlp.errors import ArgumentError
from trustnlp.federated.local_training import LocalTraining
from trustnlp.federated.scaffold import Scaffold
from trustnlp.federated.selection import Uniform

EQUAL = Uniform(weighting="equal")
LOCAL = LocalTraining(0.1, 32, epochs=3)


def test_three_rounds_by_hand() -> None:
    """Karimireddy et al., algorithm 1 with option II, all devices."""
    given = problem([10, 20], spread=2.0)
    w, c, own = np.zeros(3), np.zeros(3), np.zeros((2, 3))
    for _ in range(3):
        changes, moves = [], []
        for device in range(2):
            y = w.copy()
            for _ in range(3):
                y -= 0.1 * (given.gradient(y, device) - own[device] + c)
            newest = own[device] - c + (w - y) / (3 * 0.1)
            changes.append(y - w)
            moves.append(newest - own[device])
            own[device] = newest
        w, c = w + 0.7 * np.mean(changes, 0), c + np.mean(moves, 0)
    model = Regression(3)
    train(given, model, Scaffold(3, 2, LOCAL, server_rate=0.7), selection=EQUAL)
    np.testing.assert_allclose(model.w.detach(), w, rtol=1e-10)


@pytest.mark.parametrize("cohort", [2, 4])
def test_the_optimum_of_all_devices_is_reached_in_spite_of_local_steps(cohort: int) -> None:
    given = problem([10] * 4, spread=2.0)
    model = Regression(3)
    train(given, model, Scaffold(120, cohort, LocalTraining(0.1, 32, epochs=5)), selection=EQUAL)
    np.testing.assert_allclose(model.w.detach(), given.optimum, atol=1e-4)


@pytest.mark.parametrize("wrong", [{"momentum": 0.9}, {"clip_grad_norm": 1.0}])
def test_steps_from_which_no_control_can_be_read_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ArgumentError, match="'local' must be without momentum and clip_grad_norm"):
        Scaffold(1, 1, LocalTraining(**wrong))
