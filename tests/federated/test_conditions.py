import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustnlp.errors import ArgumentError
from trustnlp.federated.cohort import Cohort
from trustnlp.federated.conditions import HUGE, IDEAL, Conditions, Fate, parse, rescaled
from trustnlp.randomness import Streams

STREAMS = Streams(3)
DEVICES = np.arange(20_000)
TEXTS = np.full(len(DEVICES), 10)
EVEN = {"startup": 1.0, "speed": 10.0, "speed_spread": 0.0, "bandwidth": 100.0, "bandwidth_spread": 0.0}


def close(found, share, count=20_000):
    """Whether a share of independent cases looks like this."""
    return abs(found - share) < 4.5 * math.sqrt(share * (1 - share) / count)


def test_in_an_ideal_world_everybody_comes_back():
    assert IDEAL.available(0, STREAMS) is None
    outcome = IDEAL.outcome(0, DEVICES, TEXTS, STREAMS)
    assert outcome.returned.all()
    assert outcome.reasons == {}
    assert (outcome.damage == 1).all()
    assert outcome.round_seconds == outcome.seconds.max()


# Who is there


def test_a_share_of_the_devices_is_available_each_round_anew():
    world = Conditions(availability=0.4)
    first, second = (world.available(round, STREAMS)(DEVICES) for round in (0, 1))
    assert close(first.mean(), 0.4)
    assert close((first & second).mean(), 0.16)
    assert world.available(0, STREAMS)(DEVICES[5000:5003]).tolist() == first[5000:5003].tolist()
    assert world.available(0, Streams(4))(DEVICES).tolist() != first.tolist()


def test_availability_follows_the_time_of_day_of_each_device():
    world = Conditions(availability=0.4, swing=0.5, rounds_per_day=8)
    there = np.array([world.available(round, STREAMS)(DEVICES) for round in range(160)])
    assert close(there.mean(), 0.4, there.size)
    by_hour = there.reshape(20, 8, len(DEVICES)).mean(0)  # each device's own day, over 20 days
    wave = np.exp(-2j * np.pi * np.arange(8) / 8) @ by_hour * 2 / 8
    # A cosine of amplitude 0.4 * 0.5, at a phase of each device's own, which is even around the clock.
    assert np.abs(np.mean(wave)) < 0.01
    noise = 2 / 8 * math.sqrt(8 * 0.24 / 20)
    assert math.sqrt(np.mean(np.abs(wave) ** 2)) == pytest.approx(math.hypot(0.2, noise), abs=0.01)


def test_nobody_can_be_available_more_than_always():
    with pytest.raises(ArgumentError, match="at most 1"):
        Conditions(availability=0.8, swing=0.5)


# Who comes back


def test_devices_drop_out_independently():
    world = Conditions(dropout=0.3)
    first, second = (world.outcome(round, DEVICES, TEXTS, STREAMS).returned for round in (0, 1))
    assert close(first.mean(), 0.7)
    assert close((first & second).mean(), 0.49)
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 4.5 / math.sqrt(len(DEVICES))
    outcome = world.outcome(0, DEVICES, TEXTS, STREAMS)
    assert outcome.reasons == {"dropped out": int((~first).sum())}


def test_a_fate_does_not_depend_on_the_others():
    world = Conditions(dropout=0.3, deadline=1.1, nan=0.1)
    whole = world.outcome(5, DEVICES, TEXTS, STREAMS)
    some = np.array([17, 4, 9000])
    alone = world.outcome(5, some, TEXTS[some], STREAMS)
    assert alone.fates.tolist() == whole.fates[some].tolist()
    assert alone.seconds.tolist() == whole.seconds[some].tolist()
    np.testing.assert_array_equal(alone.damage, whole.damage[some])


def test_seconds_by_hand():
    world = Conditions(**EVEN)
    assert world.seconds(np.array([7, 3]), np.array([20, 0]), STREAMS, size=50).tolist() == [3.5, 1.5]


def test_speed_is_lognormal_over_devices():
    world = Conditions(**{**EVEN, "speed_spread": 0.8, "startup": 0.0})
    logs = np.log(TEXTS / world.seconds(DEVICES, TEXTS, STREAMS))
    assert logs.mean() == pytest.approx(math.log(10), abs=4.5 * 0.8 / math.sqrt(len(DEVICES)))
    assert logs.std() == pytest.approx(0.8, rel=0.03)
    again = world.seconds(DEVICES[:10], TEXTS[:10], STREAMS)
    assert again.tolist() == world.seconds(DEVICES, TEXTS, STREAMS)[:10].tolist()


def test_stragglers_are_cut_at_the_deadline():
    texts = np.array([5, 20, 10, 30])
    outcome = Conditions(**EVEN, deadline=2.5).outcome(0, np.arange(4), texts, STREAMS)
    assert outcome.seconds.tolist() == [1.5, 3.0, 2.0, 4.0]
    assert outcome.returned.tolist() == [True, False, True, False]  # the heavy ones are lost
    assert outcome.reasons == {"late": 2}
    assert outcome.round_seconds == 2.5


def test_the_round_is_over_when_enough_are_back():
    texts = np.array([5, 20, 10, 30])
    outcome = Conditions(**EVEN).outcome(0, np.arange(4), texts, STREAMS, wanted=2)
    assert outcome.fates.tolist() == [Fate.RETURNED, Fate.SURPLUS, Fate.RETURNED, Fate.SURPLUS]
    assert outcome.reasons == {"surplus": 2}
    assert outcome.round_seconds == 2.0


def test_a_server_waits_until_the_deadline_for_those_who_are_lost():
    texts = np.array([5, 20, 10, 30])
    waits = Conditions(**EVEN, deadline=3.5).outcome(0, np.arange(4), texts, STREAMS, wanted=4)
    assert waits.round_seconds == 3.5
    gone = Conditions(**EVEN, deadline=0.5).outcome(0, np.arange(4), texts, STREAMS)
    assert gone.reasons == {"late": 4}
    assert gone.round_seconds == 0.5
    nobody = np.empty(0, np.int64)
    assert IDEAL.outcome(0, nobody, nobody, STREAMS).round_seconds == 0


@pytest.mark.parametrize(("factor", "invited"), [(1.0, 10), (1.3, 13), (1.31, 14), (2.0, 20)])
def test_more_are_invited_than_wanted(factor, invited):
    assert Conditions(over_selection=factor).invited(10) == invited


def test_a_few_devices_are_faulty_in_every_round():
    world = Conditions(nan=0.02, huge=0.01)
    damage = world.outcome(0, DEVICES, TEXTS, STREAMS).damage
    assert close(np.isnan(damage).mean(), 0.02)
    assert close((damage == HUGE).mean(), 0.01)
    assert (damage[~np.isnan(damage) & (damage != HUGE)] == 1).all()
    np.testing.assert_array_equal(world.outcome(9, DEVICES, TEXTS, STREAMS).damage, damage)


# Weights of those who come back


def expected_step(weights, updates, dropout, how):
    """The mean step over all ways to lose devices; and given that somebody came back."""
    total, somebody = 0.0, 0.0
    cohort = Cohort(np.arange(len(weights)), np.array(weights))
    for fate in product([True, False], repeat=len(weights)):
        back = np.array(fate)
        chance = float(np.prod(np.where(back, 1 - dropout, dropout)))
        found = rescaled(cohort, back, how, dropout)
        total += chance * float(found.weights @ updates[found.devices])
        somebody += chance * back.any()
    return total, total / somebody


weights_of = st.lists(st.floats(0.01, 2), min_size=1, max_size=5)
dropouts = st.floats(0.05, 0.9)


@given(weights_of, dropouts, st.integers(0, 99))
def test_inverse_weights_keep_every_step_unbiased(weights, dropout, seed):
    updates = np.random.default_rng(seed).normal(size=len(weights))
    assert expected_step(weights, updates, dropout, "inverse")[0] == pytest.approx(np.dot(weights, updates), abs=1e-9)


@given(st.integers(1, 5), dropouts, st.integers(0, 99))
def test_shares_keep_steps_of_equal_weights_unbiased_where_somebody_came_back(m, dropout, seed):
    updates = np.random.default_rng(seed).normal(size=m)
    assert expected_step([1 / m] * m, updates, dropout, "share")[1] == pytest.approx(updates.mean(), abs=1e-9)


def test_shares_of_unequal_weights_are_a_ratio_and_biased():
    weights, updates = [0.8, 0.1, 0.1], np.array([1.0, 0.0, 0.0])
    found = expected_step(weights, updates, 0.5, "share")[1]
    assert found == pytest.approx((1 + 2 * 8 / 9 + 0.8) / 7)  # the four sets that hold the first, of seven
    assert abs(found - 0.8) > 0.1


def test_weights_that_are_left_alone_shrink_the_step():
    updates = np.array([1.0, 2.0])
    assert expected_step([0.5, 0.5], updates, 0.3, "none")[0] == pytest.approx(0.7 * 1.5)


def test_rescaling_by_hand():
    cohort = Cohort(np.array([4, 6, 9]), np.array([0.2, 0.3, 0.5]))
    back = np.array([True, False, True])
    share, inverse, none = (rescaled(cohort, back, how, 0.2) for how in ("share", "inverse", "none"))
    assert share.devices.tolist() == inverse.devices.tolist() == [4, 9]
    assert share.weights == pytest.approx([2 / 7, 5 / 7])
    assert inverse.weights == pytest.approx([0.25, 0.625])
    assert none.weights.tolist() == [0.2, 0.5]
    assert len(rescaled(cohort, ~np.ones(3, dtype=bool))) == 0


def test_a_deadline_biases_what_comes_back():
    texts = np.arange(1, 201)
    updates = texts.astype(float)  # heavy devices say something else
    world = Conditions(**{**EVEN, "speed_spread": 0.5}, deadline=10.0)
    cohort = Cohort(np.arange(200), np.full(200, 1 / 200))
    back = world.outcome(0, cohort.devices, texts, STREAMS).returned
    found = rescaled(cohort, back)
    assert found.weights @ updates[found.devices] < 0.7 * updates.mean()


# Parameters


def test_worlds_from_the_command_line():
    assert parse("dropout=0.3,deadline=60") == Conditions(dropout=0.3, deadline=60.0)
    assert parse("") == IDEAL
    assert parse("deadline=inf") == IDEAL


@pytest.mark.parametrize(
    "text",
    [
        "rain=1",
        "dropout=1",
        "dropout=-0.1",
        "availability=0",
        "deadline=0",
        "deadline=nan",
        "over_selection=0.9",
        "speed=0",
        "nan=0.6,huge=0.6",
        "rounds_per_day=0",
        "speed_spread=-1",
    ],
)
def test_worlds_that_cannot_be_are_refused(text):
    with pytest.raises(ArgumentError):
        parse(text)


def test_rescaling_is_one_of_three():
    with pytest.raises(ArgumentError, match="'share', 'inverse', 'none'"):
        rescaled(Cohort(np.arange(1), np.ones(1)), np.ones(1, dtype=bool), "hajek")
