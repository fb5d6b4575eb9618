import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import gradients, movements, released

from trustnlp.dp import FlatClipping, PrivacyPlan, Quantile
from trustnlp.errors import ArgumentError

WITHIN = 1 + 1e-9


def plan_of(clip_norm, examples=6, **options):
    return PrivacyPlan(examples, 4, 3, 1.3, 1e-3, clipping=FlatClipping(clip_norm, **options))


class TestFlatClipping:
    def test_long_gradients_are_shortened_and_short_ones_are_not(self):
        data = gradients([[[3, 4], [0, 0]], [[0.3, 0], [0, 0.4]], [[0, 0], [0, 0]]] * 2)
        found = released(plan_of(1.0), data, range(3))
        assert [found.sums[f"layers.{k}.weight"].tolist() for k in (0, 1)] == [
            [[pytest.approx(0.6 + 0.3), pytest.approx(0.8)]],
            [[0, pytest.approx(0.4)]],
        ]

    def test_noise_is_sigma_times_the_clip_norm_and_the_divisor_the_expected_batch(self):
        found = released(plan_of(0.7), gradients([[[3, 4]]] * 6), range(2))
        assert found.stds == {"layers.0.weight": pytest.approx(1.3 * 0.7)}
        assert found.divisor == 4

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 99), st.floats(1e-3, 1e3), st.booleans())
    def test_one_example_moves_the_release_by_at_most_one(self, seed, clip_norm, adapts):
        data = gradients(torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(seed)))
        plan = plan_of(clip_norm, adapt=Quantile(share=0.3) if adapts else None)
        assert max(movements(plan, data, [0, 2, 3, 5])) <= WITHIN

    @pytest.mark.parametrize("adapt", [None, Quantile(share=0.3)])
    def test_the_longest_gradient_moves_it_by_one(self, adapt):
        moved = movements(plan_of(0.5, adapt=adapt), gradients([[[9, 0], [0, 9]]] * 6), [1, 4])
        assert moved == pytest.approx([1, 1], rel=1e-6)

    def test_a_clip_norm_is_one_number_however_it_is_written(self):
        assert FlatClipping(1) == FlatClipping(1.0)
        assert PrivacyPlan(6, 4, 3, 1.3, 1e-3, clipping=FlatClipping(1)).digest() == plan_of(1.0).digest()

    @pytest.mark.parametrize("clip_norm", [0, -1, math.nan, math.inf, "1", True, None])
    def test_bad_clip_norms_are_refused(self, clip_norm):
        with pytest.raises(ArgumentError, match="clip_norm"):
            FlatClipping(clip_norm)

    @pytest.mark.parametrize("adapt", [0.5, 0, True, {"quantile": 0.5}])
    def test_what_adapts_is_a_quantile(self, adapt):
        with pytest.raises(ArgumentError, match="adapt"):
            FlatClipping(1.0, adapt=adapt)

    def test_its_words_name_norm_and_quantile(self):
        assert FlatClipping(0.5).describe("example") == "the gradient of one example clipped to L2 norm 0.5"
        assert "at first, following the 30% quantile" in FlatClipping(0.5, Quantile(0.3)).describe("example")


def test_a_subclass_may_bound_less_than_it_says_and_is_no_clipping_of_a_plan():
    class Loose(FlatClipping):
        def factors(self, norms, thresholds):
            return torch.ones_like(norms)

    with pytest.raises(ArgumentError, match="clipping"):
        PrivacyPlan(100, 10, 10, 1.0, 1e-3, clipping=Loose())
