import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import clip_of
from small_text import Tagger, Texts, flat, trainable
from torch import nn
from torch.func import functional_call, grad

from trustnlp.dp import per_unit_clipped_sum
from trustnlp.dp.clipping import Unit, examples
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.models.protocol import Batch


def clipped(model, texts, indices, clip_norm, loss=None):
    return per_unit_clipped_sum(
        model, loss or model.loss, texts, examples(indices), trainable(model), clip_of(model, clip_norm)
    )


def naive(model, texts, indices, clip_norm):
    """Another way to the same sum: torch.func, one vector per example, clipped by hand."""
    parameters = {name: parameter.detach() for name, parameter in trainable(model).items()}
    total, norms = torch.zeros(sum(p.numel() for p in parameters.values()), dtype=torch.float64), []
    for index in indices:
        batch = texts.batch([index])

        class Loss(nn.Module):
            def __init__(self, batch=batch):
                super().__init__()
                self.model, self.batch = model, batch

            def forward(self):
                return self.model.loss(self.batch)[0]

        def loss(values, module=None):
            return functional_call(module, {f"model.{name}": value for name, value in values.items()}, ())

        vector = flat(grad(loss)(parameters, Loss()))
        norm = math.sqrt(sum(float(x) ** 2 for x in vector))
        total += vector if norm <= clip_norm else vector * (clip_norm / norm)
        norms.append(norm)
    return total, norms


class TestPerUnitClippedSum:
    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, 7), st.integers(0, 99), st.floats(1e-3, 10), st.booleans())
    def test_it_is_the_naive_sum(self, count, seed, clip_norm, frozen):
        model, texts = Tagger(width=3, seed=seed), Texts.random(max(count, 1), seed)
        model.embedding.weight.requires_grad_(not frozen)
        total, norms = naive(model, texts, range(count), clip_norm)
        found = clipped(model, texts, range(count), clip_norm)
        assert torch.allclose(flat(found.gradients), total, rtol=1e-9, atol=1e-12)
        assert found.norms[:, 0].tolist() == pytest.approx(norms, rel=1e-5)

    @settings(max_examples=20, deadline=None)
    @given(st.integers(1, 6), st.integers(0, 99), st.floats(1e-3, 10))
    def test_one_more_example_moves_the_sum_by_at_most_the_clip_norm(self, count, seed, clip_norm):
        model, texts = Tagger(seed=seed), Texts.random(count, seed)
        more = flat(clipped(model, texts, range(count), clip_norm).gradients)
        less = flat(clipped(model, texts, range(count - 1), clip_norm).gradients)
        assert float((more - less).norm()) <= clip_norm * (1 + 1e-9)

    def test_mean_loss_is_that_of_the_examples(self):
        model, texts = Tagger(), Texts.random(5)
        expected = model.loss(texts.batch([1, 3, 4])).mean().item()
        assert clipped(model, texts, [1, 3, 4], 1.0).mean_loss == pytest.approx(expected)

    def test_no_example_gives_zeros(self):
        found = clipped(Tagger(), Texts.random(2), [], 1.0)
        assert not flat(found.gradients).any()
        assert found.norms.shape == (0, 1)
        assert math.isnan(found.mean_loss)

    def test_a_gradient_of_zero_stays_zero(self):
        model, texts = Tagger(), Texts.random(2)
        found = clipped(model, texts, [0, 1], 1.0, loss=lambda batch: 0 * model.loss(batch))
        assert not flat(found.gradients).any()

    def test_a_gradient_within_the_norm_is_left_alone(self):
        model, texts = Tagger(), Texts.random(1)
        model.loss(texts.batch([0])).sum().backward()
        expected = torch.cat([p.grad.flatten() for p in model.parameters()])
        assert torch.allclose(flat(clipped(model, texts, [0], 1e6).gradients), expected, rtol=1e-12)

    def test_parameters_that_the_loss_does_not_reach_get_zero(self):
        model, texts = Tagger(), Texts.random(2)
        model.unused = nn.Linear(3, 3).double()
        found = clipped(model, texts, [0, 1], 1.0)
        assert not found.gradients["unused.weight"].any()
        assert found.gradients["head.weight"].any()

    def test_tied_weights_count_once_with_both_uses(self):
        class Tied(nn.Module):
            def __init__(self):
                super().__init__()
                self.embedding = nn.Embedding(11, 4)
                self.head = nn.Linear(4, 11, bias=False)
                self.head.weight = self.embedding.weight

            def loss(self, batch):
                scores = self.head(self.embedding(batch.inputs["ids"]).sum(1))
                return nn.functional.cross_entropy(scores, batch.inputs["ids"][:, 0], reduction="none")

        model, texts = Tied().double(), Texts.random(1)
        weight = model.embedding.weight.detach().clone().requires_grad_()
        ids = texts.batch([0]).inputs["ids"]
        scores = nn.functional.embedding(ids, weight).sum(1) @ weight.T
        nn.functional.cross_entropy(scores, ids[:, 0]).backward()
        found = clipped(model, texts, [0], 1e6)
        assert list(found.gradients) == ["embedding.weight"]
        assert torch.allclose(found.gradients["embedding.weight"], weight.grad)
        assert float(found.norms[0]) == pytest.approx(float(weight.grad.norm()))

    def test_embeddings_are_left_as_they_were(self):
        model = Tagger()
        with pytest.raises(GuaranteeError):
            clipped(model, Texts.random(1), [0], 1.0, loss=lambda batch: model.loss(batch) * math.nan)
        assert model.embedding.sparse is False

    def test_sparse_embeddings_give_dense_sums(self):
        dense, sparse, texts = Tagger(), Tagger(), Texts.random(4)
        sparse.embedding.sparse = True
        one, other = (flat(clipped(model, texts, range(4), 0.1).gradients) for model in (dense, sparse))
        assert torch.allclose(one, other)

    def test_half_precision_is_summed_in_single(self):
        model, texts = Tagger().bfloat16(), Texts.random(3)
        found = clipped(model, texts, range(3), 0.1)
        assert all(gradient.dtype is torch.float32 for gradient in found.gradients.values())
        assert float(flat(found.gradients).norm()) <= 0.3 * (1 + 1e-6)

    @pytest.mark.parametrize("poison", [math.nan, math.inf])
    def test_what_is_not_finite_is_refused(self, poison):
        model, texts = Tagger(), Texts.random(2)
        with pytest.raises(GuaranteeError, match="no clipping bounds"):
            clipped(model, texts, [0, 1], 1.0, loss=lambda batch: model.loss(batch) * poison)

    def test_a_finite_loss_with_an_infinite_gradient_is_refused(self):
        model, texts = Tagger(), Texts.random(1)

        def loss(batch: Batch):
            return (0 * model.head.bias).abs().sqrt().sum() + model.loss(batch)  # slope of sqrt at 0

        with pytest.raises(GuaranteeError, match="no clipping bounds"):
            clipped(model, texts, [0], 1.0, loss=loss)

    @pytest.mark.parametrize("clip_norm", [0.0, -1.0, math.nan, math.inf, 1e-50])
    def test_bad_clip_norms_are_refused(self, clip_norm):
        with pytest.raises(ArgumentError, match="clip_norm"):
            clipped(Tagger(), Texts.random(1), [0], clip_norm)


class TestLargeUnits:
    @pytest.mark.parametrize("physical_batch", [1, 3, 7, 99])
    def test_parts_of_a_unit_are_clipped_as_one(self, physical_batch):
        model, texts, sizes = Tagger(), Texts.random(9), []

        def loss(batch):
            sizes.append(len(batch))
            return model.loss(batch)

        units = [Unit(np.arange(7), 0.5), Unit(np.array([], int)), Unit(np.array([7, 8]))]
        arguments = (texts, units, trainable(model), clip_of(model, 0.1))
        found = per_unit_clipped_sum(model, loss, *arguments, physical_batch)
        assert max(sizes) <= physical_batch
        whole = per_unit_clipped_sum(model, model.loss, *arguments)
        assert torch.allclose(flat(found.gradients), flat(whole.gradients), rtol=1e-12)
        assert torch.allclose(found.norms, whole.norms, rtol=1e-6)
        assert found.mean_loss == pytest.approx(whole.mean_loss)
