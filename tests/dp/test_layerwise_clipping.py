import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import gradients, movements, released
from small_text import Tagger, trainable
from torch import nn

from trustnlp.dp import LayerwiseClipping, PrivacyPlan, Quantile
from trustnlp.dp.layerwise_clipping import layers
from trustnlp.errors import ArgumentError


def plan_of(clip_norm, adapt=None, sigma=1.3):
    return PrivacyPlan(6, 4, 3, sigma, 1e-3, clipping=LayerwiseClipping(clip_norm, adapt))


class TestLayerwiseClipping:
    def test_every_layer_is_clipped_by_its_own_norm(self):
        data = gradients([[[3, 4], [0, 0.1], [0, 0], [8, 6]]] * 6)
        found = released(plan_of(2.0), data, [0])  # C_k = 2 / sqrt(4)
        assert [tensor.flatten().tolist() for tensor in found.sums.values()] == [
            pytest.approx(values) for values in ([0.6, 0.8], [0, 0.1], [0, 0], [0.8, 0.6])
        ]

    def test_noise_spends_the_same_on_every_layer(self):
        found = released(plan_of(2.0), gradients(torch.ones(6, 4, 2)), [0, 1])
        assert list(found.stds.values()) == pytest.approx([1.3 * math.sqrt(4) * 2 / math.sqrt(4)] * 4)

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 99), st.floats(1e-3, 1e3), st.integers(1, 5), st.booleans())
    def test_one_example_moves_the_release_by_at_most_one(self, seed, clip_norm, count, adapts):
        data = gradients(torch.randn(6, count, 3, generator=torch.Generator().manual_seed(seed)))
        plan = plan_of(clip_norm, Quantile(share=0.3) if adapts else None)
        assert max(movements(plan, data, [0, 2, 3, 5])) <= 1 + 1e-9

    @pytest.mark.parametrize("adapt", [None, Quantile(share=0.3)])
    def test_gradients_long_in_every_layer_move_it_by_one(self, adapt):
        moved = movements(plan_of(0.5, adapt), gradients([[[9, 0], [0, 9], [-9, 9]]] * 6), [1, 4])
        assert moved == pytest.approx([1, 1], rel=1e-6)

    def test_it_adapts_unless_told_otherwise(self):
        assert LayerwiseClipping().adapt == Quantile()

    @pytest.mark.parametrize("clip_norm", [0, -1, math.nan, math.inf])
    def test_bad_clip_norms_are_refused(self, clip_norm):
        with pytest.raises(ArgumentError, match="clip_norm"):
            LayerwiseClipping(clip_norm)

    def test_its_words_name_layers(self):
        assert "in each of K layers to L2 norm 2 / sqrt(K)" in LayerwiseClipping(2.0, None).describe("example")


class TestLayers:
    def test_parameters_of_a_module_are_one_layer(self):
        found = layers(model := Tagger(), trainable(model))
        by_module = {name: {found[n] for n in found if n.startswith(name)} for name in ("embedding", "lstm", "head")}
        assert by_module == {"embedding": {0}, "lstm": {1}, "head": {2}}

    def test_modules_that_share_a_parameter_are_one_layer_across_others(self):
        model = nn.Module()
        model.first, model.between, model.second = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        model.second.weight = model.first.weight
        found = layers(model, trainable(model))
        assert found["first.weight"] == found["first.bias"] == found["second.bias"] != found["between.weight"]

    def test_a_chain_of_shared_parameters_is_one_layer(self):
        model = nn.Module()
        model.a, model.b, model.c = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        model.c.weight, model.c.bias = model.a.weight, model.b.bias
        assert set(layers(model, trainable(model)).values()) == {0}

    def test_frozen_layers_are_none(self):
        model = Tagger()
        model.embedding.requires_grad_(False)
        assert set(layers(model, trainable(model)).values()) == {0, 1}
