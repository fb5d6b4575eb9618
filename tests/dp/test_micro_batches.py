import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import gradients, movements, released

from trustnlp.dp import MicroBatchClipping, PrivacyPlan, Quantile, Unit
from trustnlp.errors import ArgumentError

ADAPT = Quantile(share=0.3)


def plan_of(size=2, clip_norm=1.0, **options):
    return PrivacyPlan(8, 4, 3, 1.3, 1e-3, clipping=MicroBatchClipping(size, clip_norm, **options))


class TestMicroBatchClipping:
    def test_the_mean_gradient_of_each_micro_batch_is_clipped(self):
        data = gradients([[[3, 0]], [[0, 4]], [[0.2, 0]], [[-4, 0]]] * 2)
        found = released(plan_of(), data, [0, 1, 2], places=[1, 1, 0])  # means over the expected size: (1.5, 2), 0.1
        assert found.sums["layers.0.weight"].tolist() == [[pytest.approx(0.6 + 0.1), pytest.approx(0.8)]]

    def test_noise_is_for_twice_the_clip_norm_and_the_divisor_the_number_of_micro_batches(self):
        found = released(plan_of(clip_norm=0.7), gradients([[[3, 4]]] * 8), range(3))
        assert found.stds == {"layers.0.weight": pytest.approx(1.3 * 2 * 0.7)}
        assert found.divisor == 2

    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, 999), st.floats(1e-2, 1e2), st.sampled_from([1, 2, 4]), st.booleans(), st.booleans())
    def test_one_example_moves_the_release_by_at_most_one(self, seed, clip_norm, size, by_layer, adapts):
        """Empty micro-batches come up as well: up to 4 of them, and up to 5 examples."""
        rng = np.random.default_rng(seed)
        data = gradients(rng.standard_normal((8, 2, 2)) * np.exp(rng.standard_normal((8, 1, 1)) * 2))
        drawn = np.flatnonzero(rng.random(8) < 0.4)[:5]
        plan = plan_of(size, clip_norm, by_layer=by_layer, adapt=ADAPT if adapts else None)
        moved = movements(plan, data, list(drawn), list(rng.integers(0, 4, len(drawn))))
        assert max(moved, default=0) <= 1 + 1e-9

    @pytest.mark.parametrize("by_layer", [False, True])
    def test_an_example_that_turns_a_micro_batch_round_moves_it_by_one(self, by_layer):
        data = gradients([[[9, 0], [0, 9]], [[-90, 0], [0, -90]]] * 4)
        moved = movements(plan_of(by_layer=by_layer), data, [0, 1], [0, 0])
        assert moved[1] == pytest.approx(1, rel=1e-6)

    def test_a_micro_batch_turned_round_with_its_count_moves_it_by_one(self):
        """A count flips only where the micro-batch was within, so both are at their worst right at the threshold."""
        data = gradients([[[2, 0]], [[-9, 0]]] * 4)  # a mean of (1, 0)
        assert movements(plan_of(adapt=ADAPT), data, [0, 1], [0, 0])[1] == pytest.approx(1, rel=1e-6)

    def test_an_example_alone_moves_it_by_half_as_much(self):
        assert movements(plan_of(), gradients([[[9, 0]]] * 8), [0], [1]) == pytest.approx([0.5], rel=1e-6)

    def test_consecutive_chunks_void_the_guarantee(self, monkeypatch):
        """Without the first example every later chunk is another one, and here points the other way."""

        def chunks(self, indices, expected, generator):
            return [Unit(indices[start : start + 2], 0.5) for start in range(0, 8, 2)]

        data, plan = gradients([[[value, 0]] for value in (80, -70, 60, -50, 40, -30, 20, -10)]), plan_of()
        assert max(movements(plan, data, range(8), [0, 0, 1, 1, 2, 2, 3, 3])) <= 1 + 1e-9
        monkeypatch.setattr(MicroBatchClipping, "units", chunks)
        assert movements(plan, data, range(8))[0] == pytest.approx(4)  # 4 chunks, each turned round


class TestUnits:
    def units(self, indices, seed=0, size=4):
        return MicroBatchClipping(size).units(np.asarray(indices, int), 16, np.random.default_rng(seed))

    def test_every_example_is_in_one_micro_batch(self):
        units = self.units(range(3, 30))
        assert len(units) == 4
        assert sorted(row for unit in units for row in unit.rows) == list(range(3, 30))
        assert {unit.weight for unit in units} == {1 / 4}

    def test_their_number_is_public_whatever_was_drawn(self):
        assert [len(self.units(range(n))) for n in (0, 1, 15, 40)] == [4] * 4

    def test_each_examples_micro_batch_is_uniform_and_independent(self):
        """Pairs of examples meet in each pair of micro-batches equally often: chi-square with 15 degrees of freedom."""
        pairs = Counter()
        for seed in range(1000):
            place = {row: number for number, unit in enumerate(self.units(range(6), seed)) for row in unit.rows}
            pairs.update((place[a], place[b]) for a, b in pairwise(range(0, 6, 1)))
        expected = 5000 / 16
        assert len(pairs) == 16
        assert sum((count - expected) ** 2 / expected for count in pairs.values()) < 37.7  # 99.9% quantile

    def test_batches_with_a_rest_are_refused(self):
        with pytest.raises(ArgumentError, match="a divisor of the expected batch"):
            plan_of(size=3)

    @pytest.mark.parametrize("fields", [{"size": 0}, {"size": 2.0}, {"clip_norm": 0}, {"clip_norm": math.nan}])
    def test_bad_fields_are_refused_by_name(self, fields):
        with pytest.raises(ArgumentError, match=next(iter(fields))):
            MicroBatchClipping(**fields)

    def test_its_words_tell_that_one_example_moves_twice_the_norm(self):
        words = MicroBatchClipping(8, 0.5).describe("example")
        assert "micro-batches of 8 on average" in words
        assert "up to twice that" in words

    @settings(max_examples=10, deadline=None)
    @given(st.integers(1, 9), st.booleans())
    def test_layers_get_equal_shares_of_the_clip_norm(self, count, by_layer):
        thresholds = MicroBatchClipping(2, 3.0, by_layer).thresholds(count if by_layer else 1)
        assert float(thresholds.norm()) == pytest.approx(3)
        assert torch.equal(thresholds, thresholds[:1].expand_as(thresholds))
