"""The default hooks; algorithms that differ are tested by themselves."""

import pytest
import torch

from trustnlp.errors import ArgumentError
from trustnlp.federated.algorithm import Algorithm, Round


def test_the_server_follows_the_mean_change() -> None:
    weights = torch.tensor([1.0, 2.0])
    Algorithm(1, 1, server_rate=0.5).update(weights, {"change": torch.tensor([2.0, -2.0])}, {}, Round(0, 5, 1))
    assert weights.tolist() == [2, 1]


def test_nothing_is_kept_or_sent_beside_the_weights() -> None:
    plain = Algorithm(1, 1)
    assert plain.sent(plain.state(torch.zeros(2))) == {}
    assert not plain.remembers


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"cohort": 0}, {"server_rate": 0.0}])
def test_arguments_that_break_their_rule(wrong: dict[str, float]) -> None:
    with pytest.raises(ArgumentError, match=f"'{next(iter(wrong))}' must be"):
        Algorithm(**{"rounds": 1, "cohort": 1, **wrong})
