import numpy as np
import pytest

from trustnlp.errors import ArgumentError
from trustnlp.federated.power_of_choice import PowerOfChoice

SIZES = np.array([5, 1, 0, 8, 2, 2])
LOSSES = np.array([0.5, 3.0, 9.0, 1.0, 2.0, 2.0])


def select(rule, m, losses=LOSSES, seed=0, **options):
    asked = []

    def probe(devices):
        asked.append(devices)
        return losses[devices]

    cohort = rule.begin(SIZES).select(0, m, np.random.default_rng(seed), probe=probe, **options)
    return cohort, asked


def test_a_round_by_hand():
    # All five devices with texts are candidates; the worst are 1 and, of the equals 4 and 5, the lower number.
    cohort, asked = select(PowerOfChoice(5), 2)
    assert [each.tolist() for each in asked] == [[0, 1, 3, 4, 5]]
    assert cohort.devices.tolist() == [1, 4]
    assert cohort.weights.tolist() == [0.5, 0.5]


def test_the_worst_of_the_candidates_are_chosen():
    for seed in range(30):
        cohort, asked = select(PowerOfChoice(3), 2, seed=seed)
        assert len(asked[0]) == 3
        left = np.setdiff1d(asked[0], cohort.devices)
        assert LOSSES[left].max() <= LOSSES[cohort.devices].min()


def test_candidates_are_drawn_by_their_texts():
    first = np.bincount([select(PowerOfChoice(1), 1, seed=seed)[1][0][0] for seed in range(3000)], minlength=6)
    expected = 3000 * SIZES / SIZES.sum()
    assert (np.abs(first - expected) <= 4.5 * np.sqrt(expected)).all()


def test_a_candidate_without_a_loss_is_not_chosen():
    losses = np.array([0.5, np.nan, 9.0, np.inf, 2.0, 2.0])
    assert select(PowerOfChoice(5), 3, losses)[0].devices.tolist() == [0, 4, 5]
    assert select(PowerOfChoice(5), 3, np.full(6, np.nan))[0].devices.tolist() == []


def test_candidates_are_available():
    cohort, asked = select(PowerOfChoice(5), 2, available=np.array([True, False, True, True, False, True]))
    assert asked[0].tolist() == [0, 3, 5]
    assert cohort.devices.tolist() == [3, 5]


def test_fewer_candidates_than_the_cohort_are_refused():
    with pytest.raises(ArgumentError, match="at least the cohort"):
        select(PowerOfChoice(2), 3)


def test_losses_have_to_be_asked_for():
    with pytest.raises(ArgumentError, match="probe"):
        PowerOfChoice(3).begin(SIZES).select(0, 2, np.random.default_rng(0))


def test_one_loss_for_each_candidate():
    with pytest.raises(ArgumentError, match="length"):
        PowerOfChoice(3).begin(SIZES).select(0, 2, np.random.default_rng(0), probe=lambda devices: np.ones(1))
