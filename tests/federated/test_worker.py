import math

import numpy as np
import pytest
import torch
from convex import Regression, problem

from trustnlp.federated.fedavg import FedAvg
from trustnlp.federated.local_training import LocalTraining
from trustnlp.federated.user_privacy import UserPrivacy
from trustnlp.federated.worker import NOT_FINITE, TOO_LONG, Task, Worker, norm
from trustnlp.randomness import Streams

PROBLEM = problem([4, 6, 3])
LOCAL = LocalTraining(rate=0.1, batch_size=8)
START = torch.full((3,), 0.5, dtype=torch.float64)


def worker(**more: object) -> Worker:
    return Worker(Regression(3), PROBLEM.population, FedAvg(1, 3, LOCAL), Streams(0), **more)


def changes() -> np.ndarray:
    return np.array([-0.1 * PROBLEM.gradient(START.numpy(), device) for device in range(3)])


def test_answers_are_added_up_with_their_weights() -> None:
    returned = worker().run(Task(0, (2, 0), (0.75, 0.25)), START, {})
    expected = 0.75 * changes()[2] + 0.25 * changes()[0]
    np.testing.assert_allclose(returned.total["change"], expected, rtol=1e-12)
    assert [report.device for report in returned.reports] == [2, 0]
    assert [report.texts for report in returned.reports] == [3, 4]
    np.testing.assert_allclose(
        [report.length for report in returned.reports], np.linalg.norm(changes()[[2, 0]], axis=1)
    )
    assert START.tolist() == [0.5] * 3


@pytest.mark.parametrize(("damage", "problem"), [(math.nan, NOT_FINITE), (math.inf, NOT_FINITE), (1e6, TOO_LONG)])
def test_a_spoilt_answer_is_left_out_and_told_of(damage: float, problem: str) -> None:
    returned = worker().run(Task(0, (0, 1, 2), (1, 1, 1), longest=10.0, damage={1: damage}), START, {})
    np.testing.assert_allclose(returned.total["change"], changes()[0] + changes()[2], rtol=1e-12)
    assert [report.problem for report in returned.reports] == ["", problem, ""]
    assert set(returned.kept) == {0, 2}


def test_nothing_usable_is_an_empty_total() -> None:
    returned = worker().run(Task(0, (0,), (1,), damage={0: math.nan}), START, {})
    assert returned.total == {}


def test_each_change_is_bounded_before_it_is_added() -> None:
    plan = UserPrivacy(3, 1, 3.0, 1.0, noise_multiplier=1.0, delta=1e-3, clip_norm=0.01)
    returned = worker(plan=plan).run(Task(0, (0, 1), (1, 1)), START, {})
    units = changes()[:2] / np.linalg.norm(changes()[:2], axis=1, keepdims=True)
    np.testing.assert_allclose(returned.total["change"], 0.01 * units.sum(0), rtol=1e-5)


def test_losses_are_those_at_the_servers_weights() -> None:
    errors = [PROBLEM.rows.x[own] @ START.numpy() - PROBLEM.rows.y[own] for own in PROBLEM.population.devices]
    found = worker().losses(np.array([2, 1]), START)
    np.testing.assert_allclose(found, [(errors[2] ** 2 / 2).mean(), (errors[1] ** 2 / 2).mean()], rtol=1e-12)


def test_a_norm_beyond_float32_is_still_a_number() -> None:
    assert norm(torch.tensor([3.0, 4.0])) == 5
    assert norm(torch.full((4,), 1e30)) == pytest.approx(2e30)
    assert math.isnan(norm(torch.tensor([1.0, math.nan])))
    assert norm(torch.tensor([1.0, math.inf])) == math.inf
