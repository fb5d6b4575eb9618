import math

import pytest

from trustnlp.errors import ArgumentError
from trustnlp.federated.fedbuff import FedBuff


def test_stale_answers_count_less() -> None:
    """Nguyen et al.: 1 / sqrt(1 + staleness)."""
    rule = FedBuff(1, 1)
    assert [rule.discount(staleness) for staleness in (0, 1, 3)] == pytest.approx([1, 1 / math.sqrt(2), 1 / 2])
    assert FedBuff(1, 1, damping=0.0).discount(7) == 1


@pytest.mark.parametrize(("name", "wrong"), [("buffer", 0), ("damping", -1.0), ("cohort", 0)])
def test_arguments_that_break_their_rule(name: str, wrong: float) -> None:
    with pytest.raises(ArgumentError, match=f"'{name}' must be"):
        FedBuff(**{"rounds": 1, "cohort": 1, name: wrong})
