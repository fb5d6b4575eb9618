import itertools

import numpy as np
import pytest

from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.federated.participation import Participation


def test_a_schedule_that_keeps_its_rules_passes_and_frees_devices_in_time():
    schedule = Participation(4, separation=3, most=2)
    schedule.admit(0, [0, 1])
    schedule.admit(1, [2])
    assert schedule.available(2).tolist() == [False, False, False, True]
    assert schedule.available(3).tolist() == [True, True, False, True]
    schedule.admit(3, [0])
    assert schedule.available(9).tolist() == [False, True, True, True]
    schedule.admit(9, [1, 2, 3])


@pytest.mark.parametrize(
    ("round", "devices", "reason"),
    [
        (2, [3, 0], "took part less than 3 rounds ago"),
        (9, [1], "have taken part 2 times"),
        (7, [2, 2], "twice in one round"),
        (1, [3], "comes after round 3"),
    ],
)
def test_what_breaks_them_is_refused_and_leaves_no_trace(round, devices, reason):
    schedule = Participation(4, separation=3, most=2)
    schedule.admit(0, [0, 1])
    if round != 2:
        schedule.admit(3, [1])
    before = schedule.state()
    with pytest.raises(GuaranteeError, match=reason):
        schedule.admit(round, devices)
    after = schedule.state()
    assert before["next"] == after["next"]
    assert np.array_equal(before["last"], after["last"])
    assert np.array_equal(before["times"], after["times"])


def test_random_cohorts_of_available_devices_keep_the_rules():
    generator, schedule, rounds = np.random.default_rng(0), Participation(60, 5, 3), []
    for round in range(40):
        free = np.flatnonzero(schedule.available(round))
        cohort = generator.choice(free, min(6, len(free)), replace=False)
        schedule.admit(round, cohort)
        rounds += [(int(device), round) for device in cohort]
    for device in range(60):
        mine = [round for who, round in rounds if who == device]
        assert len(mine) <= 3
        assert all(later - earlier >= 5 for earlier, later in itertools.pairwise(mine))
    assert len(rounds) > 150


def test_a_restored_schedule_goes_on():
    schedule, other = Participation(3, 2, 1), Participation(3, 2, 1)
    schedule.admit(0, [1])
    other.restore(schedule.state())
    with pytest.raises(GuaranteeError):
        other.admit(5, [1])
    other.admit(5, [0])
    assert schedule.available(6).tolist() == [True, False, True]
    with pytest.raises(ArgumentError, match="state"):
        Participation(4, 2, 1).restore(schedule.state())


@pytest.mark.parametrize("devices", [[3], [-1]])
def test_foreign_devices_are_refused(devices):
    with pytest.raises(ArgumentError, match="devices"):
        Participation(3, 1, 1).admit(0, devices)
