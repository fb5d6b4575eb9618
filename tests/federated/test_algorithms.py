import pytest

from trustnlp.errors import ArgumentError
from trustnlp.federated import algorithms, options
from trustnlp.federated.fedavg import FedAvg
from trustnlp.federated.fedopt import FedOpt
from trustnlp.federated.local_training import LocalTraining

LOCAL = LocalTraining(0.5)


@pytest.mark.parametrize("name", algorithms.ALGORITHMS)
def test_every_name_gives_its_algorithm(name: str) -> None:
    found = algorithms.parse(name, rounds=3, cohort=2, local=LOCAL)
    assert type(found) is algorithms.ALGORITHMS[name]
    assert (found.rounds, found.cohort, found.local) == (3, 2, LOCAL)


def test_options_are_fields() -> None:
    found = algorithms.parse("fedopt:optimiser=yogi,server_rate=0.1", rounds=3, cohort=2, local=LOCAL)
    assert found == FedOpt(3, 2, LOCAL, server_rate=0.1, optimiser="yogi")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sgd", "'algorithm' must be one of 'fedavg'"),
        ("fedavg:mu=1", "'option of algorithm' must be one of 'server_rate'"),
        ("fedprox:mu=much", "'mu' must be a number"),
        ("fedprox:mu=-1", "'mu' must be a number >= 0"),
        ("fedavg:rounds=9", "'option of algorithm' must be one of"),
    ],
)
def test_what_is_no_algorithm_is_refused(text: str, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        algorithms.parse(text, rounds=3, cohort=2, local=LOCAL)


def test_local_training_is_written_alike() -> None:
    found = options.record("local", "rate=0.3,steps=4,clip_grad_norm=1", LocalTraining)
    assert found == LocalTraining(0.3, steps=4, clip_grad_norm=1.0)
    assert type(algorithms.parse("fedavg", rounds=1, cohort=1, local=found)) is FedAvg
