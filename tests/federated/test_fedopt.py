import math

import numpy as np
import pytest
import torch
from convex import Regression, problem
from simulated import train

from trustnlp.errors import ArgumentError
from trustnlp.federated.algorithm import Round
from trustnlp.federated.fedopt import OPTIMISERS, FedOpt
from trustnlp.federated.local_training import LocalTraining

CHANGES = [0.5, -2.0, 0.25]


def by_hand(optimiser: str, rate: float, beta1: float, beta2: float, tau: float) -> list[float]:
    """One weight, from 1, by the lines of Reddi et al., algorithm 2, and of Hsu et al."""
    w, v, s, path = 1.0, 0.0, tau**2, []
    for d in CHANGES:
        if optimiser == "momentum":
            v = beta1 * v + d
            w += rate * v
        else:
            v = beta1 * v + (1 - beta1) * d
            if optimiser == "adagrad":
                s += d**2
            elif optimiser == "adam":
                s = beta2 * s + (1 - beta2) * d**2
            else:
                s -= (1 - beta2) * d**2 * math.copysign(1, s - d**2)
            w += rate * v / (math.sqrt(s) + tau)
        path.append(w)
    return path


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_three_rounds_by_hand(optimiser: str) -> None:
    algorithm = FedOpt(3, 1, server_rate=0.1, optimiser=optimiser, beta1=0.8, beta2=0.9, tau=0.3)
    weights = torch.ones(1, dtype=torch.float64)
    state, path = algorithm.state(weights), []
    for number, change in enumerate(CHANGES):
        mean = {"change": torch.tensor([change], dtype=torch.float64)}
        algorithm.update(weights, mean, state, Round(number, 1, 1))
        path.append(weights.item())
    assert path == pytest.approx(by_hand(optimiser, 0.1, 0.8, 0.9, 0.3), rel=1e-12)


def test_momentum_zero_and_rate_one_is_fedavg() -> None:
    weights = torch.zeros(1)
    algorithm = FedOpt(1, 1, server_rate=1.0, optimiser="momentum", beta1=0.0)
    algorithm.update(weights, {"change": torch.tensor([0.7])}, algorithm.state(weights), Round(0, 1, 1))
    assert weights.item() == pytest.approx(0.7)


@pytest.mark.parametrize(("optimiser", "rate"), [("adam", 0.05), ("yogi", 0.05), ("adagrad", 0.5), ("momentum", 0.3)])
def test_the_optimum_is_reached(optimiser: str, rate: float) -> None:
    given = problem([4, 6, 20], spread=1.0)
    model = Regression(3)
    train(given, model, FedOpt(300, 3, LocalTraining(0.3, 32), server_rate=rate, optimiser=optimiser, tau=0.1))
    np.testing.assert_allclose(model.w.detach(), given.optimum, atol=1e-3)


@pytest.mark.parametrize("wrong", [{"optimiser": "sgd"}, {"beta1": 1.0}, {"beta2": -0.1}, {"tau": 0.0}])
def test_arguments_that_break_their_rule(wrong: dict[str, object]) -> None:
    with pytest.raises(ArgumentError, match=f"'{next(iter(wrong))}' must be"):
        FedOpt(1, 1, **wrong)
