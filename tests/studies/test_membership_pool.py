from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from trustnlp import data, models
from trustnlp.attacks import lira, membership, rmia
from trustnlp.data.membership_split import normalise
from trustnlp.dp import PrivacyPlan
from trustnlp.errors import ArgumentError, CorpusError, GuaranteeError
from trustnlp.models.many import run_jobs
from trustnlp.progress import silent
from trustnlp.randomness import Streams
from trustnlp.studies import membership_pool
from trustnlp.studies.membership_pool import (
    Pool,
    Training,
    attacked,
    coins,
    joint,
    losses_by_answer,
    pool,
    scores,
    train,
)


def seeded(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def small(table) -> Pool:
    corpus = data.load(str(table))
    return pool(corpus, 60, 20, seeded())


def plan_for(small: Pool) -> PrivacyPlan:
    return PrivacyPlan(small.places, 8, steps=3, noise_multiplier=1.0, delta=1e-4)


# The design


def test_pool_and_outside_are_distinct_texts_that_occur_once(table):
    corpus = data.load(str(table))
    twice = replace(corpus, train=(*corpus.train, replace(corpus.train[0], text=corpus.train[0].text.upper())))
    found = pool(twice, 10_000, 30, seeded())
    texts = [normalise(example.text) for example in (*found.texts, *found.outside)]
    assert len(set(texts)) == len(texts)
    assert normalise(corpus.train[0].text) not in texts
    assert len(found.texts) == 3 * (len(corpus.train) - 1) // 4
    assert len(found.outside) == 30
    assert pool(twice, 10_000, 30, seeded()) == found
    with pytest.raises(CorpusError, match="occur once"):
        pool(replace(corpus, train=corpus.train[:5]), 10, 2, seeded())


def test_coins_are_fair_independent_and_come_in_opposites():
    found = coins(6, 20_000, seeded())
    assert (found[::2] == ~found[1::2]).all()
    assert found[::2].mean(axis=1) == pytest.approx(np.full(3, 0.5), abs=0.015)
    assert np.corrcoef(found[::2])[np.triu_indices(3, 1)] == pytest.approx(np.zeros(3), abs=0.03)
    assert len(set(found[::2].sum(1))) == 3  # not exactly half: that would not be independent coins
    for count in (4, 7, 0):
        with pytest.raises(ArgumentError, match="even number"):
            coins(count, 10, seeded())


def test_a_target_stands_against_all_but_itself_and_its_opposite():
    inside = coins(6, 40, seeded())
    losses = np.arange(6)[:, None] + np.zeros((6, 50))
    case = attacked(losses, inside, 3)
    assert set(case.losses) == set(case.population) == {3.0}
    assert case.shadows[:, 0].tolist() == case.population_shadows[:, 0].tolist() == [0, 1, 4, 5]
    assert (case.inside == inside[[0, 1, 4, 5]]).all()
    assert (case.inside.sum(0) == 2).all()  # whichever side of the target a text is on
    assert case.population.shape == (10,)


def test_scores_are_those_of_each_target_alone():
    generator, inside = seeded(), coins(8, 200, seeded(1))
    losses = np.logaddexp(0, -generator.normal(size=(8, 260)))
    found = scores(losses, inside)
    case = attacked(losses, inside, 5)
    expected = {
        "loss": membership.loss_score(case.losses),
        "rmia": rmia.score(case.losses, case.shadows, case.inside, case.population, case.population_shadows),
        "lira": lira.score(case.losses, case.shadows, case.inside),
    }
    assert {name: (of[5] == expected[name]).all() for name, of in found.items()} == dict.fromkeys(expected, True)


def test_leaving_out_the_target_alone_would_tell_the_answer():
    """The planted mistake that the pairs exist for: losses that know nothing, and an attack that counts."""
    inside = coins(8, 2000, seeded())
    counted = [(-np.delete(inside, k, 0).sum(0), inside[k]) for k in range(8)]
    assert all(membership.auc(of[seen], of[~seen])[0] == 1.0 for of, seen in counted)
    paired = [(-attacked(inside * 1.0, inside, k).inside.sum(0), inside[k]) for k in range(8)]
    assert all(membership.auc(of[seen], of[~seen])[0] == 0.5 for of, seen in paired)


def test_without_a_leak_nothing_is_found():
    losses = np.logaddexp(0, -seeded().normal(size=(8, 4500)) - 3 * seeded(1).normal(size=4500))
    inside = coins(8, 4000, seeded(2))
    for of in scores(losses, inside).values():
        assert np.mean([membership.auc(one[seen], one[~seen])[0] for one, seen in zip(of, inside, strict=True)]) == (
            pytest.approx(0.5, abs=0.01)
        )


# Training


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("private", [False, True])
def test_models_are_trained_on_their_side_of_the_coins_and_scored_on_everything(small, tmp_path, private, monkeypatch):
    monkeypatch.setattr(membership_pool, "run_jobs", partial(run_jobs, way="serial"))  # workers take seconds to start
    inside = coins(6, len(small.texts), seeded())
    training = Training(small, "bilstm", plan_for(small) if private else None)
    found = train(training, inside, Streams(0), tmp_path, silent, "models")
    assert set(found) == {"label", "accuracy"}
    assert found["label"].shape == (6, 80)
    assert joint(found).tolist() == found["label"].tolist()
    assert len({tuple(row) for row in found["label"].round(12)}) == 6
    again = train(training, inside, Streams(0), tmp_path, silent, "models")
    assert again["label"].tolist() == found["label"].tolist()


@pytest.mark.usefixtures("hasty")
def test_a_text_that_is_left_out_changes_nothing_but_its_own_gradient(small, monkeypatch):
    """Two sides that differ in one text have the same plan, draws and noise: only places hold less."""
    seen, fitted = [], []
    monkeypatch.setattr(
        membership_pool, "fit", lambda model, encoded, sampler, step, streams: seen.append((encoded, sampler))
    )
    plan = plan_for(small)
    training = Training(small, "bilstm", plan)
    for examples in (small.texts[:30], small.texts[:29]):
        fitted.append(membership_pool._private(training, plan, examples, Streams(0)))
    (first, draws), (second, other_draws) = seen
    assert len(first) == len(second) == small.places
    assert draws == other_draws
    model = fitted[0].eval()
    missing = second.batch([29])
    loss = model.loss(missing)
    assert loss.item() == 0
    assert all(gradient.abs().max() == 0 for gradient in torch.autograd.grad(loss.sum(), model.parameters()))
    with pytest.raises(GuaranteeError, match="heads"):
        membership_pool._private(training, plan, (*small.texts, *small.texts), Streams(0))


def test_places_suffice_for_nearly_all_coins(small):
    heads = coins(20_000, len(small.texts), seeded()).sum(1)
    assert heads.max() <= small.places < len(small.texts)


def test_losses_by_answer_add_up_to_the_models_loss(small):
    model = models.build("bilstm", small.corpus, streams=Streams(0), width=8, hidden=8)
    encoded = model.encode(small.texts)
    assert sum(losses_by_answer(model, encoded).values()) == pytest.approx(models.losses(model, encoded))
