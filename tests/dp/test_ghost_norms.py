import itertools

import pytest
import torch
from rows import normal, whole

from trustnlp.dp import ghost_norms
from trustnlp.dp.ghost_norms import Lookups, OuterProducts, Scales, gram_is_cheaper, inner_products


def one_hot(ids, rows):
    return torch.nn.functional.one_hot(ids, rows).double()


class TestOuterProducts:
    @pytest.mark.parametrize(
        ("length", "inputs", "outputs", "biases"), list(itertools.product([1, 3, 30], [2, 40], [5, 60], [0, 1, 2]))
    )
    def test_norms_and_sums_are_those_of_the_matrices(self, length, inputs, outputs, biases):
        a, g, factors = normal(4, length, inputs), normal(4, length, outputs, seed=1), normal(4, seed=2)
        matrices, vectors = torch.einsum("btp,btd->bpd", g, a), g.sum(1)
        products, total = OuterProducts(a, g, biases), normal(outputs, inputs)
        expected = matrices.square().sum((1, 2)) + biases * vectors.square().sum(1)
        assert torch.allclose(products.squared_norms(), expected)
        products.add_matrix(total, factors)
        assert torch.allclose(total, normal(outputs, inputs) + torch.einsum("b,bpd->pd", factors, matrices))
        assert torch.allclose(products.vector(factors), factors @ vectors)

    @pytest.mark.parametrize("form", ["gram", "instantiate", "tiled"])
    @pytest.mark.parametrize(("inputs", "outputs", "biases"), [(3, 9, 1), (9, 3, 0), (4, 4, 2)])
    def test_all_forms_are_equal(self, form, inputs, outputs, biases, monkeypatch):
        monkeypatch.setitem(ghost_norms._TILE, "cpu", 3 * 8 * inputs * outputs)  # three of seven at a time
        a, g, factors = normal(7, 5, inputs), normal(7, 5, outputs, seed=1), normal(7, seed=2)
        matrices, total = torch.einsum("btp,btd->bpd", g, a), normal(outputs, inputs)
        products = OuterProducts(a, g, biases, choose=lambda *_: form)
        expected = matrices.square().sum((1, 2)) + biases * g.sum(1).square().sum(1)
        assert torch.allclose(products.squared_norms(), expected)
        products.add_matrix(total, factors)
        assert torch.allclose(total, normal(outputs, inputs) + torch.einsum("b,bpd->pd", factors, matrices))

    def test_products_that_others_need_are_not_changed(self):
        a, g = normal(4, 2, 30), normal(4, 2, 40, seed=1)
        shared = a @ a.mT
        before = shared.clone()
        products = OuterProducts(a, g, 1, lambda: shared)
        assert torch.allclose(products.squared_norms(), OuterProducts(a, g, 1).squared_norms())
        assert torch.equal(shared, before)

    def test_biases_alone(self):
        g, factors, total = normal(4, 3, 5), normal(4, seed=2), torch.zeros(0)
        products = OuterProducts(None, g, 2)
        assert torch.allclose(products.squared_norms(), 2 * g.sum(1).square().sum(1))
        products.add_matrix(total, factors)
        assert torch.allclose(products.vector(factors), factors @ g.sum(1))

    @pytest.mark.parametrize(("length", "cheaper"), [(1, True), (64, True), (191, True), (192, False), (2000, False)])
    def test_pairs_are_cheaper_for_short_texts(self, length, cheaper):
        assert gram_is_cheaper(length, 384, 384) is cheaper

    def test_neither_form_is_larger_than_what_backward_has_left(self):
        for length, inputs, outputs in itertools.product([1, 5, 60, 500], [1, 8, 90], [1, 8, 90]):
            held = length * (inputs + outputs)
            cheaper = gram_is_cheaper(length, inputs, outputs)
            assert (length**2 if cheaper else inputs * outputs) <= held

    def test_where_large_terms_cancel_the_norm_is_not_too_small(self):
        """In float32 pairs may sum to less than the truth; clipped by too small a norm, an example stays too long."""
        generator = torch.Generator().manual_seed(0)
        a = 1 + 1e-4 * torch.randn(2000, 6, 40, generator=generator)
        g = torch.randn(2000, 6, 30, generator=generator)
        g -= g.mean(1, keepdim=True)
        true = torch.einsum("btp,btd->bpd", g.double(), a.double()).square().sum((1, 2))
        plain = ((a @ a.mT) * (g @ g.mT)).sum((1, 2))
        assert bool((plain < 0.99 * true).any())
        assert gram_is_cheaper(6, 40, 30)
        assert bool((OuterProducts(a, g, 0).squared_norms() >= 0.999 * true).all())


class TestLookups:
    @pytest.mark.parametrize(("length", "rows", "width"), [(1, 7, 2), (6, 7, 8), (6, 7, 3), (9, 4, 3)])
    def test_norms_and_sums_are_those_of_the_matrices(self, length, rows, width):
        ids, g, factors = whole(4, length, below=rows), normal(4, length, width), normal(4, seed=2)
        matrices = torch.einsum("btv,btd->bvd", one_hot(ids, rows), g)
        lookups, total = Lookups(ids, g, rows), normal(rows, width)
        assert torch.allclose(lookups.squared_norms(), matrices.square().sum((1, 2)))
        lookups.add_matrix(total, factors)
        assert torch.allclose(total, normal(rows, width) + torch.einsum("b,bvd->vd", factors, matrices))


@pytest.mark.parametrize("bias", [True, False])
def test_scales(bias):
    x, g, factors = normal(4, 5, 3), normal(4, 5, 3, seed=1), normal(4, seed=2)
    scales = Scales(x, g, bias)
    parts = [(x * g).sum(1), g.sum(1)] if bias else [(x * g).sum(1)]
    assert torch.allclose(scales.squared_norms(), torch.cat(parts, 1).square().sum(1))
    found = scales.vectors(factors)
    assert all(torch.allclose(one, factors @ part) for one, part in zip(found, parts, strict=False))
    assert (found[1] is None) is not bias


def test_inner_products():
    ids, g, a, out = whole(4, 3, below=7), normal(4, 3, 2), normal(4, 5, 2, seed=1), normal(4, 5, 7, seed=2)
    one, other = torch.einsum("btv,btd->bvd", one_hot(ids, 7), g), torch.einsum("bsv,bsd->bvd", out, a)
    assert torch.allclose(inner_products(Lookups(ids, g, 7), OuterProducts(a, out, 1)), (one * other).sum((1, 2)))
    assert not inner_products(Lookups(ids, g, 7), OuterProducts(None, out, 1)).any()
