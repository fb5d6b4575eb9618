"""A server that trains, too: on a convex problem its steps are known; with few labels it beats training alone."""

import pickle
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from convex import Regression, problem
from few_labels import assistant, dealt, few_of_each, tiny
from simulated import train

from trustnlp.errors import ArgumentError
from trustnlp.federated.fedavg import FedAvg
from trustnlp.federated.local_training import LocalTraining
from trustnlp.federated.population import Part, Partitioned
from trustnlp.federated.pseudo_labels import Copies, PseudoLabels, without_labels
from trustnlp.federated.server_steps import ServerSteps, train_alone
from trustnlp.federated.simulator import simulate
from trustnlp.models.evaluation import evaluate
from trustnlp.randomness import Streams

PROBLEM = problem([3, 9, 4, 5, 6, 2, 7, 8], spread=0.5)
OWN = Part(problem([10], seed=5).rows, np.arange(10))
FULL = LocalTraining(0.1, 16)  # one step of gradient descent over all texts


def alternating(base, steps=FULL):
    return ServerSteps(base, Regression(3), OWN, steps, Streams(0))


def trained(algorithm, **more):
    model = Regression(3)
    history = train(PROBLEM, model, algorithm, **more)
    return model.w.detach().clone(), history


def descended(w):
    x, y = OWN.whole.x, OWN.whole.y
    return w - 0.1 * x.T @ (x @ w - y) / len(y)


def test_a_round_is_the_bases_and_then_a_step_on_the_servers_texts():
    base = FedAvg(1, 8, FULL)
    expected = descended(trained(base)[0].numpy())
    np.testing.assert_allclose(trained(alternating(base))[0], expected, rtol=1e-12)


def test_alone_it_is_descent_on_the_servers_texts():
    model = Regression(3)
    train_alone(model, OWN, replace(FULL, steps=2), Streams(0))
    np.testing.assert_allclose(model.w.detach(), descended(descended(np.zeros(3))), rtol=1e-12)


def test_killed_and_resumed_or_on_two_workers_it_has_the_same_bits(tmp_path):
    """Workers get neither the server's texts nor its model."""
    local = LocalTraining(0.05, 2)
    whole, history = trained(alternating(FedAvg(6, 4, local), local))

    def stop(stage, done, total, figures):
        if done == 3:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        trained(alternating(FedAvg(6, 4, local), local), folder=tmp_path, checkpoint_every=1, progress=stop)
    resumed, _ = trained(alternating(FedAvg(6, 4, local), local), folder=tmp_path)
    assert torch.equal(resumed, whole)
    sent = pickle.loads(pickle.dumps(alternating(FedAvg(6, 4, local), local)))  # noqa: S301
    assert (sent.model, sent.labelled) == (None, None)
    several, again = trained(alternating(FedAvg(6, 4, local), local), workers=2)
    assert torch.equal(several, whole)
    assert again == history


def test_a_server_without_texts_is_refused():
    nothing = Part(OWN.whole, np.arange(0))
    with pytest.raises(ArgumentError, match="labelled"):
        ServerSteps(FedAvg(1, 1), Regression(3), nothing, FULL, Streams(0))
    with pytest.raises(ArgumentError, match="labelled"):
        train_alone(Regression(3), nothing, FULL, Streams(0))


@pytest.mark.slow
def test_with_few_labels_alternating_beats_the_server_alone():
    """As many steps on labels in both; only the alternating one also sees texts that nobody has labelled."""
    given, streams, rounds = assistant(6000), Streams(0), 30
    few, rest = few_of_each(given.train, 6)
    own = LocalTraining(0.2, 16, momentum=0.9, steps=10)
    both = tiny(given, dropout=0.4, word_dropout=0.2)
    labelled = both.encode(few, for_training=True)
    train_alone(both, labelled, replace(own, steps=100), streams)
    alone = deepcopy(both)
    train_alone(alone, labelled, replace(own, steps=rounds * own.steps), streams.child("alone"))
    texts = Copies(both, without_labels(rest[:1600]), streams.numpy("copies"), copies=8, share=0.3)
    devices = FedAvg(rounds, 8, LocalTraining(0.15, 16, momentum=0.9))
    answered = PseudoLabels(devices, threshold=0.9, labels=len(given.labels))
    algorithm = ServerSteps(answered, both, labelled, own, streams)
    simulate(Partitioned(texts, dealt(len(texts), 20)), both, algorithm, streams=streams)
    unseen = [*given.valid, *given.test]
    figures = [evaluate(model, model.encode(unseen))["accuracy"] for model in (alone, both)]
    assert figures[1] > figures[0] + 0.03
