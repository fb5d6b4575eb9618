"""Several processes give what one gives, to the bit, and their failures are heard of."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from convex import Regression, Rows, problem
from failing import fail, leave

from trustnlp.errors import ArgumentError, RunError
from trustnlp.federated.crew import Crew, Setting, crew
from trustnlp.federated.fedavg import FedAvg
from trustnlp.federated.local_training import LocalTraining
from trustnlp.federated.population import Generated
from trustnlp.federated.scaffold import Scaffold
from trustnlp.federated.worker import Returned, Task
from trustnlp.randomness import Streams

PROBLEM = problem([4, 6, 3, 9, 2], spread=1.0)
LOCAL = LocalTraining(0.1, 2, epochs=2)


def rounds(hands: Crew) -> list[Returned]:
    """Two rounds of SCAFFOLD, in blocks of two, one and two devices; devices keep what they have kept."""
    weights, server = hands.weights() + 0.5, {"control": torch.full((3,), 0.1, dtype=torch.float64)}
    tasks = [Task(0, (0, 1), (0.2, 0.3)), Task(0, (2,), (0.1,)), Task(0, (3, 4), (0.3, 0.1))]
    first = list(hands.run(tasks, weights, server))
    kept = {device: own for returned in first for device, own in returned.kept.items()}
    again = [Task(1, (4, 0), (0.5, 0.5), kept={4: kept[4], 0: kept[0]}), Task(1, (3,), (1.0,), kept={3: kept[3]})]
    return first + list(hands.run(again, weights + first[0].total["change"], server))


def test_processes_give_the_same_bits_in_the_same_order() -> None:
    found = []
    for workers in (1, 2):
        with crew(Setting(Regression(3), PROBLEM.population, Scaffold(2, 2, LOCAL), Streams(1)), workers) as hands:
            found.append(rounds(hands))
    for one, two in zip(*found, strict=True):
        assert one.reports == two.reports
        assert all(torch.equal(one.total[name], two.total[name]) for name in ("change", "control"))
        for device in one.kept:
            assert torch.equal(one.kept[device]["control"], two.kept[device]["control"])


def test_the_model_here_is_read_and_loaded() -> None:
    model = Regression(3)
    with crew(Setting(model, PROBLEM.population, FedAvg(1, 1, LOCAL), Streams(0)), 1) as hands:
        assert torch.get_num_threads() == 1
        copy = hands.weights()
        hands.load(copy + 1)
        assert model.w.tolist() == [1, 1, 1]
        assert copy.tolist() == [0, 0, 0]
        assert hands.losses(np.array([0]), copy).shape == (1,)


@pytest.mark.parametrize(
    ("make", "said"), [(fail, "a worker failed: ZeroDivisionError: device 2"), (leave, r"died \(exit code 2\)")]
)
def test_a_failure_in_a_process_is_told(make: Callable[[int], Rows], said: str) -> None:
    population = Generated(np.ones(3, dtype=np.int64), make)
    setting = Setting(Regression(3), population, FedAvg(1, 1, LOCAL), Streams(0))
    with crew(setting, 2) as hands, pytest.raises(RunError, match=said):
        list(hands.run([Task(0, (2,), (1.0,))], hands.weights(), {}))


def test_what_cannot_be_sent_is_refused_where_processes_are_asked_for() -> None:
    population = Generated(np.ones(3, dtype=np.int64), lambda device: PROBLEM.rows)
    with pytest.raises(ArgumentError, match="must be picklable where workers do them"):  # noqa: SIM117
        with crew(Setting(Regression(3), population, FedAvg(1, 1, LOCAL), Streams(0)), 2):
            pass
