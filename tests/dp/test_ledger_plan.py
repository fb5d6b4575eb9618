"""Plans as ledgers know them: equal plans have one digest, and come back from their fields."""

import json
from dataclasses import dataclass, replace

import pytest

from trustnlp.dp import PrivacyPlan
from trustnlp.dp.adaptive_thresholds import Quantile
from trustnlp.dp.ledger_plan import WrittenPlan, as_floats
from trustnlp.errors import ArgumentError
from trustnlp.federated.factorised_privacy import FactorisedPrivacy
from trustnlp.federated.user_privacy import UserPrivacy

SAMPLED = UserPrivacy(100, 5, 10, 0.2, 1, 1e-4)
PLANS = [
    PrivacyPlan(examples=100, expected_batch=10, steps=5, noise_multiplier=1, delta=1e-4),
    SAMPLED,
    replace(SAMPLED, adapt=Quantile(0.4), median_rate=0.1),
    FactorisedPrivacy.for_budget(4.0, 1e-4, 5, devices=100, cohort=10, separation=3),
]


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_comes_back_from_its_json(plan: WrittenPlan) -> None:
    again = type(plan).from_dict(json.loads(plan.to_json()))
    assert again == plan
    assert again.digest() == plan.digest()


@pytest.mark.parametrize("plan", PLANS)
def test_other_noise_is_another_digest_and_other_fields_are_refused(plan: WrittenPlan) -> None:
    assert replace(plan, noise_multiplier=9.0).digest() != plan.digest()
    with pytest.raises(ArgumentError):
        type(plan).from_dict({**plan.as_dict(), "surprise": 1})


@pytest.mark.parametrize("plan", PLANS)
def test_steps_add_up_to_what_the_plan_spends(plan: WrittenPlan) -> None:
    from trustnlp.dp import accounting

    events = [event for event in map(plan.event, range(plan.steps)) if event is not None]
    assert accounting.epsilon(events, plan.delta) == plan.epsilon()


def test_one_and_one_point_nought_are_one_plan() -> None:
    @dataclass(frozen=True)
    class Plan(WrittenPlan):
        noise: float
        rate: float | None = None

        def __post_init__(self) -> None:
            as_floats(self, "noise", "rate")

    assert Plan(1).digest() == Plan(1.0).digest() != Plan(1, 1).digest()
    assert SAMPLED.digest() == replace(SAMPLED, expected_cohort=10.0, noise_multiplier=1.0).digest()
