"""Teams of processes; what jobs make of them is in test_many."""

from multiprocessing.connection import wait

import pytest
import torch
from small_teams import die, echo

from trustnlp.errors import ArgumentError, RunError
from trustnlp.models.worker_processes import hear, one_thread, team


def test_each_has_the_payload_one_thread_and_no_ear_for_an_interrupt() -> None:
    with team(2, echo, {"corpus": [1, 2]}, 7) as members:
        processes = list(members.values())
        found = [hear(each, members[each]) for each in members]
        assert found == [({"corpus": [1, 2]}, 7, 1, True)] * 2
        assert all(process.is_alive() for process in processes)
    assert not any(process.is_alive() for process in processes)


def test_none_is_left_when_the_block_fails() -> None:
    started = []

    def fail() -> None:
        with team(1, echo, None, 0) as members:
            started.extend(members.values())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not started[0].is_alive()


def test_a_death_is_heard_of() -> None:
    with team(1, die, None) as members:
        (connection,) = wait(list(members))
        with pytest.raises(RunError, match=r"a worker died \(exit code 3\)"):
            hear(connection, members[connection])


def test_what_cannot_be_sent_is_named() -> None:
    with pytest.raises(ArgumentError, match="'jobs' must be picklable"), team(1, echo, lambda: 0, name="jobs"):
        pass


def test_one_thread_inside_and_as_many_as_before_outside() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
