import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from trustnlp.dp import accounting
from trustnlp.dp.accounting import Event, attack_ceiling, calibrate, epsilon, rdp_epsilon
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


class TestCalibrate:
    @pytest.mark.parametrize(
        ("target", "delta", "q", "steps"),
        [(1, 1e-5, 0.1, 60), (0.1, 1e-6, 0.02, 256), (3, 1e-5, 0.5, 5)],
    )
    def test_it_spends_the_budget_and_no_more(self, target, delta, q, steps):
        found = epsilon([Event(q, calibrate(target, delta, q, steps), steps)], delta)
        assert 0.99 * target <= found <= target

    @pytest.mark.parametrize(("target", "reason"), [(1e-7, "no noise reaches"), (1e5, "protects nobody")])
    def test_unreachable_budgets_are_refused(self, target, reason):
        with pytest.raises(GuaranteeError, match=reason):
            calibrate(target, 1e-12, 1.0, 2)
