"""What both kinds of device-level plans share."""

import math

import pytest
import torch

from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.federated.device_plan import bounded, check_noise, noise_source, noised, refuse_unbounded, text_epsilon
from trustnlp.randomness import Streams


def test_bounding_refuses_other_shapes_and_types() -> None:
    with pytest.raises(ArgumentError, match="update"):
        bounded(torch.zeros(2, 2), 1.0)
    with pytest.raises(ArgumentError, match="update"):
        bounded(torch.zeros(2, dtype=torch.int64), 1.0)


def test_bounding_scales_to_the_norm_and_takes_nothing_broken() -> None:
    assert bounded(torch.tensor([3.0, 4.0]), 1.0).tolist() == pytest.approx([0.6, 0.8])
    assert bounded(torch.tensor([0.3, 0.4]), 1.0).tolist() == torch.tensor([0.3, 0.4]).tolist()
    assert bounded(torch.tensor([1.0, math.nan]), 1.0).tolist() == [0.0, 0.0]


def test_noise_is_added_before_the_division_and_the_sum_stays() -> None:
    total = torch.full((100_000,), 6.0, dtype=torch.float64)
    found = noised("sum", total, 3.0, 2.0, 0, noise_source("seeded", Streams(0)))
    assert float(found.mean()) == pytest.approx(3, abs=0.03)
    assert float(found.std()) == pytest.approx(1.5, rel=0.02)
    assert float(total.std()) == 0
    with pytest.raises(GuaranteeError, match="bound every update"):
        noised("sum", total * math.inf, 3.0, 2.0, 0, noise_source("seeded", Streams(0)))


@pytest.mark.parametrize("norm", [None, math.inf])
def test_no_bound_is_no_guarantee(norm: float | None) -> None:
    with pytest.raises(GuaranteeError, match="no noise covers that"):
        refuse_unbounded(norm)


def test_noise_that_protects_nobody_and_a_delta_that_gives_one_away() -> None:
    with pytest.raises(GuaranteeError, match="protects nobody"):
        check_noise(0.01, 1e-5, 10)
    with pytest.raises(ArgumentError, match="below 1/K"):
        check_noise(1.0, 0.1, 10)


def test_of_nothing_released_a_text_has_spent_nothing() -> None:
    assert text_epsilon((), 1e-5) == 0
