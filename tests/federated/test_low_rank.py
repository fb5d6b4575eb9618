"""Adapters answer as dense products do, and their factors are found where they stand, PEFT's too."""

import numpy as np
import pytest
import torch
from adapted import Linear, adapted
from torch import nn

from trustnlp.errors import ArgumentError, ModelError
from trustnlp.federated.flat_parameters import FlatParameters
from trustnlp.federated.low_rank import Factors, LowRank, adapt, adapters
from trustnlp.randomness import Streams


def classifier() -> nn.Module:
    return nn.ModuleDict({"read": nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 4)), "head": nn.Linear(4, 2)})


def test_an_adapted_layer_is_one_with_the_dense_product_added() -> None:
    model, plain = adapted(2, alpha=3.0), Linear()
    dense = plain.layer.weight + 3 / 2 * model.layer.b @ model.layer.a
    inputs = torch.randn(4, 7, 3, dtype=torch.float64)
    torch.testing.assert_close(model.layer(inputs), inputs @ dense.T)


def test_a_model_answers_as_before_and_trains_what_it_was_told() -> None:
    model, streams = classifier(), Streams(0)
    inputs = torch.randn(3, 5)
    before = model["head"](model["read"](inputs))
    assert adapt(model, 2, trained=("head.*",), streams=streams) == ("read.0", "read.2")
    assert torch.equal(model["head"](model["read"](inputs)), before)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained == ["read.0.a", "read.0.b", "read.2.a", "read.2.b", "head.weight", "head.bias"]
    again = classifier()
    assert adapt(again, 1, layers=("*.2", "head"), streams=streams) == ("read.2", "head")
    assert not torch.equal(again["read"][2].a, model["read"][2].a[:1])


def test_the_first_a_is_within_its_bound_and_depends_on_the_seed_alone() -> None:
    drawn = [LowRank(nn.Linear(100, 50), 20, 1.0, Streams(seed).torch("adapters", 0)).a for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert 0.099 < drawn[0].abs().max() <= 0.1
    assert drawn[0].std().item() == pytest.approx(0.1 / np.sqrt(3), rel=0.03)


def test_factors_are_views_of_the_flat_vector() -> None:
    model = classifier()
    adapt(model, 2, alpha=4.0, trained=("head.*",), streams=Streams(0))
    model["read"][2].a.requires_grad_(False)
    model["read"][2].base.weight.requires_grad_(True)
    factors, flat = Factors.of(model), FlatParameters(model)
    assert factors.entries == len(flat)
    first, second = factors.places
    flat.values.copy_(torch.arange(float(len(flat))))
    a, b = first.views(flat.values)
    assert torch.equal(a, model["read"][0].a)
    assert torch.equal(b, model["read"][0].b)
    assert torch.equal(first.product(flat.values), 2 * model["read"][0].b @ model["read"][0].a)
    assert torch.equal(second.base_view(flat.values), model["read"][2].base.weight)
    with pytest.raises(ModelError, match=r"A of read\.2 is frozen"):
        second.views(flat.values)
    with pytest.raises(ModelError, match=r"the weight of read\.0 is frozen"):
        first.base_view(flat.values)


def test_products_lie_one_after_another() -> None:
    model = classifier()
    adapt(model, 2, streams=Streams(0))
    factors = Factors.of(model)
    vector = torch.randn(factors.entries)
    found = list(factors.matrices(factors.products(vector)))
    assert [tuple(matrix.shape) for _, matrix in found] == [(4, 5), (4, 4), (2, 4)]
    assert all(torch.equal(matrix, place.product(vector)) for place, matrix in found)


def test_adapters_of_peft_are_found_where_peft_says() -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(classifier(), peft.LoraConfig(r=2, lora_alpha=6, target_modules=["0", "2"]))
    factors, flat = Factors.of(model), FlatParameters(model)
    flat.values.copy_(torch.randn(len(flat)))
    layers = [model.base_model.model["read"][number] for number in (0, 2)]
    for place, layer in zip(factors.places, layers, strict=True):
        torch.testing.assert_close(place.product(flat.values), layer.get_delta_weight("default"))
    assert [adapter.base for adapter in adapters(model)] == [layer.base_layer for layer in layers]
    model.add_adapter("other", peft.LoraConfig(r=1, target_modules=["0"]))
    with pytest.raises(ModelError, match="several adapters"):
        list(adapters(model))
    dora = peft.get_peft_model(classifier(), peft.LoraConfig(r=2, use_dora=True, target_modules=["0"]))
    with pytest.raises(ModelError, match=r"not a product B A; use one plain LoRA adapter"):
        list(adapters(dora))


def test_what_cannot_be_adapted_is_refused() -> None:
    with pytest.raises(ArgumentError, match="'layers' must be patterns that match a linear layer"):
        adapt(classifier(), 1, layers=("nothing*",), streams=Streams(0))
    with pytest.raises(ArgumentError, match="'rank' must be at most 2, the least dimension of head, got 3"):
        adapt(classifier(), 3, streams=Streams(0))
    with pytest.raises(ArgumentError, match="'rank' must be a whole number >= 1"):
        adapt(classifier(), 0, streams=Streams(0))
    with pytest.raises(ModelError, match=r"the model has no adapters; call low_rank\.adapt first"):
        Factors.of(classifier())
