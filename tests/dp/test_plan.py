from dataclasses import FrozenInstanceError, replace

import pytest

from trustnlp.dp import FlatClipping, PrivacyPlan
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.randomness import Streams

PLAN = PrivacyPlan(examples=1000, expected_batch=50, steps=60, noise_multiplier=2.0, delta=1e-5)
BUDGET = {"epsilon": 2.0, "delta": 1e-5, "examples": 1000, "expected_batch": 100, "epochs": 3}


class TestPrivacyPlan:
    def test_for_budget_spends_at_most_the_budget_in_the_epochs(self):
        plan = PrivacyPlan.for_budget(**BUDGET)
        assert 0.99 * 2 <= plan.epsilon() <= 2
        assert (plan.steps, plan.sample_rate) == (30, 0.1)

    def test_epsilon_grows_with_the_steps_from_zero(self):
        figures = [PLAN.epsilon(steps) for steps in (0, 1, 30, 60)]
        assert figures[0] == 0
        assert figures == sorted(figures)
        assert figures[-1] == PLAN.epsilon()

    def test_it_is_frozen(self):
        with pytest.raises(FrozenInstanceError):
            PLAN.steps = 1

    def test_json_round_trip_keeps_the_digest(self):
        again = PrivacyPlan.from_json(PLAN.to_json())
        assert again == PLAN
        assert again.digest() == PLAN.digest()
        assert replace(PLAN, steps=61).digest() != PLAN.digest()
        assert replace(PLAN, noise_multiplier=2, clipping=FlatClipping(1)).digest() == PLAN.digest()

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"examples": 3}', '{"surprise": 1}', "3"])
    def test_what_is_no_plan_is_refused(self, text):
        with pytest.raises(ArgumentError):
            PrivacyPlan.from_json(text)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("epsilon", 0),
            ("epsilon", -1),
            ("epsilon", float("nan")),
            ("epsilon", float("inf")),
            ("delta", 0),
            ("delta", 1e-3),
            ("delta", 0.5),
            ("clipping", 1.0),
            ("noise_decay", 0),
            ("noise_decay", 1.1),
            ("expected_batch", 1001),
            ("expected_batch", 0),
            ("expected_batch", 50.5),
            ("epochs", 0),
            ("examples", 0),
        ],
    )
    def test_bad_budgets_are_refused_by_name(self, name, value):
        with pytest.raises(ArgumentError, match=name):
            PrivacyPlan.for_budget(**{**BUDGET, name: value})

    @pytest.mark.parametrize(
        ("name", "value"), [("steps", 0), ("noise_multiplier", 0), ("accountant", "rdp"), ("noise", "none")]
    )
    def test_bad_fields_are_refused_by_name(self, name, value):
        with pytest.raises(ArgumentError, match=name):
            replace(PLAN, **{name: value})

    @pytest.mark.parametrize(("name", "value"), [("unit", "user"), ("sampling", "shuffle"), ("adjacency", "replace")])
    def test_unsound_combinations_are_refused_with_reason_and_mend(self, name, value):
        with pytest.raises(GuaranteeError, match=r"; (use|keep)") as refusal:
            replace(PLAN, **{name: value})
        assert refusal.value.mend

    def test_its_sampler_has_its_rate_and_steps(self):
        sampler = PLAN.sampler(Streams(0))
        assert (sampler.steps, sampler.steps_per_epoch) == (60, 20)
