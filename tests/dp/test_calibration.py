import pytest

from trustnlp.dp import FlatClipping, MicroBatchClipping, PrivacyPlan
from trustnlp.errors import ArgumentError, GuaranteeError

KNOWN = {"epsilon": 2.0, "delta": 1e-5, "examples": 1000}


def solve(**options):
    return PrivacyPlan.solve(**{**KNOWN, **options})


class TestSolve:
    def test_the_least_noise_spends_the_budget(self):
        plan = solve(expected_batch=100, steps=30)
        assert 0.99 * 2 <= plan.epsilon() <= 2
        assert (plan.expected_batch, plan.steps) == (100, 30)

    def test_the_most_steps(self):
        plan = solve(expected_batch=100, noise_multiplier=3.0)
        assert plan.epsilon() <= 2 < plan.epsilon(1) + 2
        one_percent_more = PrivacyPlan(1000, 100, round(plan.steps * 1.02) + 1, 3.0, 1e-5)
        assert one_percent_more.epsilon() > 2

    def test_the_largest_batch(self):
        plan = solve(steps=30, noise_multiplier=3.0)
        more = PrivacyPlan(1000, round(plan.expected_batch * 1.02) + 1, 30, 3.0, 1e-5)
        assert plan.epsilon() <= 2 < more.epsilon()

    def test_the_largest_batch_of_micro_batches_is_a_multiple_of_them(self):
        clipping = MicroBatchClipping(16)
        plan = solve(steps=30, noise_multiplier=3.0, clipping=clipping)
        assert plan.expected_batch == solve(steps=30, noise_multiplier=3.0).expected_batch // 16 * 16

    def test_what_was_found_gives_back_what_was_known(self):
        noise = solve(expected_batch=100, steps=30).noise_multiplier
        assert solve(expected_batch=100, noise_multiplier=noise).steps in (29, 30)
        assert solve(steps=30, noise_multiplier=noise).expected_batch in (98, 99, 100)

    def test_everybody_in_every_step_may_be_affordable(self):
        assert solve(steps=1, noise_multiplier=50.0).expected_batch == 1000

    @pytest.mark.parametrize("options", [{}, {"steps": 3}, {"steps": 3, "expected_batch": 9, "noise_multiplier": 2.0}])
    def test_one_thing_must_be_left_out(self, options):
        with pytest.raises(ArgumentError, match="left out"):
            solve(**options)

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"expected_batch": 1000, "noise_multiplier": 0.2}, "least steps"),
            ({"steps": 10**5, "noise_multiplier": 0.2}, "least expected_batch"),
            ({"expected_batch": 1, "noise_multiplier": 9000.0}, "more than 1,000,000 steps"),
            ({"expected_batch": 1, "steps": 1, "epsilon": 1e5}, "protects nobody"),
        ],
    )
    def test_budgets_without_solution_are_refused(self, options, reason):
        with pytest.raises(GuaranteeError, match=reason):
            solve(**options)


class TestNoiseDecay:
    PLAN = PrivacyPlan.for_budget(epsilon=2.0, delta=1e-5, examples=1000, expected_batch=100, epochs=3, noise_decay=0.8)

    def test_the_whole_composition_spends_the_budget(self):
        assert 0.99 * 2 <= self.PLAN.epsilon() <= 2

    def test_the_first_epoch_has_more_noise_than_without_decay_and_the_last_one_less(self):
        steady = PrivacyPlan.for_budget(epsilon=2.0, delta=1e-5, examples=1000, expected_batch=100, epochs=3)
        sigmas = [event.noise_multiplier for event in self.PLAN.events()]
        assert sigmas[29] < steady.noise_multiplier < sigmas[0]
        assert sigmas == pytest.approx([sigmas[0] * 0.8 ** (step // 10) for step in range(30)])

    def test_the_largest_batch_under_decay(self):
        plan = solve(steps=3, noise_multiplier=3.0, noise_decay=0.8, clipping=FlatClipping(0.5))
        assert plan.epsilon() <= 2

    def test_truncation_is_calibrated_for(self):
        plan = solve(expected_batch=100, steps=20, sampling="truncated-poisson", largest_batch=125)
        assert 0.99 * 2 <= plan.epsilon() <= 2
