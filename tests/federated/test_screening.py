"""Which changes are too long: for what came before, or beside each other."""

import math

import pytest
import torch

from trustnlp.federated.screening import OUTLIER, Screen
from trustnlp.federated.worker import TOO_LONG, Report, Returned


def answer(device: int, length: float) -> Returned:
    problem = "" if math.isfinite(length) else "not finite"
    report = Report(device, texts=3, steps=1, loss=1.0, length=length, weight=1.0, problem=problem)
    return Returned({"change": torch.ones(2)}, (report,), {})


def left_out(found: list[Returned]) -> list[int]:
    return [part.reports[0].device for part in found if part.reports[0].problem == TOO_LONG]


def test_at_first_answers_are_compared_with_each_other() -> None:
    found = Screen().sift([answer(device, length) for device, length in enumerate([1, 2, 1e6, 1.5, math.nan, 19])])
    assert left_out(found) == [2]
    assert not found[2].total
    assert found[0].total["change"].tolist() == [1, 1]


def test_later_with_what_came_before() -> None:
    screen = Screen()
    screen.learn([1.0, 2.0, 3.0])
    assert screen.ceiling == 2 * OUTLIER
    assert left_out(screen.sift([answer(0, 20.0), answer(1, 20.1)])) == [1]


def test_of_a_round_only_the_newest_count_and_of_a_stream_the_memory() -> None:
    rounds, stream = Screen(), Screen(4)
    for lengths in ([1.0, 1.0, 1.0], [5.0, 5.0]):
        rounds.learn(lengths)
        stream.learn(lengths)
    assert (rounds.ceiling, stream.ceiling) == (50.0, 30.0)


@pytest.mark.parametrize("nothing", [[], [math.nan, math.inf], [0.0, 0.0]])
def test_what_tells_nothing_changes_nothing(nothing: list[float]) -> None:
    screen = Screen()
    screen.learn(nothing)
    assert screen.ceiling is None
    assert left_out(screen.sift([answer(0, each) for each in nothing])) == []
    screen.learn([1.0])
    screen.learn(nothing)
    assert screen.ceiling == 10


def test_it_goes_on_from_its_state() -> None:
    one, other = Screen(3), Screen(3)
    one.learn([1.0, 2.0, 3.0])
    other.restore(one.state())
    one.learn([9.0])
    other.learn([9.0])
    assert one.state() == other.state()
