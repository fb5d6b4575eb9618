from __future__ import annotations

import math

import dp_accounting
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trustnlp.attacks.trade_off import ApproximateDP, GaussianDP, gaussian_epsilon
from trustnlp.errors import ArgumentError

RATES = np.linspace(0, 1, 401)
FAMILIES = [ApproximateDP(0.0), ApproximateDP(0.05), GaussianDP(1e-5)]


@pytest.mark.parametrize("curve", FAMILIES)
@given(strength=st.floats(0, 6), tpr=st.floats(0, 1))
def test_the_inverse_is_the_smallest_fpr_of_that_power(curve, strength, tpr):
    fpr = curve.inverse(tpr, strength)
    assert 0 <= fpr <= tpr + 1e-12
    assert curve.power(np.array([fpr]), strength)[0] >= tpr - 1e-9
    if fpr > 1e-6:
        assert curve.power(np.array([fpr - 1e-6]), strength)[0] < tpr + 1e-9


@pytest.mark.parametrize("curve", FAMILIES)
@given(strength=st.floats(0, 6), more=st.floats(0, 2))
def test_a_curve_is_a_trade_off_curve_and_grows(curve, strength, more):
    power = curve.power(RATES, strength)
    assert (power >= RATES - 1e-12).all()
    assert (np.diff(power) >= -1e-12).all()
    assert (np.diff(power, 2) <= 1e-9).all()  # concave
    assert (curve.power(RATES, strength + more) >= power - 1e-12).all()
    mirrored = 1 - curve.power(1 - power, strength)  # symmetric: the test of "out" is as good as that of "in"
    inner = power < 1 - 1e-6
    assert (mirrored[inner] <= RATES[inner] + 1e-6).all()


def test_approximate_privacy_is_its_two_inequalities():
    epsilon, delta = 1.3, 0.02
    power = ApproximateDP(delta).power(RATES, epsilon)
    assert (power <= math.exp(epsilon) * RATES + delta + 1e-12).all()
    assert (math.exp(epsilon) * (1 - power) + delta + 1e-12 >= 1 - RATES).all()
    assert ApproximateDP(delta).epsilon(epsilon) == epsilon


@pytest.mark.parametrize("mu", [0.05, 0.5, 1.0, 3.0, 12.0])
@pytest.mark.parametrize("delta", [1e-9, 1e-5, 0.01])
def test_the_epsilon_of_a_gaussian_mechanism(mu, delta):
    assert gaussian_epsilon(mu, delta) == pytest.approx(dp_accounting.get_epsilon_gaussian(1 / mu, delta), abs=1e-6)


def test_at_that_epsilon_the_two_curves_touch():
    mu, delta = 1.5, 1e-3
    epsilon = gaussian_epsilon(mu, delta)
    rates = stats.norm.sf(np.linspace(-8, 8, 4001))
    room = ApproximateDP(delta).power(rates, epsilon) - GaussianDP(delta).power(rates, mu)
    assert room.min() == pytest.approx(0, abs=1e-7)
    tighter = ApproximateDP(delta).power(rates, epsilon - 0.01) - GaussianDP(delta).power(rates, mu)
    assert tighter.min() < -1e-6


def test_weak_mechanisms_have_epsilon_zero():
    assert gaussian_epsilon(0.0, 1e-5) == 0
    assert gaussian_epsilon(1e-6, 1e-5) == 0  # its total variation, 4e-7, is below delta


def test_a_gaussian_curve_needs_a_delta():
    with pytest.raises(ArgumentError, match="no finite epsilon"):
        GaussianDP(0.0)
