import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustnlp.dp import accounting
from trustnlp.errors import ArgumentError
from trustnlp.federated.poisson_activity import PoissonActivity

SIZES = np.array([1, 0, 1, 2, 40, 3, 3, 1, 9, 4])
sizes_of = st.lists(st.integers(0, 30), min_size=1, max_size=20).filter(any)


def slow(sizes, m, gamma=1.0, mix=0.0):
    """Oracle: the rates, device by device."""
    there = [size for size in sizes if size]
    total = sum(float(size) ** gamma for size in there)
    p = [(1 - mix) * float(size) ** gamma / total + mix / len(there) if size else 0.0 for size in sizes]
    return np.array([min(1.0, m * each) for each in p])


def inclusion(rule, m, rounds=4000, **options):
    """(rounds, K) who takes part."""
    selector, generator = rule.begin(SIZES), np.random.default_rng(1)
    found = np.zeros((rounds, len(SIZES)))
    for round in range(rounds):
        found[round, selector.select(round, m, generator, **options).devices] = 1
    return found


@given(sizes_of, st.integers(1, 9), st.floats(0, 3), st.floats(0, 1))
def test_rates_are_those_of_single_devices(sizes, m, gamma, mix):
    rates = PoissonActivity(gamma, mix).begin(np.array(sizes)).rates(m)
    expected = slow(sizes, m, gamma, mix)
    assert rates.of(np.array(sizes)) == pytest.approx(expected, abs=1e-12)
    assert rates.expected == pytest.approx(expected.sum())
    assert rates.largest == pytest.approx(expected.max())


@pytest.mark.parametrize(("gamma", "m"), [(1.0, 1), (1.0, 4), (0.0, 3), (2.0, 2), (0.5, 9)])
def test_devices_take_part_at_their_rates_and_independently(gamma, m):
    found, expected = inclusion(PoissonActivity(gamma), m), slow(SIZES, m, gamma)
    error = np.sqrt(expected * (1 - expected) / len(found))
    assert (np.abs(found.mean(0) - expected) <= 4.5 * error + 1e-12).all()
    covariance = np.cov(found.T) - np.diag(expected * (1 - expected))
    assert np.abs(covariance).max() < 4.5 * 0.25 / np.sqrt(len(found)) * 1.5
    # Draws of a fixed size vary in nothing.
    assert found.sum(1).var() == pytest.approx((expected * (1 - expected)).sum(), rel=0.15)


def test_many_devices_of_many_sizes():
    sizes = np.arange(1, 50_001)
    selector, generator = PoissonActivity().begin(sizes), np.random.default_rng(2)
    found = np.concatenate([selector.select(0, 500, generator).devices for _ in range(40)])
    tenths = np.bincount(found // 5000, minlength=10)  # the mean rate of a tenth grows with its middle
    expected = 40 * slow(sizes, 500).reshape(10, -1).sum(1)
    assert (np.abs(tenths - expected) < 4.5 * np.sqrt(expected)).all()


def test_the_denominator_is_fixed():
    selector, sizes = PoissonActivity().begin(SIZES), set()
    for round in range(50):
        cohort = selector.select(round, 4, np.random.default_rng(round))
        assert cohort.weights.tolist() == [0.25] * len(cohort)
        sizes.add(len(cohort))
    assert len(sizes) > 2


def mean_step(m, updates):
    """How many standard errors the mean step is away from the objective's."""
    selector, generator = PoissonActivity().begin(SIZES), np.random.default_rng(3)
    cohorts = [selector.select(0, m, generator) for _ in range(4000)]
    steps = [cohort.weights @ updates[cohort.devices] for cohort in cohorts]
    return (np.mean(steps) - SIZES @ updates / SIZES.sum()) / (np.std(steps) / np.sqrt(len(steps)))


def test_the_mean_step_is_that_of_the_objective_unless_a_rate_is_capped():
    updates = np.log1p(SIZES)
    rates = PoissonActivity().begin(SIZES).rates
    assert rates(1).unbiased
    assert abs(mean_step(1, updates)) < 4
    assert not rates(4).unbiased  # the device with 40 of 64 texts would need a rate of 2.5
    assert abs(mean_step(4, updates)) > 6
    assert not PoissonActivity(gamma=0.5).begin(SIZES).rates(1).unbiased
    assert not PoissonActivity().unbiased


def test_who_is_not_available_raises_nobodys_rate():
    mask = SIZES != 3
    found = inclusion(PoissonActivity(), 4, available=mask)
    expected = np.where(mask, slow(SIZES, 4), 0)
    error = np.sqrt(expected * (1 - expected) / len(found))
    assert (np.abs(found.mean(0) - expected) <= 4.5 * error + 1e-12).all()


def test_an_accountant_gives_every_device_its_own_epsilon():
    rates = PoissonActivity().begin(SIZES).rates(1)
    spent = [accounting.quick_epsilon([accounting.Event(float(q), 2.0, 10)], 1e-5) for q in rates.rates]
    assert (np.diff(spent) > 0).all()
    assert rates.rates[-1] == rates.largest


@pytest.mark.parametrize("wrong", [{"gamma": -1.0}, {"mix": 1.5}])
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(ArgumentError):
        PoissonActivity(**wrong)


def test_rates_that_round_to_nothing_draw_nobody():
    selector = PoissonActivity(gamma=80.0).begin(np.array([1, 1, 10**6]))
    assert selector.select(0, 2, np.random.default_rng(0)).devices.tolist() == [2]
