import numpy as np
import pytest

from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.federated.cohort import Cohort, PlainSelector, Request, answers, shares


class Nobody(PlainSelector):
    def choose(self, request: Request) -> Cohort:
        return Cohort(np.empty(0, np.int64), np.empty(0))


def test_a_device_stands_in_a_cohort_once():
    with pytest.raises(ArgumentError, match="distinct"):
        Cohort(np.array([3, 1, 3]), np.ones(3) / 3)


@pytest.mark.parametrize("weight", [np.nan, np.inf, -0.1])
def test_weights_that_make_no_mean_are_refused(weight):
    with pytest.raises(GuaranteeError, match="weights"):
        Cohort(np.array([1, 2]), np.array([0.5, weight]))


def test_every_device_has_a_weight():
    with pytest.raises(ArgumentError, match="length"):
        Cohort(np.array([1, 2]), np.ones(3))


def test_shares_by_hand():
    times, sizes = np.array([2, 1, 1]), np.array([1, 2, 4])
    assert shares("equal", times, sizes).tolist() == [0.5, 0.25, 0.25]
    assert shares("samples", times, sizes).tolist() == [0.25, 0.25, 0.5]
    assert shares("equal", times[:0], sizes[:0]).tolist() == []


def test_availability_is_a_mask_or_a_function():
    devices = np.array([0, 2])
    assert answers(None, devices).tolist() == [True, True]
    assert answers(np.array([True, True, False]), devices).tolist() == [True, False]
    assert answers(lambda asked: asked > 0, devices).tolist() == [False, True]


def test_a_plain_selector_remembers_nothing():
    selector = Nobody()
    selector.observe(np.array([1]), np.array([2.0]), np.array([3.0]))
    assert selector.state() == {}
    selector.restore({})
    with pytest.raises(ArgumentError, match="remembers nothing"):
        selector.restore({"round": 3})


@pytest.mark.parametrize(("round", "cohort"), [(-1, 3), (0, 0)])
def test_a_request_has_a_round_and_a_cohort(round, cohort):
    with pytest.raises(ArgumentError, match="whole number"):
        Nobody().select(round, cohort, np.random.default_rng(0))
