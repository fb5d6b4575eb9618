"""Adapters by name: the model is adapted once there is one, and nothing trains without."""

import pytest
import torch
from torch import nn

from trustnlp.errors import ArgumentError
from trustnlp.federated import algorithms
from trustnlp.federated.fedavg import FedAvg
from trustnlp.federated.local_training import LocalTraining
from trustnlp.federated.low_rank import LowRank, merge
from trustnlp.federated.named_lora import KINDS, ToAdapt, for_model
from trustnlp.randomness import Streams

LOCAL = LocalTraining(0.5)


def model() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))


def named(text: str) -> ToAdapt:
    found = algorithms.parse(text, rounds=3, cohort=2, local=LOCAL)
    assert isinstance(found, ToAdapt)
    return found


@pytest.mark.parametrize("name", KINDS)
def test_a_name_becomes_the_algorithm_of_the_model(name: str) -> None:
    one = model()
    found = for_model(named(f"{name}:rank=2,server_rate=0.5"), one, Streams(0))
    assert type(found) is KINDS[name].kind
    assert (found.rounds, found.cohort, found.local, found.server_rate) == (3, 2, LOCAL, 0.5)
    assert [type(layer) for layer in one] == [LowRank, nn.Tanh, LowRank]
    trained = torch.cat([each.flatten() for each in one.parameters() if each.requires_grad])
    assert not found.state(trained).get("error", torch.zeros(1)).any()


def test_layers_and_what_is_trained_as_it_is() -> None:
    one = model()
    for_model(named("lora-frozen:rank=2,layers=0+1,trained=2.*"), one, Streams(0))
    assert [name for name, each in one.named_parameters() if each.requires_grad] == ["0.b", "2.weight", "2.bias"]


def test_other_algorithms_are_as_they_were() -> None:
    plain = FedAvg(3, 2, LOCAL)
    assert for_model(plain, model(), Streams(0)) is plain


def test_without_adapters_nothing_is_trained() -> None:
    with pytest.raises(ArgumentError, match=r"made for the model by `named_lora\.for_model`"):
        named("lora-merged").state(torch.zeros(3))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lora-averaged:rank=0", "'rank' must be"),
        ("lora-averaged:alpha=-1", "'alpha' must be"),
        ("lora-averaged:mu=1", "'option of algorithm' must be one of"),
        ("lora", "'algorithm' must be one of"),
    ],
)
def test_what_is_no_adapter_is_refused(text: str, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        named(text)


@pytest.mark.parametrize(("text", "said"), [("rank=5", "at most 4"), ("layers=9", "match a linear layer")])
def test_what_does_not_fit_the_model_is_refused(text: str, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        for_model(named(f"lora-averaged:{text}"), model(), Streams(0))


def test_merged_it_answers_as_before_and_has_the_parameters_of_the_model() -> None:
    one, rows = model(), torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
    for_model(named("lora-averaged:rank=2,alpha=6"), one, Streams(0))
    with torch.no_grad():
        for layer in (one[0], one[2]):
            layer.b.normal_(generator=torch.Generator().manual_seed(2))
    before = one(rows)
    assert not torch.allclose(before, model()(rows), atol=1e-2)
    merge(one)
    torch.testing.assert_close(one(rows), before)
    assert one.state_dict().keys() == model().state_dict().keys()
    assert all(each.requires_grad for each in one.parameters())
