import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trustnlp.dp import accounting
from trustnlp.dp.accounting import Event
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.federated.private_sum import NoisySum, PrivateSum, discrete_gaussian
from trustnlp.randomness import Streams

STREAMS = Streams(2)


class TestTotal:
    def test_within_the_bound_it_is_the_plain_sum(self):
        vectors = np.random.default_rng(0).uniform(-0.5, 0.5, (50, 3))
        assert np.allclose(PrivateSum(1.0, 1.0, 1e-6).total(vectors), vectors.sum(0), rtol=1e-12)

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=9), st.floats(0.5, 100.0))
    @pytest.mark.parametrize("kind", ["gaussian", "discrete-gaussian"])
    def test_no_device_moves_it_by_more_than_the_bound(self, kind, vector, bound):
        found = PrivateSum(bound, 1.0, 1e-6, kind=kind).bounded(vector)
        assert float(np.linalg.norm(found)) <= bound
        assert kind == "gaussian" or (found == np.trunc(found)).all()

    def test_a_broken_vector_counts_as_zeros(self):
        found = PrivateSum(1.0, 1.0, 1e-6).total([[0.5, 0.0], [math.nan, 1.0], [math.inf, 0.0]])
        assert found.tolist() == [0.5, 0.0]

    def test_no_devices_make_no_sum(self):
        with pytest.raises(ArgumentError, match="at least one device"):
            PrivateSum(1.0, 1.0, 1e-6).total([])


class TestRelease:
    @pytest.mark.parametrize("noise", ["seeded", "secure"])
    def test_noise_has_the_promised_deviation(self, noise):
        found = PrivateSum(3.0, 2.0, 1e-6, noise=noise).release(np.full(100_000, 7.0), STREAMS)
        assert found.std == 6.0
        assert found.values.mean() == pytest.approx(7.0, abs=5 * 6 / math.sqrt(100_000))
        assert found.values.std() == pytest.approx(6.0, rel=0.01)

    def test_discrete_noise_is_whole_and_of_that_deviation(self):
        found = PrivateSum(3.0, 2.0, 1e-6, kind="discrete-gaussian").release(np.full(50_000, 7.0), STREAMS)
        assert (found.values == np.trunc(found.values)).all()
        assert found.values.std() == pytest.approx(6.0, rel=0.02)

    @pytest.mark.parametrize("kind", ["gaussian", "discrete-gaussian"])
    def test_same_number_same_bits_and_another_number_other_noise(self, kind):
        summing = PrivateSum(1.0, 5.0, 1e-6, releases=2, kind=kind)
        first, again, other = (summing.release(np.zeros(40), STREAMS, n).values for n in (0, 0, 1))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_more_releases_than_paid_for_are_refused(self):
        with pytest.raises(ArgumentError, match="paid for"):
            PrivateSum(1.0, 5.0, 1e-6, releases=2).release([0.0], STREAMS, 2)

    def test_sums_that_nothing_bounded_are_refused(self):
        with pytest.raises(GuaranteeError, match="NaN"):
            PrivateSum(1.0, 5.0, 1e-6).release([math.nan], STREAMS)
        with pytest.raises(GuaranteeError, match="whole numbers"):
            PrivateSum(1.0, 5.0, 1e-6, kind="discrete-gaussian").release([0.5], STREAMS)

    @pytest.mark.parametrize("kind", ["gaussian", "discrete-gaussian"])
    def test_margins_cover_all_sums_at_once(self, kind):
        summing, hits = PrivateSum(1.0, 2.0, 1e-6, releases=600, kind=kind), 0
        for number in range(600):
            noisy = summing.release(np.zeros(8), STREAMS, number)
            hits += bool((np.abs(noisy.values) <= noisy.margin(0.9, 8)).all())
        # Of the discrete kind it is wider than need be; of the Gaussian kind at the level itself.
        assert hits >= 600 * 0.9 - 3 * math.sqrt(600 * 0.09)
        if kind == "gaussian":
            assert hits <= 600 * 0.905 + 3 * math.sqrt(600 * 0.09)

    def test_a_margin_without_noise_is_0(self):
        assert NoisySum(np.zeros(1), 0.0).margin() == 0.0


class TestEpsilon:
    def test_gaussian_sums_compose_by_pld(self):
        summing = PrivateSum(3.0, 4.0, 1e-6, releases=5)
        assert summing.epsilon() == accounting.epsilon([Event(1.0, 4.0, 5)], 1e-6)

    @pytest.mark.parametrize("sigma", [0.5, 1.0, 2.3])
    def test_discrete_noise_keeps_its_promise_exactly(self, sigma):
        # Oracle: the divergence of the two distributions themselves, where one device moves a sum by 1.
        delta = 1e-4
        promised = PrivateSum(1.0, sigma, delta, kind="discrete-gaussian").epsilon()
        support = np.arange(-60, 62)
        mass = np.exp(-(support**2) / (2 * sigma**2))
        moved = np.exp(-((support - 1) ** 2) / (2 * sigma**2))
        mass, moved = mass / mass.sum(), moved / moved.sum()
        assert np.maximum(mass - math.exp(promised) * moved, 0).sum() <= delta
        assert np.maximum(mass - math.exp(0.6 * promised) * moved, 0).sum() > delta  # and is no idle promise

    @pytest.mark.parametrize("kind", ["gaussian", "discrete-gaussian"])
    def test_a_budget_is_used_up(self, kind):
        summing = PrivateSum.for_budget(1.0, 1e-6, 2.0, releases=3, kind=kind)
        assert 0.98 <= summing.epsilon() <= 1.0
        assert summing.std == 2.0 * summing.noise_multiplier

    def test_an_impossible_budget_is_refused(self):
        with pytest.raises(GuaranteeError):
            PrivateSum.for_budget(1e9, 1e-6, 1.0)
        with pytest.raises(GuaranteeError):
            PrivateSum.for_budget(1e-9, 1e-9, 1.0, kind="discrete-gaussian")

    def test_the_guarantee_names_unit_and_adjacency(self):
        guarantee = PrivateSum(1.0, 4.0, 1e-6).guarantee()
        assert "for one device, neighbours by add-remove of one device" in str(guarantee)
        assert guarantee.as_dict()["epsilon"] == guarantee.epsilon > 0


@pytest.mark.parametrize(
    ("fields", "error", "reason"),
    [
        ({"bound": None}, GuaranteeError, "without a clip norm"),
        ({"bound": math.inf}, GuaranteeError, "without a clip norm"),
        ({"noise_multiplier": 0.01}, GuaranteeError, "protects nobody"),
        ({"noise_multiplier": 0.0}, ArgumentError, "noise_multiplier"),
        ({"delta": 1.0}, ArgumentError, "delta"),
        ({"releases": 0}, ArgumentError, "releases"),
        ({"kind": "laplace"}, ArgumentError, "kind"),
        ({"kind": "discrete-gaussian", "noise": "secure"}, ArgumentError, "noise"),
    ],
)
def test_unsound_sums_are_refused(fields, error, reason):
    with pytest.raises(error, match=reason):
        PrivateSum(**{"bound": 1.0, "noise_multiplier": 1.0, "delta": 1e-6, **fields})


class TestDiscreteGaussian:
    @pytest.mark.parametrize("sigma", [0.3, 1.0, 4.7])
    def test_it_is_drawn_as_its_probabilities_say(self, sigma):
        drawn = discrete_gaussian(sigma, (40_000,), np.random.default_rng(1))
        support = np.arange(-80, 81)
        mass = np.exp(-(support**2) / (2 * sigma**2))
        mass /= mass.sum()
        observed = np.array([(drawn == value).sum() for value in support])
        often = mass * 40_000 >= 8
        cells = np.append(observed[often], observed[~often].sum()), np.append(mass[often], mass[~often].sum()) * 40_000
        keep = cells[1] > 0.5
        chi = ((cells[0] - cells[1])[keep] ** 2 / cells[1][keep]).sum()
        assert stats.chi2.sf(chi, keep.sum() - 1) > 1e-3

    def test_shapes(self):
        assert discrete_gaussian(1.0, (2, 3), np.random.default_rng(0)).shape == (2, 3)
        assert discrete_gaussian(1.0, (0,), np.random.default_rng(0)).shape == (0,)
