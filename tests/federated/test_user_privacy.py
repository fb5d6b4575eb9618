import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trustnlp.dp import accounting
from trustnlp.dp.accounting import Event
from trustnlp.dp.adaptive_thresholds import Quantile
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.federated.user_privacy import UserPrivacy
from trustnlp.randomness import Streams

STREAMS = Streams(5)


def plan(**fields) -> UserPrivacy:
    given = {
        "devices": 1000,
        "rounds": 50,
        "expected_cohort": 20.0,
        "largest_rate": 0.1,
        "noise_multiplier": 1.0,
        "delta": 1e-5,
    }
    return UserPrivacy(**{**given, **fields})


class TestBound:
    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False), min_size=1, max_size=40),
        st.floats(1e-3, 1e3),
        st.sampled_from([torch.float32, torch.float64]),
    )
    def test_the_norm_is_within_and_the_direction_kept(self, entries, clip_norm, dtype):
        update = torch.tensor(entries, dtype=dtype)
        found = plan(clip_norm=clip_norm).bound(update)
        norm = float(update.double().norm())
        assert float(found.double().norm()) <= clip_norm
        expected = update.double() * min(1.0, clip_norm / norm) if norm else update.double()
        assert torch.allclose(found.double(), expected, rtol=1e-6, atol=1e-30)

    def test_what_is_within_is_left_to_the_bit(self):
        update = torch.randn(100, generator=torch.Generator().manual_seed(0)) / 20
        assert torch.equal(plan().bound(update), update)

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_a_broken_update_counts_as_none(self, bad):
        assert torch.equal(plan().bound(torch.tensor([1.0, bad, 0.0])), torch.zeros(3))

    def test_an_update_a_million_times_too_large_moves_the_sum_by_the_clip_norm(self):
        total = sum(plan().bound(torch.full((4,), 0.1)) for _ in range(10))
        moved = total + plan().bound(torch.full((4,), 1e6))
        assert float((moved - total).norm()) <= 1.0 + 1e-6


class TestRelease:
    def test_noise_has_the_promised_deviation_and_the_denominator_is_fixed(self):
        private = plan(noise_multiplier=2.0, clip_norm=3.0)
        total = torch.full((200_000,), 40.0)
        found = private.release(total, 0, STREAMS).double()
        assert float(found.mean()) == pytest.approx(40 / 20, abs=5 * 0.3 / math.sqrt(200_000))
        assert float(found.std()) == pytest.approx(2.0 * 3.0 / 20, rel=0.01)
        assert torch.equal(total, torch.full((200_000,), 40.0))

    def test_same_round_same_bits_and_no_two_rounds_share_noise(self):
        zeros = torch.zeros(50)
        first, again, next_one = (plan().release(zeros, r, STREAMS) for r in (3, 3, 4))
        assert torch.equal(first, again)
        assert not torch.equal(first, next_one)
        assert not torch.equal(first, plan().release(zeros, 3, Streams(6)))

    def test_secure_noise_never_comes_again(self):
        private = plan(noise="secure")
        first, again = (private.release(torch.zeros(1000, dtype=torch.float64), 0, STREAMS) for _ in range(2))
        assert not torch.equal(first, again)
        assert float(first.std()) == pytest.approx(1 / 20, rel=0.1)

    def test_an_empty_round_is_noise_alone(self):
        assert float(plan().release(torch.zeros(1000), 0, STREAMS).std()) == pytest.approx(1 / 20, rel=0.1)

    def test_sums_that_nothing_bounded_are_refused(self):
        with pytest.raises(GuaranteeError, match="bound every update"):
            plan().release(torch.tensor([math.nan]), 0, STREAMS)

    @pytest.mark.parametrize("round", [-1, 50])
    def test_rounds_outside_the_plan_are_refused(self, round):
        with pytest.raises(ArgumentError, match="0 to 49"):
            plan().release(torch.zeros(2), round, STREAMS)


class TestEpsilon:
    def test_every_device_is_accounted_for_at_its_own_rate(self):
        private = plan()
        for rate in (0.1, 0.03, 0.001):
            assert private.epsilon(rate=rate) == accounting.epsilon([Event(rate, 1.0, 50)], 1e-5)
        assert private.epsilon() == private.epsilon(rate=0.1) > private.epsilon(rate=0.03) > private.epsilon(rate=0.001)
        assert private.epsilon(rate=0.0) == 0.0 == private.epsilon(rounds=0)
        with pytest.raises(ArgumentError, match="rate"):
            private.epsilon(rate=0.2)

    def test_a_budget_is_that_of_the_largest_rate(self):
        rates = np.r_[np.full(900, 0.01), np.full(100, 0.2)]
        private = UserPrivacy.for_budget(4.0, 1e-5, 40, rates, clip_norm=0.5)
        assert (private.devices, private.rounds, private.clip_norm) == (1000, 40, 0.5)
        assert (private.largest_rate, private.median_rate) == (0.2, 0.01)
        assert private.expected_cohort == pytest.approx(29.0)
        assert 0.99 * 4 <= accounting.epsilon([Event(0.2, private.noise_multiplier, 40)], 1e-5) <= 4
        assert private.statement().median_epsilon == private.epsilon(rate=0.01) < 1

    def test_another_denominator_costs_nothing(self):
        rates = np.full(100, 0.1)
        given = UserPrivacy.for_budget(4.0, 1e-5, 40, rates, expected_cohort=12.0)
        assert given.expected_cohort == 12.0
        assert given.noise_multiplier == UserPrivacy.for_budget(4.0, 1e-5, 40, rates).noise_multiplier

    def test_uniform_amplification_would_promise_too_much_to_active_devices(self):
        rates = np.r_[np.full(900, 0.01), np.full(100, 0.2)]
        private = UserPrivacy.for_budget(4.0, 1e-5, 40, rates)
        assert private.epsilon() > 3 * private.epsilon(rate=float(rates.mean()))

    def test_the_statement_names_unit_adjacency_and_figures(self):
        statement = plan(median_rate=0.02).statement()
        text = str(statement)
        for words in ("one device with all its texts", "add-remove", f"{statement.epsilon:.4g}", "0.1 at most", "RDP"):
            assert words in text
        assert f"{statement.median_epsilon:.4g}" in text
        assert 0.001 < statement.ceilings[0.001] < 1
        found = json.loads(json.dumps(statement.as_dict()))
        assert (found["unit"], found["adjacency"], found["epsilon"]) == ("device", "add-remove", statement.epsilon)


class TestAdaptiveClipNorm:
    ADAPT = Quantile(0.5, 0.2, 0.1)

    @pytest.mark.parametrize("start", [0.02, 50.0])
    def test_it_comes_to_the_median_from_both_sides(self, start):
        # Peers have the sign inverted, and move away from it: 0.5 to 0.0012 and 1.5 to 605, with true median 1.
        private = plan(adapt=self.ADAPT, clip_norm=start, rounds=100, expected_cohort=400.0)
        generator, clip_norm = torch.Generator().manual_seed(0), start
        for round in range(100):
            norms = torch.exp(0.5 * torch.randn(400, generator=generator))  # median 1
            votes = sum(private.vote(norm.view(1), clip_norm) for norm in norms)
            clip_norm = private.next_clip_norm(votes, clip_norm, round, STREAMS)
        assert clip_norm == pytest.approx(1.0, rel=0.15)

    def test_it_falls_where_more_are_within_than_wanted(self):
        private = plan(adapt=self.ADAPT, expected_cohort=1000.0)
        assert private.next_clip_norm(+500.0, 1.0, 0, STREAMS) == pytest.approx(math.exp(-0.1), rel=0.01)
        assert private.next_clip_norm(-500.0, 1.0, 0, STREAMS) == pytest.approx(math.exp(0.1), rel=0.01)

    def test_its_noise_is_charged(self):
        # Both releases as measured, each per unit of its sensitivity, compose to what the plan says.
        private = plan(adapt=self.ADAPT, largest_rate=1.0, noise_multiplier=5.0, rounds=2000, expected_cohort=1000.0)
        sums = private.release(torch.zeros(100_000), 0, STREAMS, clip_norm=2.0) * 1000
        multiplier = float(sums.std()) / 2.0
        assert multiplier > 5.0
        moved = [math.log(private.next_clip_norm(0.0, 1.0, r, STREAMS)) for r in range(2000)]
        of_counts = float(np.std(moved)) / 0.2 * 1000 / 0.5  # a device moves the count by 1/2
        assert of_counts == pytest.approx(private.adapt.count_multiplier(5.0, 1), rel=0.05)
        together = 1 / math.sqrt(multiplier**-2 + private.adapt.count_multiplier(5.0, 1) ** -2)
        assert together == pytest.approx(5.0, rel=0.01)

    def test_the_rounds_clip_norm_must_be_named(self):
        adaptive = plan(adapt=self.ADAPT)
        with pytest.raises(ArgumentError, match="clip_norm"):
            adaptive.bound(torch.ones(2))
        with pytest.raises(ArgumentError, match="clip_norm"):
            plan().release(torch.ones(2), 0, STREAMS, clip_norm=2.0)
        assert float(adaptive.bound(torch.ones(4), 0.5).norm()) == pytest.approx(0.5)
        with pytest.raises(ArgumentError, match="adapt"):
            plan().next_clip_norm(0.0, 1.0, 0, STREAMS)


class TestRefusals:
    @pytest.mark.parametrize(
        ("field", "value", "reason", "mend"),
        [
            ("adjacency", "replace", "twice the clip norm", "add-remove"),
            ("selection", "fixed-size", "displaces another", "factorised_privacy"),
            ("selection", "multinomial", "counts twice", "poisson"),
            ("selection", "by-loss", "losses of private texts", "poisson"),
            ("weights", "samples", "weighted by its number of texts", "equal"),
            ("denominator", "realised-cohort", "is private", "expected-cohort"),
            ("aggregation", "buffered", "asynchronous buffer", "synchronous"),
            ("device_state", "released", "SCAFFOLD", "within-bound"),
            ("metrics", "exact", "nothing would noise them", "private_evaluation"),
            ("noise", "none", "nothing is guaranteed", "without a plan"),
            ("clip_norm", None, "without a clip norm", "give a clip_norm"),
            ("clip_norm", math.inf, "without a clip norm", "give a clip_norm"),
            ("noise_multiplier", 0.05, "protects nobody", "more noise"),
        ],
    )
    def test_unsound_combinations_are_refused_with_reason_and_mend(self, field, value, reason, mend):
        with pytest.raises(GuaranteeError) as caught:
            replace(plan(), **{field: value})
        assert reason in caught.value.reason
        assert mend in caught.value.mend

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("unit", "example"),
            ("selection", "shuffle"),
            ("devices", 0),
            ("rounds", 0),
            ("expected_cohort", 0.0),
            ("largest_rate", 1.2),
            ("largest_rate", 0.0),
            ("median_rate", 0.2),
            ("clip_norm", -1.0),
            ("noise_multiplier", 0.0),
            ("delta", 0.001),
            ("delta", 0.0),
            ("adapt", 0.5),
        ],
    )
    def test_bad_fields_are_refused_by_name(self, field, value):
        with pytest.raises(ArgumentError, match=field):
            replace(plan(), **{field: value})

    def test_weights_of_a_cohort_are_equal_shares_of_the_expected_one(self):
        private = plan()
        private.check_weights(np.full(17, 1 / 20))
        for weights in (np.array([1, 2, 17]) / 20, np.full(17, 1 / 17), np.array([0.05, 0.1])):
            with pytest.raises(GuaranteeError, match="equal weights over the expected cohort"):
                private.check_weights(weights)

    def test_no_noise_reaches_an_impossible_budget(self):
        with pytest.raises(GuaranteeError, match="no noise reaches"):
            UserPrivacy.for_budget(1e-7, 1e-9, 10**6, np.ones(10))


@pytest.mark.parametrize(("noise", "rounds", "rate"), [(3.0, 100, 0.125), (2.0, 10, 0.1)])
def test_a_text_has_more_epsilon_than_its_device_by_group_privacy(noise: float, rounds: int, rate: float) -> None:
    plan = UserPrivacy(799, rounds, 100.0, rate, noise, 6e-4)
    found = plan.text_epsilon()
    assert found > 2 * plan.epsilon()
    # (e, d) of the plan with (1 + exp e) d at most its delta
    spent = accounting.rdp_epsilon(plan.events(), plan.delta / (1 + math.exp(found / 2)))
    assert found / 2 - 0.02 <= spent <= found / 2


def test_a_text_may_have_no_guarantee_worth_a_figure() -> None:
    assert UserPrivacy(10, 1000, 5.0, 1.0, 0.3, 0.05).text_epsilon() == math.inf
