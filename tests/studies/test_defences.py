from dataclasses import replace

import numpy as np
import pytest
import torch

from trustnlp.data import synthetic
from trustnlp.errors import ArgumentError
from trustnlp.randomness import Streams
from trustnlp.studies import defences
from trustnlp.studies.defences import Defence, train

CORPUS = synthetic.corpus(size=300, canaries=False)


def trained(defence: Defence, epochs: int, seed: int = 0) -> defences.Trained:
    plan = defence.plan(len(CORPUS.train))
    valid = CORPUS.valid[:40]
    return train(defence, CORPUS, CORPUS.train, valid, epochs=epochs, streams=Streams(seed), plan=plan)


def weights(found: defences.Trained) -> np.ndarray:
    return np.concatenate([p.detach().numpy().ravel() for p in found.model.parameters()])


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defences, "_SHAPE", {"hidden": 8, "width": 8, "buckets": 256, "word_dropout": 0.0})
    monkeypatch.setattr(defences, "PATIENCE", 1)


def test_a_defence_is_named_by_what_is_switched_on() -> None:
    assert str(Defence()) == "none"
    assert str(Defence(dropout=True, characters=True)) == "dropout + characters"
    assert str(Defence(epsilon=8.0)) == "privacy, epsilon 8"


def test_privacy_stands_on_its_own() -> None:
    with pytest.raises(ArgumentError, match="'epsilon' must be on its own"):
        Defence(dropout=True, epsilon=8.0)
    with pytest.raises(ArgumentError, match="epsilon"):
        Defence(epsilon=0.0)


def test_stopping_early_gives_what_so_many_epochs_give() -> None:
    stopped = trained(Defence(early_stopping=True), 12)
    assert 1 <= stopped.epochs < 12
    assert np.array_equal(weights(stopped), weights(trained(Defence(), stopped.epochs)))
    assert trained(Defence(), 2).epochs == 2


def test_each_defence_changes_the_training_it_names() -> None:
    plain = trained(Defence(), 1)
    dropped = trained(Defence(dropout=True), 1)
    assert not np.array_equal(weights(plain), weights(dropped))
    assert dropped.model.backbone.dropout.p == 0.5
    assert plain.model.backbone.dropout.p == 0.0
    assert trained(Defence(characters=True), 1).model.backbone.words.char_filters == defences.FILTERS


def test_a_private_training_keeps_its_budget() -> None:
    plan = Defence(epsilon=8.0).plan(200)
    assert plan is not None
    assert 0.99 * 8 <= plan.epsilon() <= 8
    assert plan.delta < 1 / 200
    assert Defence().plan(200) is None


def test_a_private_training_follows_its_plan() -> None:
    plan = replace(Defence(epsilon=8.0).plan(len(CORPUS.train)), steps=3)
    found = train(Defence(epsilon=8.0), CORPUS, CORPUS.train, (), epochs=99, streams=Streams(0), plan=plan)
    assert found.epochs == 1
    assert torch.isfinite(torch.from_numpy(weights(found))).all()
