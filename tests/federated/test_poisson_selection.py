import math

import numpy as np
import pytest

from trustnlp.errors import ArgumentError
from trustnlp.federated.poisson_selection import PoissonSelection
from trustnlp.randomness import Streams

STREAMS = Streams(5)
RATES = np.array([0.0, 0.003, 0.05, 0.05, 0.06, 0.25, 0.3, 0.9, 1.0])


def test_each_device_enters_with_its_own_rate_and_independently():
    selection, rounds = PoissonSelection(RATES), 4000
    drawn = np.zeros((rounds, len(RATES)))
    for round in range(rounds):
        drawn[round, selection.draw(round, STREAMS)] = 1
    error = np.sqrt(RATES * (1 - RATES) / rounds)
    assert (np.abs(drawn.mean(0) - RATES) <= 4.5 * error).all()
    covariance = np.cov(drawn.T) - np.diag(RATES * (1 - RATES))
    assert np.abs(covariance).max() < 0.02  # a cohort of fixed size has -0.25 and more in such a small population
    assert drawn.sum(1).var() == pytest.approx((RATES * (1 - RATES)).sum(), rel=0.1)


def test_draws_are_sorted_without_repeats_and_of_the_round_alone():
    selection = PoissonSelection(np.full(500, 0.3))
    devices = selection.draw(7, STREAMS)
    assert (np.diff(devices) > 0).all()
    assert np.array_equal(devices, PoissonSelection(np.full(500, 0.3)).draw(7, STREAMS))
    assert not np.array_equal(devices, selection.draw(8, STREAMS))


@pytest.mark.parametrize("rates", [[], [0.0, 0.0], [0.5, 1.1], [-0.1, 0.5], [math.nan, 0.5], [[0.5]]])
def test_rates_out_of_range_are_refused(rates):
    with pytest.raises(ArgumentError, match="rates"):
        PoissonSelection(rates)
