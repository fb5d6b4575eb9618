from math import log, sqrt

import numpy as np
import pytest

from trustnlp.errors import ArgumentError
from trustnlp.federated.oort import Oort

GREEDY = Oort(exploration=0.0, least_exploration=0.0, cutoff=1.0, clip=1.0, pace=0.5)
SIZES = np.array([10, 10, 20, 5])
STALE = sqrt(0.1 * log(2) / 1)  # in round 2, of a device last heard of in round 1


def after_one_round(rule=GREEDY):
    """All four devices came back: U = 10, 20, 40, 20, and T = 1.5 is the median of their seconds."""
    selector = rule.begin(SIZES)
    cohort = selector.select(0, 4, np.random.default_rng(0))
    assert cohort.devices.tolist() == [0, 1, 2, 3]
    selector.observe(cohort.devices, np.array([1.0, 2.0, 2.0, 4.0]), np.array([1.0, 1.0, 4.0, 2.0]))
    return selector


def test_a_round_by_hand():
    selector = after_one_round()
    cohort = selector.select(1, 2, np.random.default_rng(0))
    expected = [0 + STALE, 1 / 3 + STALE, (1 + STALE) * (1.5 / 4) ** 2, (1 / 3 + STALE) * (1.5 / 2) ** 2]
    assert selector.scores() == pytest.approx(expected)
    assert cohort.devices.tolist() == [1, 3]
    assert cohort.weights.tolist() == [0.5, 0.5]


def test_the_next_round_by_hand():
    selector = after_one_round()
    selector.select(1, 2, np.random.default_rng(0))
    selector.observe(np.array([3, 1]), np.array([2.0, 3.0]), np.array([1.0, 1.0]))
    selector.select(2, 2, np.random.default_rng(0))
    # Now U = 10, 30, 40, 10 and seconds 1, 1, 4, 1, so T = 1 and the third is slow; 1 and 3 are less stale.
    stale = [sqrt(0.1 * log(3) / last) for last in (1, 2, 1, 2)]
    expected = [stale[0], 2 / 3 + stale[1], (1 + stale[2]) / 4**2, stale[3]]
    assert selector.scores() == pytest.approx(expected)


def test_without_penalty_speed_does_not_matter():
    selector = after_one_round(Oort(exploration=0.0, least_exploration=0.0, cutoff=1.0, clip=1.0, penalty=0.0))
    selector.select(1, 2, np.random.default_rng(0))
    assert selector.scores() == pytest.approx([STALE, 1 / 3 + STALE, 1 + STALE, 1 / 3 + STALE])


def test_outliers_are_clipped():
    selector = after_one_round(Oort(exploration=0.0, least_exploration=0.0, clip=0.5, penalty=0.0))
    selector.select(1, 2, np.random.default_rng(0))
    assert selector.scores() == pytest.approx([STALE, 1 + STALE, 1 + STALE, 1 + STALE])  # at the median, U = 20


def test_those_near_the_cutoff_are_drawn_by_score():
    rule = Oort(exploration=0.0, least_exploration=0.0, cutoff=0.5, clip=1.0, pace=0.5)
    selector, count = after_one_round(rule), 3000
    drawn = [selector.select(1, 1, np.random.default_rng(seed)).devices[0] for seed in range(count)]
    scores = selector.scores()
    assert [device for device in range(4) if scores[device] >= 0.5 * scores[1]] == [1, 3]  # 2 is slow, 0 learned all
    share = scores[1] / (scores[1] + scores[3])
    assert set(drawn) == {1, 3}
    assert np.mean(np.array(drawn) == 1) == pytest.approx(share, abs=4.5 * sqrt(share * (1 - share) / count))


def test_exploration_falls_to_its_floor():
    selector = Oort().begin(SIZES)
    assert selector.exploration(0) == 0.9
    assert selector.exploration(1) == pytest.approx(0.9 * 0.98)
    assert selector.exploration(500) == 0.2


def test_newcomers_and_known_devices_share_a_round():
    sizes = np.full(100, 3)
    selector = Oort(exploration=0.9, decay=1.0).begin(sizes)
    first = selector.select(0, 10, np.random.default_rng(0)).devices
    selector.observe(first, np.ones(10), np.ones(10))
    second = selector.select(1, 10, np.random.default_rng(1)).devices
    assert np.isin(second, first).sum() == 1  # 10 (1 - 0.9)


def test_newcomers_are_drawn_evenly():
    sizes = np.array([1, 1, 1, 50, 1, 1])
    selector = Oort(exploration=1.0, least_exploration=1.0).begin(sizes)
    selector.select(0, 1, np.random.default_rng(0))
    selector.observe(np.array([0]), np.ones(1), np.ones(1))
    drawn = [selector.select(1, 1, np.random.default_rng(seed)).devices[0] for seed in range(2000)]
    counts = np.bincount(drawn, minlength=6)
    assert counts[0] == 0
    assert (np.abs(counts[1:] - 400) < 4.5 * sqrt(400)).all()


def test_when_all_are_known_the_cohort_is_full():
    selector = after_one_round(Oort(exploration=0.9, decay=1.0))
    assert len(selector.select(1, 3, np.random.default_rng(0))) == 3
    assert selector.select(1, 9, np.random.default_rng(0)).devices.tolist() == [0, 1, 2, 3]


def test_who_is_away_is_not_chosen():
    selector = after_one_round()
    cohort = selector.select(1, 2, np.random.default_rng(0), available=np.array([True, False, True, True]))
    assert cohort.devices.tolist() == [0, 3]


def test_the_pacer_relaxes_when_a_window_brought_less():
    selector, devices = Oort(window=2, pace=0.3, pace_step=0.1).begin(np.full(4, 10)), np.array([0])

    def paces(losses):
        for round, loss in enumerate(losses):
            selector.select(round, 1, np.random.default_rng(round))
            selector.observe(devices, np.array([loss]), np.ones(1))
            yield selector.state()["pace"]

    # Windows: 5, 5 | 2, 3 less: up | 4, 4 more | 1, 1 less: up
    found = list(paces([5, 5, 2, 3, 4, 4, 1, 1]))
    assert found == pytest.approx([0.3, 0.3, 0.3, 0.4, 0.4, 0.4, 0.4, 0.5])


def test_at_full_pace_nobody_is_slow():
    selector = after_one_round(Oort(exploration=0.0, least_exploration=0.0, clip=1.0, pace=1.0))
    selector.select(1, 2, np.random.default_rng(0))
    assert selector.scores() == pytest.approx([STALE, 1 / 3 + STALE, 1 + STALE, 1 / 3 + STALE])


def test_a_device_that_answers_nonsense_stays_unknown():
    selector = GREEDY.begin(SIZES)
    selector.select(0, 4, np.random.default_rng(0))
    selector.observe(np.arange(4), np.array([np.nan, 1.0, np.inf, 1.0]), np.array([1.0, 1.0, 1.0, np.inf]))
    assert selector.state()["devices"].tolist() == [1]
    assert len(selector.scores()) == 1


def test_a_round_from_which_nobody_came_back():
    selector = GREEDY.begin(SIZES)
    selector.select(0, 4, np.random.default_rng(0))
    selector.observe(np.empty(0, np.int64), np.empty(0), np.empty(0))
    assert len(selector.select(1, 2, np.random.default_rng(0))) == 2


@pytest.mark.parametrize("wrong", [{"exploration": 1.1}, {"clip": 0.0}, {"window": 0}, {"weighting": "importance"}])
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(ArgumentError):
        Oort(**wrong)
