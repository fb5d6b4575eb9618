import re
from dataclasses import FrozenInstanceError, replace

import pytest

from trustnlp.dp import FlatClipping, MicroBatchClipping, PrivacyPlan
from trustnlp.dp.accounting import Event
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
        ("name", "value"),
        [
            ("steps", 0),
            ("noise_multiplier", 0),
            ("accountant", "hope"),
            ("noise", "pink"),
            ("unit", "document"),
            ("sampling", "balls-in-bins"),
            ("largest_batch", 80),
        ],
    )
    def test_bad_fields_are_refused_by_name(self, name, value):
        with pytest.raises(ArgumentError, match=name):
            replace(PLAN, **{name: value})

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"sampling": "shuffle"}, "not Poisson batches"),
            ({"adjacency": "replace"}, "twice the clip norm"),
            ({"accountant": "rdp"}, "looser bound"),
            ({"noise": "none"}, "nothing is guaranteed"),
            ({"unit": "user", "clipping": MicroBatchClipping(10)}, "would be in several"),
            ({"noise_multiplier": 0.09}, "below 0.1"),
            ({"noise_decay": 0.2}, "in its last epoch"),
            ({"noise_decay": 1e-200}, "in its last epoch"),
            ({"sampling": "truncated-poisson", "largest_batch": 60}, "of the draws would lose examples"),
        ],
    )
    def test_unsound_combinations_are_refused_with_reason_and_mend(self, fields, reason):
        with pytest.raises(GuaranteeError, match=reason) as refusal:
            replace(PLAN, **fields)
        assert refusal.value.mend

    def test_a_cap_must_be_given_with_truncation_at_least_the_expected_batch_and_mended_as_said(self):
        for cap in (None, 49):
            with pytest.raises(ArgumentError, match="largest_batch"):
                replace(PLAN, sampling="truncated-poisson", largest_batch=cap)
        with pytest.raises(GuaranteeError) as refusal:
            replace(PLAN, sampling="truncated-poisson", largest_batch=50)
        least = int(re.search("at least ([0-9]+)", refusal.value.mend)[1])
        replace(PLAN, sampling="truncated-poisson", largest_batch=least)
        with pytest.raises(GuaranteeError):
            replace(PLAN, sampling="truncated-poisson", largest_batch=least - 1)

    def test_truncation_is_accounted_for_and_drawn(self):
        plan = replace(PLAN, sampling="truncated-poisson", largest_batch=68)
        assert PLAN.epsilon() < plan.epsilon()
        assert plan.event(0) == Event(0.05, 2.0, 1, 1000, 68)
        assert PrivacyPlan.from_json(plan.to_json()) == plan
        assert plan.sampler(Streams(0)).largest_batch == 68

    def test_clippings_with_fields_of_others_are_refused(self):
        fields = PLAN.as_dict()
        adaptive = {"kind": "automatic", "stability": 0.01, "adapt": {"quantile": 0.5, "rate": 0.2, "share": 0.1}}
        with pytest.raises(ArgumentError, match="fields of a PrivacyPlan"):
            PrivacyPlan.from_dict({**fields, "clipping": adaptive})

    def test_events_are_those_of_the_steps_one_by_one(self):
        plan = replace(PLAN, noise_decay=0.9, steps=47)
        assert plan.events() == tuple(map(plan.event, range(47)))
        assert plan.events(0) == ()
        assert [event.noise_multiplier for event in plan.events()[19:21]] == pytest.approx([2.0, 1.8])

    def test_its_sampler_has_its_rate_and_steps(self):
        sampler = PLAN.sampler(Streams(0))
        assert (sampler.steps, sampler.steps_per_epoch) == (60, 20)
