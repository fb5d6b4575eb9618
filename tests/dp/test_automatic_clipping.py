import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import gradients, movements, released

from trustnlp.dp import AutomaticClipping, PrivacyPlan
from trustnlp.errors import ArgumentError


def plan_of(stability=0.01):
    return PrivacyPlan(6, 4, 3, 1.3, 1e-3, clipping=AutomaticClipping(stability))


class TestAutomaticClipping:
    def test_gradients_are_divided_by_their_norm_and_the_stability(self):
        found = released(plan_of(0.5), gradients([[[3, 4], [0, 0]], [[0, 0], [0, 0.5]]] * 3), [0, 1])
        assert found.sums["layers.0.weight"].tolist() == [[pytest.approx(3 / 5.5), pytest.approx(4 / 5.5)]]
        assert found.sums["layers.1.weight"].tolist() == [[0, pytest.approx(0.5)]]
        assert set(found.stds.values()) == {1.3}

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 99), st.floats(-12, 12), st.floats(1e-6, 10))
    def test_one_example_moves_the_release_by_at_most_one_however_long(self, seed, magnitude, stability):
        vectors = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(seed)) * 10**magnitude
        assert max(movements(plan_of(stability), gradients(vectors), [0, 2, 3, 5])) <= 1 + 1e-9

    def test_a_very_long_gradient_moves_it_by_one(self):
        assert movements(plan_of(), gradients([[[1e9, 0], [0, 1e9]]] * 6), [1, 4]) == pytest.approx([1, 1], rel=1e-6)

    def test_a_gradient_of_zero_stays_zero(self):
        assert not released(plan_of(), gradients([[[0, 0]]] * 6), [0, 1]).scaled().any()

    def test_direction_is_kept_and_longer_stays_longer(self):
        norms = torch.logspace(-6, 6, 40, dtype=torch.float64)[:, None]
        clipped = norms * AutomaticClipping().factors(norms, torch.ones(1, dtype=torch.float64))
        assert (clipped.diff(dim=0) > 0).all()
        assert (clipped < 1).all()

    @pytest.mark.parametrize("stability", [0, -0.01, math.nan, math.inf])
    def test_a_stability_above_zero_is_needed(self, stability):
        with pytest.raises(ArgumentError, match="stability"):
            AutomaticClipping(stability)

    def test_its_words_are_its_formula(self):
        assert AutomaticClipping().describe("example").endswith("normalised to g / (|g| + 0.01)")
