import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad

from trustnlp.dp.noise import SeededNoise
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.federated import matrix_factorisation as mf
from trustnlp.federated.matrix_factorisation import CorrelatedNoise, Factorisation
from trustnlp.randomness import Streams

STREAMS = Streams(3)
FACTORS = st.builds(
    lambda rounds, tail, normalised: Factorisation(rounds, (1.0, *tail[: rounds - 1]), normalised),
    st.integers(1, 9),
    st.lists(st.floats(-0.7, 0.9), max_size=4),
    st.booleans(),
)


def sums(rounds: int) -> np.ndarray:
    return np.tril(np.ones((rounds, rounds)))


def brute_sensitivity(factor: Factorisation, separation: int, participations: int) -> float:
    """Over every pattern of rounds, and every sign of the updates in one dimension."""
    dense, found = factor.dense(), 0.0
    for pattern in itertools.product((-1, 0, 1), repeat=factor.rounds):
        rounds = np.flatnonzero(pattern)
        if len(rounds) <= participations and (np.diff(rounds) >= separation).all():
            found = max(found, float(np.linalg.norm(dense @ np.array(pattern))))
    return found


def tree_encoder(rounds: int) -> np.ndarray:
    """One row for each complete node of a binary tree over the rounds."""
    rows = []
    for level in range(rounds.bit_length()):
        width = 2**level
        for start in range(0, rounds - width + 1, width):
            rows.append((np.arange(rounds) >= start) & (np.arange(rounds) < start + width))
    return np.array(rows, dtype=float)


def best_banded_error(rounds: int, bands: int) -> float:
    """Least error of all banded matrices with columns of norm 1, for one participation; every entry is free."""
    ones = torch.ones(rounds, rounds, dtype=torch.float64)
    mask, workload = ones.tril() - ones.tril(-bands), ones.tril()
    entries = (torch.eye(rounds, dtype=torch.float64) + 0.3 * mask).requires_grad_()
    optimizer = torch.optim.LBFGS([entries], max_iter=1000, line_search_fn="strong_wolfe", tolerance_change=1e-12)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        columns = entries * mask
        found = torch.linalg.solve((columns / columns.norm(dim=0)).T, workload.T).norm()
        found.backward()
        return found

    optimizer.step(loss)
    return float(loss().detach()) / math.sqrt(rounds)


class TestFactorisation:
    @settings(max_examples=25, deadline=None)
    @given(FACTORS, st.integers(0, 3), st.integers(1, 4))
    def test_sensitivity_is_that_of_every_pattern_tried(self, factor, more, participations):
        if factor.rounds > 7:
            factor = Factorisation(7, factor.coefficients[:7], factor.normalised)
        separation = factor.bands + more
        found = factor.sensitivity(separation, participations)
        assert found == pytest.approx(brute_sensitivity(factor, separation, participations), rel=1e-9)

    def test_updates_in_any_directions_move_it_no_further(self):
        factor, generator = mf.square_root(12, 3), np.random.default_rng(0)
        limit = factor.sensitivity(3, 4)
        for _ in range(200):
            updates = generator.normal(size=(12, 5))
            updates /= np.linalg.norm(updates, axis=1, keepdims=True)
            mask = np.zeros(12)
            mask[np.arange(generator.integers(3), 12, 3)] = 1
            assert np.linalg.norm(factor.dense() @ (updates * mask[:, None])) <= limit + 1e-9

    def test_bands_that_overlap_are_refused(self):
        with pytest.raises(GuaranteeError, match="use at most 2 bands"):
            mf.square_root(10, 3).sensitivity(2, 1)

    @settings(max_examples=25, deadline=None)
    @given(FACTORS)
    def test_deviations_are_the_rows_of_the_dense_inverse(self, factor):
        noise = sums(factor.rounds) @ np.linalg.inv(factor.dense())
        assert np.allclose(factor.deviations(), np.linalg.norm(noise, axis=1), rtol=1e-7)

    def test_the_square_root_is_one(self):
        dense = mf.square_root(40, 40).dense()
        assert np.allclose(dense @ dense, sums(40))
        assert np.allclose(np.diag(mf.square_root(6, 3).dense(), -2), 3 / 8)

    def test_normalised_columns_have_norm_one(self):
        factor = Factorisation(9, (1.0, 0.5, 0.2), normalised=True)
        assert np.allclose(np.linalg.norm(factor.dense(), axis=0), 1)
        assert factor.sensitivity(3, 2) == pytest.approx(math.sqrt(2))

    def test_independent_noise_is_one_band(self):
        factor = mf.independent(50)
        assert np.array_equal(factor.dense(), np.eye(50))
        for separation, times in ((1, 50), (10, 3), (50, 1)):
            assert factor.error(separation, times) == pytest.approx(math.sqrt(times * 51 / 2))
        assert mf.least_error(50, 1, 5, 2) == factor

    @pytest.mark.parametrize("coefficients", [(), (0.5,), (1.0, math.nan), (1.0, 0.5, 0.2, 0.1)])
    def test_bad_coefficients_are_refused(self, coefficients):
        with pytest.raises(ArgumentError, match="coefficients"):
            Factorisation(3, coefficients)


class TestLeastError:
    @pytest.mark.parametrize("rounds", [4, 16, 64, 256])
    def test_full_bands_are_above_the_bound_of_all_factorisations_and_below_the_tree(self, rounds):
        # |A|_* <= |B|_F |C|_F <= |B|_F sqrt(T) max column: no factorisation at all has less error.
        found = mf.least_error(rounds, rounds, rounds, 1).error(rounds, 1)
        assert np.linalg.norm(sums(rounds), "nuc") / rounds <= found < mf.tree_error(rounds)

    @pytest.mark.parametrize("rounds", [8, 37, 100])
    def test_also_below_a_tree_with_the_best_decoder(self, rounds):
        encoder = tree_encoder(rounds)
        decoder = sums(rounds) @ np.linalg.pinv(encoder)
        tree = np.linalg.norm(encoder, axis=0).max() * np.linalg.norm(decoder) / math.sqrt(rounds)
        assert tree <= mf.tree_error(rounds) * (1 + 1e-9)
        assert mf.least_error(rounds, rounds, rounds, 1).error(rounds, 1) < tree

    @pytest.mark.parametrize("rounds", [1, 5, 32, 100])
    def test_the_trees_error_is_that_of_its_nodes(self, rounds):
        encoder = tree_encoder(rounds)
        nodes = [sum(t >> level & 1 for level in range(t.bit_length())) for t in range(1, rounds + 1)]
        expected = np.linalg.norm(encoder, axis=0).max() * math.sqrt(np.mean(nodes))
        assert mf.tree_error(rounds) == pytest.approx(expected)

    @pytest.mark.parametrize(("rounds", "bands"), [(3, 2), (8, 4), (16, 16), (32, 8)])
    def test_it_is_within_2_percent_of_the_best_banded_matrix_of_any_entries(self, rounds, bands):
        found = mf.least_error(rounds, bands, rounds, 1).error(rounds, 1)
        best = best_banded_error(rounds, bands)
        assert best * (1 - 1e-6) <= found <= 1.02 * best

    def test_more_bands_have_less_error(self):
        errors = [mf.least_error(200, bands, 20, 10).error(20, 10) for bands in (1, 2, 5, 10, 20)]
        assert errors == sorted(errors, reverse=True)
        assert errors[0] > 2 * errors[-1]

    def test_the_optimised_factor_beats_the_square_root(self):
        root = mf.square_root(300, 10).error(10, 30)
        assert mf.least_error(300, 10, 10, 30).error(10, 30) < 0.95 * root

    def test_the_gradient_of_the_optimiser_is_right(self):
        point = np.array([0.6, 0.3, -0.1])
        wrong = check_grad(lambda x: mf._log_error(x, 30)[0], lambda x: mf._log_error(x, 30)[1], point)
        assert wrong < 1e-5
        factor = Factorisation(30, (1.0, *point))
        whole = np.linalg.norm([1.0, *point]) * np.linalg.norm(factor.deviations())
        assert mf._log_error(point, 30)[0] == pytest.approx(math.log(whole))


class TestCorrelatedNoise:
    @pytest.mark.parametrize("normalised", [False, True])
    def test_the_stream_is_the_dense_inverse_times_independent_noise(self, normalised):
        factor = Factorisation(12, (1.0, 0.6, 0.3, 0.2), normalised)
        stream, like = CorrelatedNoise(factor, 2.0, "seeded", STREAMS), torch.zeros(30, dtype=torch.float64)
        found = torch.stack([stream.next(like) for _ in range(12)])
        source, rows = SeededNoise(STREAMS), []
        for block in range(12):
            rows.append(like.clone())
            source.release_({"factorised": rows[-1]}, block, {"factorised": 2.0}, 1.0)
        expected = np.linalg.inv(factor.dense()) @ torch.stack(rows).numpy()
        assert np.allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)

    def test_one_band_is_independent_noise(self):
        stream, like = CorrelatedNoise(mf.independent(3), 1.0, "seeded", STREAMS), torch.zeros(8)
        source, row = SeededNoise(STREAMS), torch.zeros(8)
        source.release_({"factorised": row}, 0, {"factorised": 1.0}, 1.0)
        assert torch.equal(stream.next(like), row)

    def test_the_noise_in_the_sums_has_the_deviations_that_are_reported(self):
        factor = mf.least_error(40, 8, 8, 5)
        stream, total, like = CorrelatedNoise(factor, 1.0, "seeded", STREAMS), 0.0, torch.zeros(20_000)
        for deviation in factor.deviations():
            total = total + stream.next(like)
            assert float(total.std()) == pytest.approx(deviation, rel=0.03)

    def test_memory_is_of_the_bands(self):
        stream = CorrelatedNoise(mf.square_root(50, 4), 1.0, "seeded", STREAMS)
        for _ in range(20):
            stream.next(torch.zeros(3))
        assert len(stream.state()["recent"]) == 3

    def test_a_restored_stream_has_the_same_bits(self):
        factor, like = mf.square_root(10, 3), torch.zeros(7)
        whole, first, second = (CorrelatedNoise(factor, 1.0, "seeded", STREAMS) for _ in range(3))
        expected = [whole.next(like) for _ in range(10)]
        begun = [first.next(like) for _ in range(4)]
        second.restore(first.state())
        rest = [second.next(like) for _ in range(6)]
        assert all(map(torch.equal, begun + rest, expected))

    def test_rounds_beyond_the_plan_and_other_shapes_are_refused(self):
        stream = CorrelatedNoise(mf.square_root(2, 2), 1.0, "seeded", STREAMS)
        stream.next(torch.zeros(3))
        with pytest.raises(ArgumentError, match="shape"):
            stream.next(torch.zeros(4))
        stream.next(torch.zeros(3))
        with pytest.raises(ArgumentError, match="round"):
            stream.next(torch.zeros(3))
