"""What is wrapped does what it does alone."""

import pickle

import pytest
import torch
from convex import Regression, problem
from simulated import train

from trustnlp.federated.fedavg import FedAvg
from trustnlp.federated.feddyn import FedDyn
from trustnlp.federated.fednova import FedNova
from trustnlp.federated.fedopt import FedOpt
from trustnlp.federated.fedprox import FedProx
from trustnlp.federated.local_training import LocalTraining
from trustnlp.federated.scaffold import Scaffold
from trustnlp.federated.wrapped import Wrapped

PROBLEM = problem([3, 9, 4, 5, 6, 2, 7, 8], spread=0.5)
KINDS = [FedAvg, FedProx, FedOpt, Scaffold, FedNova, FedDyn]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits_as_the_base(kind):
    base = kind(6, 4, LocalTraining(0.05, 4))
    wrapped = Wrapped(Wrapped(base))
    weights, histories = [], []
    for algorithm in (base, wrapped):
        model = Regression(3)
        histories.append(train(PROBLEM, model, algorithm))
        weights.append(model.w.detach().clone())
    assert torch.equal(*weights)
    assert histories[0] == histories[1]
    assert (wrapped.remembers, wrapped.sends) == (base.remembers, base.sends)


def test_it_survives_being_sent_to_a_worker():
    wrapped = Wrapped(Scaffold(2, 3))
    assert pickle.loads(pickle.dumps(wrapped)) == wrapped  # noqa: S301
    assert pickle.loads(pickle.dumps(wrapped)).remembers  # noqa: S301
