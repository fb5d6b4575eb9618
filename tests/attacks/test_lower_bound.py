from __future__ import annotations

import numpy as np
import pytest

from trustnlp.attacks.lower_bound import LowerBound, finite_scores, largest_rejected, untied
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.results import Direction, Verdict

BOUND = LowerBound(1.2, 5.8, 0.95, 1e-6, 1000, "one-run-binomial", {"guesses": 500}, source="a paper")


def test_a_bound_is_a_finding_with_its_cap():
    finding = BOUND.finding()
    assert finding.id == "epsilon-lower-bound-one-run-binomial"
    assert (finding.value, finding.low, finding.high) == (1.2, None, None)
    assert (finding.unit, finding.ideal, finding.direction) == ("epsilon", 0.0, Direction.LOWER)
    assert finding.verdict is Verdict.MEASURED
    assert finding.details == {"resolution_cap": 5.8, "delta": 1e-6, "guesses": 500}
    assert BOUND.finding("gradients").id == "epsilon-lower-bound-gradients"


def test_what_a_bound_takes_for_granted_goes_with_it():
    bound = LowerBound(1.2, 5.8, 0.95, 1e-6, 1000, "one-run-f-dp", assumes="a Gaussian trade-off curve")
    assert bound.finding().details["assumes"] == "a Gaussian trade-off curve"


@pytest.mark.parametrize(
    "bad", [{"epsilon": -0.1}, {"epsilon": float("inf")}, {"cap": -1.0}, {"level": 1.0}, {"delta": 1.0}, {"n": 0}]
)
def test_impossible_bounds_are_refused(bad):
    fields = {"epsilon": 0.0, "cap": 1.0, "level": 0.95, "delta": 0.0, "n": 10, "method": "m"}
    with pytest.raises(ArgumentError):
        LowerBound(**fields | bad)


def test_no_bound_is_above_its_cap():
    with pytest.raises(GuaranteeError, match="above its cap"):
        LowerBound(2.0, 1.0, 0.95, 0.0, 10, "m")


@pytest.mark.parametrize("truth", [0.0, 1e-3, 0.7, 1.0, 37.5, 500.0])
def test_the_largest_rejected_strength_is_found_from_below(truth):
    found = largest_rejected(lambda strength: strength < truth)
    assert found <= truth
    assert found == pytest.approx(truth, abs=2e-6)


def test_tied_scores_are_in_random_order_whatever_their_place():
    scores = np.array([2.0, 1.0, 1.0, 1.0, 0.0])
    orders = np.array([untied(scores, np.random.default_rng(seed)) for seed in range(600)])
    assert (orders[:, 0] == 4).all()
    assert (orders[:, 4] == 0).all()
    assert np.abs((orders[:, 1] == 1).mean() - 1 / 3) < 0.07
    assert sorted(orders[0]) == list(range(5))


def test_scores_must_be_numbers():
    assert finite_scores("scores", [1, 2]).tolist() == [1.0, 2.0]
    with pytest.raises(GuaranteeError, match="1 of 2 scores"):
        finite_scores("scores", [1.0, float("nan")])
    for bad in ([1.0], [[1.0, 2.0]], ["a", "b"], 3.0):
        with pytest.raises(ArgumentError, match="scores"):
            finite_scores("scores", bad)
