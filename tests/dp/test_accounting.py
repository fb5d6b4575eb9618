import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from trustnlp.dp import accounting
from trustnlp.dp.accounting import Event, attack_ceiling, calibrate, epsilon, largest, rdp_epsilon
from trustnlp.errors import ArgumentError, GuaranteeError


def gaussian_delta(epsilon, mu):
    """Balle and Wang 2018, theorem 8: delta of a Gaussian mechanism with sensitivity/std = mu."""
    return norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)


class TestEpsilon:
    @pytest.mark.parametrize(("sigma", "steps"), [(1.0, 1), (3.0, 10), (5.0, 100), (0.6, 1), (0.4, 2)])
    def test_without_sampling_it_is_the_analytic_gaussian(self, sigma, steps):
        found = epsilon([Event(1.0, sigma, steps)], 1e-5)
        mu = math.sqrt(steps) / sigma
        assert gaussian_delta(found, mu) == pytest.approx(1e-5, rel=1e-2)
        assert gaussian_delta(found, mu) <= 1e-5  # an upper bound: more than enough epsilon

    # tensorflow/privacy, tutorials/README.md, "Select Parameters": MNIST, 60,000 examples, batches of 256, delta 1e-5.
    # Those figures are by RDP with the conversion of 2017, so PLD must be below them, and not by much.
    @pytest.mark.parametrize(("sigma", "epochs", "published"), [(1.12, 60, 2.92), (0.6, 30, 9.74), (1.2, 10, 1.20)])
    def test_published_values_by_a_looser_accountant_are_bounds(self, sigma, epochs, published):
        found = epsilon([Event(256 / 60000, sigma, epochs * 60000 // 256)], 1e-5)
        assert 0.65 * published < found < published

    @pytest.mark.parametrize(("q", "sigma", "budget"), [(0.1, 1.0, 0.5), (0.01, 0.7, 1.0), (0.6, 2.0, 0.2)])
    def test_one_step_is_the_integral_over_its_outputs(self, q, sigma, budget):
        grid = np.linspace(-25, 25, 200_001)
        without = norm.pdf(grid, 0, sigma)
        mixed = (1 - q) * without + q * norm.pdf(grid, 1, sigma)
        exact = max(
            np.trapezoid(np.maximum(one - math.exp(budget) * other, 0), grid)
            for one, other in ((mixed, without), (without, mixed))
        )
        assert epsilon([Event(q, sigma)], exact) == pytest.approx(budget, rel=1e-3)

    def test_monte_carlo_of_the_privacy_loss_agrees(self):
        # An independent oracle: delta = E[(1 - e^(eps - L))+] over the privacy loss L of the removal direction,
        # whose output distribution is the mixture (1 - q) N(0, s^2) + q N(1, s^2) in every step.
        q, sigma, steps, runs = 0.1, 1.5, 50, 40_000
        rng = np.random.default_rng(0)
        loss = np.zeros(runs)
        for _ in range(steps):
            x = rng.normal((rng.random(runs) < q).astype(float), sigma)
            loss += np.log1p(q * np.expm1((2 * x - 1) / (2 * sigma**2)))
        at = 0.8
        sample = np.maximum(0, -np.expm1(at - loss))
        error = sample.std() / math.sqrt(runs)
        assert epsilon([Event(q, sigma, steps)], float(sample.mean() - 4 * error)) >= at
        assert epsilon([Event(q, sigma, steps)], float(sample.mean() + 4 * error)) <= at

    def test_nothing_released_spends_nothing(self):
        assert epsilon([], 1e-6) == 0.0
        assert attack_ceiling([], 0.01) == 0.01

    def test_order_and_grouping_of_events_do_not_matter(self):
        one, other = Event(0.1, 1.0), Event(0.1, 2.0)
        assert epsilon([one, other, one], 1e-5) == epsilon([other, Event(0.1, 1.0, 2)], 1e-5)

    def test_heterogeneous_gaussians_are_the_analytic_composition(self):
        found = epsilon([Event(1.0, 2.0, 3), Event(1.0, 4.0, 5)], 1e-5)
        assert gaussian_delta(found, math.sqrt(3 / 4 + 5 / 16)) == pytest.approx(1e-5, rel=1e-2)

    @settings(max_examples=4, deadline=None)
    @given(
        st.floats(0.01, 1.0),
        st.floats(1.5, 8.0),
        st.integers(1, 60),
        st.floats(1.05, 2.0),
        st.sampled_from([1e-7, 1e-5, 1e-3]),
    )
    def test_more_noise_less_sampling_fewer_steps_more_delta_spend_less(self, q, sigma, steps, factor, delta):
        spent = epsilon([Event(q, sigma, steps)], delta)
        assert epsilon([Event(q, sigma * factor, steps)], delta) <= spent
        assert epsilon([Event(q / factor, sigma, steps)], delta) <= spent
        assert epsilon([Event(q, sigma, steps + 5)], delta) >= spent
        assert epsilon([Event(q, sigma, steps)], delta * factor) <= spent
        assert spent <= rdp_epsilon([Event(q, sigma, steps)], delta) + 0.02

    def test_accountants_that_disagree_are_refused(self, monkeypatch):
        monkeypatch.setattr(accounting, "rdp_epsilon", lambda events, delta: 0.5)
        with pytest.raises(GuaranteeError, match="disagree"):
            epsilon([Event(1.0, 0.97)], 1e-5)

    @pytest.mark.parametrize("fields", [(0.0, 1.0), (1.1, 1.0), (0.1, 0.0), (0.1, math.nan), (0.1, 1.0, 0)])
    def test_bad_events_are_refused(self, fields):
        with pytest.raises(ArgumentError):
            Event(*fields)


class TestAttackCeiling:
    @pytest.mark.parametrize(("mu", "fpr"), [(1.0, 0.001), (1.0, 0.01), (2.0, 0.01), (0.5, 0.1)])
    def test_without_sampling_it_is_the_gaussian_trade_off(self, mu, fpr):
        # Dong, Roth and Su 2019, equation 6: TPR = Phi(Phi^-1(FPR) + mu).
        exact = norm.cdf(norm.ppf(fpr) + mu)
        found = attack_ceiling([Event(1.0, 1 / mu)], fpr)
        assert exact <= found <= 1.01 * exact

    def test_it_is_tighter_than_the_budget_alone(self):
        event = [Event(0.05, 1.0, 200)]
        spent = epsilon(event, 1e-5)
        assert 0.01 < attack_ceiling(event, 0.01) < math.exp(spent) * 0.01 + 1e-5


class TestTruncated:
    def test_a_published_value(self):
        # dp-accounting 0.6, pld_privacy_accountant_test.py, test_truncated_subsampled_gaussian_basic.
        events = (Event(0.5, 1.0, 3, 4, 2), Event(0.5, 1.0, 2, 3, 2))
        # There on a grid ten times as fine.
        assert 17.904330 <= accounting._accountant(events, 1e-3).get_epsilon(1e-6) < 1.0001 * 17.904330

    @pytest.mark.parametrize("budget", [0.5, 1.0, 2.0])
    def test_exact_enumeration_of_a_small_data_set_is_below_it_and_above_plain_poisson(self, budget):
        # 12 others at -1 and one unit at +1, q = 0.5, at most 3 kept: every case of the draw, integrated on a grid.
        others, q, cap, sigma = 12, 0.5, 3, 2.0
        grid = np.linspace(-30, 30, 60_001)
        present, absent = np.zeros_like(grid), np.zeros_like(grid)
        for drawn in range(others + 1):
            chance, kept = binom.pmf(drawn, others, q), min(drawn, cap)
            without = norm.pdf(grid, -kept, sigma)
            stays = 1.0 if drawn < cap else cap / (drawn + 1)
            rest = drawn if drawn < cap else cap - 1
            absent += chance * without
            present += chance * (q * stays * norm.pdf(grid, 1 - rest, sigma) + (1 - q * stays) * without)
        exact = max(
            np.trapezoid(np.maximum(one - math.exp(budget) * other, 0), grid)
            for one, other in ((present, absent), (absent, present))
        )
        event = Event(q, sigma, 1, others + 1, cap)
        assert float(accounting._accountant((event,)).get_delta(budget)) >= exact
        assert float(accounting._accountant((Event(q, sigma),)).get_delta(budget)) < exact

    def test_a_cap_that_is_never_reached_costs_nothing(self):
        assert epsilon([Event(0.1, 1.8, 20, 50, 50)], 1e-5) == pytest.approx(
            epsilon([Event(0.1, 1.8, 20)], 1e-5), rel=1e-2
        )

    def test_the_cap_is_charged_the_more_the_lower_it_is(self):
        spent = [epsilon([Event(0.1, 1.8, 50, 1000, cap)], 1e-5) for cap in (125, 130, 200)]
        assert spent == sorted(spent, reverse=True)
        assert spent[0] > 1.01 * spent[-1]

    @pytest.mark.parametrize(("q", "sigma", "steps"), [(0.02, 1.5, 50), (0.02, 6.0, 2000), (0.3, 12.0, 2000)])
    def test_rdp_is_the_looser_bound_wherever_a_plan_may_truncate(self, q, sigma, steps):
        event = Event(q, sigma, steps, 2000, accounting.least_cap(2000, q, 0.01))
        assert epsilon([event], 1e-5) < rdp_epsilon([event], 1e-5)

    @pytest.mark.parametrize(("q", "sigma", "steps"), [(0.1, 1.0, 20), (1.0, 3.0, 5), (0.01, 0.7, 300)])
    def test_its_moments_are_those_of_the_library_where_nothing_is_truncated(self, q, sigma, steps):
        assert accounting._rdp_epsilon((Event(q, sigma, steps, 9, 9),), 1e-5) == pytest.approx(
            rdp_epsilon([Event(q, sigma, steps)], 1e-5), rel=1e-6
        )

    def test_chances_at_the_cap_are_those_of_a_simulation(self):
        rng = np.random.default_rng(0)
        others = rng.binomial(19, 0.3, 200_000)
        crowded = others >= 8
        kept = (rng.random(len(others)) < 0.3) & (rng.random(len(others)) < 8 / (others + 1))
        found = accounting.kept_at_cap(Event(0.3, 1.0, 1, 20, 8))
        assert found == pytest.approx((crowded.mean(), kept[crowded].mean()), rel=0.03)

    def test_the_least_cap_is_the_least(self):
        cap = accounting.least_cap(500, 0.1, 0.01)
        shares = [accounting.kept_at_cap(Event(0.1, 1.0, 1, 501, c))[0] for c in (cap - 1, cap)]
        assert shares[1] <= 0.01 < shares[0]


class TestCalibrate:
    @pytest.mark.parametrize(
        ("target", "delta", "event"),
        [
            (1, 1e-5, Event(0.1, 1.0, 60)),
            (0.1, 1e-6, Event(0.02, 1.0, 256)),
            (3, 1e-5, Event(0.5, 1.0, 5)),
        ],
    )
    def test_it_spends_the_budget_and_no_more(self, target, delta, event):
        found = epsilon([replace(event, noise_multiplier=calibrate(target, delta, (event,)))], delta)
        assert 0.99 * target <= found <= target

    def test_without_sampling_it_is_the_analytic_gaussian_of_all_noise_together(self):
        # 1 / sigma^2 of a composition is the sum of all 1 / sigma_i^2 (Balle and Wang 2018; Dong et al. 2019).
        events = (Event(1.0, 4.0, 2), Event(1.0, 2.0, 3))
        factor = calibrate(1.0, 1e-5, events)
        assert gaussian_delta(1.0, math.sqrt(2 / 16 + 3 / 4) / factor) == pytest.approx(1e-5, rel=0.1)
        assert gaussian_delta(1.0, math.sqrt(2 / 16 + 3 / 4) / factor) <= 1e-5

    @pytest.mark.parametrize(("target", "reason"), [(1e-7, "no noise reaches"), (1e5, "protects nobody")])
    def test_unreachable_budgets_are_refused(self, target, reason):
        with pytest.raises(GuaranteeError, match=reason):
            calibrate(target, 1e-12, (Event(1.0, 1.0, 2),))


class TestQuickEpsilon:
    @pytest.mark.parametrize("event", [Event(0.01, 1.0, 500), Event(0.01, 4.0, 5000), Event(0.5, 3.0, 20)])
    def test_it_is_a_little_looser(self, event):
        exact = epsilon([event], 1e-5)
        assert exact <= accounting.quick_epsilon([event], 1e-5) <= 1.01 * exact


class TestLargest:
    @given(
        st.lists(st.floats(0, 10), min_size=1, max_size=60).map(sorted),
        st.floats(0.1, 9),
        st.integers(0, 60),
        st.integers(1, 9),
    )
    def test_it_is_what_trying_all_finds(self, figures, budget, start, stride):
        within = [number for number, figure in enumerate(figures) if figure <= budget]
        found = largest(figures.__getitem__, budget, len(figures) - 1, 0, start, stride)
        assert found == max(within, default=-1) or figures[found] == budget

    def test_it_asks_rarely(self):
        asked = []
        assert largest(lambda n: asked.append(n) or n**0.6, 100.0, 10**6) == int(100 ** (1 / 0.6))
        assert len(asked) < 30

    def test_what_cannot_be_spent_at_all_is_too_much(self):
        assert largest(lambda n: n if n < 7 else math.inf, 100.0, 50) == 6
