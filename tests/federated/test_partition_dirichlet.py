import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trustnlp.errors import ArgumentError
from trustnlp.federated.partition_dirichlet import allocate, apportion, dirichlet_sizes, log_mixtures, mixtures


def generator(seed=0):
    return np.random.default_rng(seed)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(any),
    st.integers(1, 12),
    st.sampled_from([1e-320, 1e-9, 1e-3, 0.5, 1.0, 100.0, 1e9]),
    st.integers(0, 2**32),
)
def test_all_is_used_and_every_device_has_its_size(supply, devices, alpha, seed):
    supply = np.array(supply)
    cuts = np.sort(generator(seed).integers(0, supply.sum() + 1, devices - 1))
    sizes = np.diff(cuts, prepend=0, append=supply.sum())
    given_ = allocate(supply, sizes, alpha, generator(seed))
    assert (given_ >= 0).all()
    assert np.array_equal(given_.sum(axis=0), supply)
    assert np.array_equal(given_.sum(axis=1), sizes)
    assert np.array_equal(given_, allocate(supply, sizes, alpha, generator(seed)))


@pytest.mark.parametrize("alpha", [0.3, 2.0, 50.0])
def test_mixtures_are_dirichlet(alpha):
    concentrations = alpha * np.array([0.5, 0.3, 0.2])
    shares = mixtures(log_mixtures(concentrations, 4000, generator()), np.ones(3, dtype=bool))
    for label, own in enumerate(concentrations):
        marginal = stats.beta(own, alpha - own)
        assert stats.kstest(shares[:, label], marginal.cdf).pvalue > 1e-3


def test_a_mixture_whose_shares_underflow_still_knows_its_second_label():
    logs = log_mixtures(np.full(3, 1e-4), 500, generator())
    assert ((np.exp(logs) == 0).sum(axis=1) >= 2).mean() > 0.5
    first = mixtures(logs, np.ones(3, dtype=bool)).argmax(axis=1)
    others = mixtures(logs[first == 0], np.array([False, True, True]))
    assert np.allclose(others.sum(axis=1), 1)
    assert others[:, 0].max() == 0
    assert 0.4 < (others[:, 1] > 0.5).mean() < 0.6


@pytest.mark.parametrize("alpha", [0.3, 1.0, 10.0])
def test_of_many_devices_each_is_dirichlet_multinomial(alpha):
    """Many devices ask for each label about as often as there are examples, so hardly any label runs out early."""
    given = allocate(np.array([12_000, 8_000]), np.full(5000, 4), alpha, generator())
    expected = stats.betabinom(4, 0.6 * alpha, 0.4 * alpha).pmf(np.arange(5))
    assert np.bincount(given[:, 0], minlength=5) / 5000 == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0, 5.0])
@pytest.mark.parametrize("supply", [np.full(20, 500), np.array([4000, 3000, 2000, 1000])], ids=["even", "uneven"])
def test_the_asked_skew_is_attained(supply, alpha):
    """The chance that two texts of a device share a label is s + (1 - s) / (1 + alpha), s that of any two texts."""
    made = np.array([allocate(supply, np.full(100, 100), alpha, generator(seed)) for seed in range(10)])
    same = (made * (made - 1)).sum(axis=2).mean() / (100 * 99)
    any_two = ((supply / 10_000) ** 2).sum()
    assert (same - any_two) / (1 - any_two) == pytest.approx(1 / (1 + alpha), rel=0.1)


def test_no_device_comes_last():
    """With the plain rule the last device gets leftovers; here all have the same law."""
    supply, sizes = np.full(2, 60), np.full(6, 20)
    largest = np.array([allocate(supply, sizes, 20.0, generator(seed)).max(axis=1) for seed in range(1500)])
    means = largest.mean(axis=0)
    error = largest.std(axis=0).max() / np.sqrt(len(largest))
    assert np.ptp(means) < 5 * error


def test_sizes_that_do_not_use_up_the_supply():
    with pytest.raises(ArgumentError, match="'sizes' must be numbers that add up to the supply of 5, got 4"):
        allocate(np.array([2, 3]), np.array([4]), 1.0, generator())


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=20).filter(lambda weights: sum(weights) > 0.01), st.integers(0, 500)
)
def test_apportioning_is_within_one_of_the_exact_share(weights, total):
    shares = np.array(weights) / sum(weights)
    found = apportion(shares, total)
    assert found.sum() == total
    assert (np.abs(found - shares * total) < 1 + 1e-9).all()


def test_apportioning_by_hand():
    # exact: 1.4, 2.1, 3.5; the whole parts leave one, which goes to the largest remainder
    assert apportion(np.array([0.2, 0.3, 0.5]), 7).tolist() == [1, 2, 4]


@settings(deadline=None)
@given(
    st.integers(1, 40),
    st.integers(0, 3),
    st.integers(0, 100),
    st.sampled_from([1e-300, 1e-3, 1.0, 1e6]),
    st.integers(0, 99),
)
def test_sizes_end_for_every_beta(devices, least, spare, beta, seed):
    sizes = dirichlet_sizes(devices * least + spare, devices, beta, least, generator(seed))
    assert sizes.sum() == devices * least + spare
    assert sizes.min() >= least


def test_sizes_vary_as_the_dirichlet():
    """Var of a share of Dir(beta, K times) is (1/K)(1 - 1/K) / (K beta + 1)."""
    beta, devices = 0.7, 10
    sizes = np.array([dirichlet_sizes(100_000, devices, beta, 0, generator(seed)) for seed in range(2000)])
    expected = 0.1 * 0.9 / (devices * beta + 1)
    assert (sizes / 100_000).var() == pytest.approx(expected, rel=0.05)
