"""Pseudo-labels: what is learned at which threshold, from which answers, and on which words."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from convex import Regression
from few_labels import TINY, assistant, dealt, tiny

from trustnlp import models
from trustnlp.data.encoding import NO_TARGET
from trustnlp.data.perturbation import perturbed, perturbed_places
from trustnlp.errors import ArgumentError, GuaranteeError, ModelError
from trustnlp.federated import private_rounds
from trustnlp.federated.algorithm import Round
from trustnlp.federated.fedavg import FedAvg
from trustnlp.federated.fedprox import FedProx
from trustnlp.federated.flat_parameters import FlatParameters
from trustnlp.federated.local_training import LocalTraining, Visit, visit
from trustnlp.federated.population import Part, Partitioned
from trustnlp.federated.pseudo_labels import (
    CONFIDENT,
    Copies,
    PseudoLabels,
    adaptive_thresholds,
    label,
    without_labels,
)
from trustnlp.federated.scaffold import Scaffold
from trustnlp.federated.simulator import simulate
from trustnlp.models.protocol import Batch
from trustnlp.randomness import Streams

GIVEN = assistant()
TAGGED = assistant(tags=True)
TEXTS = GIVEN.train[:24]
BASE = FedAvg(1, 1, LocalTraining(0.5, 8))


def copies(model, examples=TEXTS, **more):
    return Copies(model, examples, np.random.default_rng(0), **more)


def here(model, **received):
    parameters = FlatParameters(model)
    return Visit(model, parameters, parameters.values.clone(), received, {}, 0.1, 24)


def change(algorithm, model, data, **received):
    parameters = FlatParameters(model)
    answer = visit(
        algorithm,
        model,
        parameters,
        data,
        start=parameters.values.clone(),
        received=received,
        kept={},
        number=0,
        device=0,
        streams=Streams(0),
    )
    return answer.vectors


class TestThreshold:
    @pytest.mark.parametrize("base", [BASE, FedProx(1, 1, LocalTraining(0.5, 8))])
    def test_at_one_nothing_is_learned(self, base):
        model = tiny(GIVEN)
        sent = change(PseudoLabels(base, 1.0), model, copies(model, without_labels(TEXTS)))
        assert not sent["change"].any()

    def test_at_zero_everything_is(self):
        model = tiny(GIVEN)
        data = copies(model, without_labels(TEXTS))
        losses = PseudoLabels(BASE, 0.0).loss(here(model), data.batch(range(24)))
        assert (losses > 0).all()

    def test_only_confident_texts_count_and_each_by_its_copys_loss(self):
        """The oracle: answers and losses of texts and copies by hand, one by one."""
        model = tiny(GIVEN).eval()
        data = copies(model, without_labels(TEXTS), copies=1)
        found = label(model, model.encode(TEXTS))
        threshold = float(np.median(found.confidence))
        losses = PseudoLabels(BASE, threshold, weight=0.5).loss(here(model), data.batch(range(24)))
        names = [GIVEN.labels[number] for number in found.labels]
        changed = [replace(each, text=text) for each, text in zip(without_labels(TEXTS), _texts(), strict=True)]
        targets = [replace(each, label=name) for each, name in zip(changed, names, strict=True)]
        expected = 0.5 * model.loss(model.encode(targets).batch(range(24))).detach().numpy()
        expected = np.where(found.confidence > threshold, expected, 0)
        np.testing.assert_allclose(losses.detach(), expected, rtol=1e-5)
        assert 8 <= (expected > 0).sum() <= 12

    def test_labelled_texts_are_learned_as_the_base_does(self):
        model = tiny(GIVEN).eval()
        mixed = [*TEXTS[:12], *without_labels(TEXTS[12:])]
        losses = PseudoLabels(BASE, 0.0).loss(here(model), copies(model, mixed).batch(range(24)))
        own = model.loss(model.encode(TEXTS).batch(range(24)))
        torch.testing.assert_close(losses[:12], own[:12])
        unlabelled = PseudoLabels(BASE, 1.0).loss(here(model), copies(model, mixed).batch(range(24)))
        assert not unlabelled[12:].any()


def _texts():
    """The copies that `copies(..., copies=1)` makes."""
    generator = np.random.default_rng(0)
    return [perturbed(example.text, 0.2, generator) for example in TEXTS]


def test_answers_are_those_of_the_servers_weights_throughout_a_visit():
    model = tiny(GIVEN).eval()
    data = copies(model, without_labels(TEXTS), copies=1)
    now = here(model)
    before = label(model, model.encode(TEXTS)).labels
    now.parameters.values.copy_(-3 * now.start)
    now.steps = 1
    after = label(model, model.encode(TEXTS)).labels
    assert (before != after).any()
    own = now.parameters.values.clone()
    losses = PseudoLabels(BASE, 0.0).loss(now, data.batch(range(24)))
    assert torch.equal(now.parameters.values, own)
    changed = [replace(example, text=text) for example, text in zip(TEXTS, _texts(), strict=True)]
    targets = [replace(each, label=GIVEN.labels[number]) for each, number in zip(changed, before, strict=True)]
    expected = model.loss(model.encode(targets).batch(range(24)))
    torch.testing.assert_close(losses, expected)


class TestTags:
    def test_a_copys_words_keep_the_tags_that_they_were_given(self):
        """Each word's answer is looked up by hand at the place from which it came."""
        model = tiny(TAGGED).eval()
        examples = without_labels(TAGGED.train[:24])
        data = Copies(model, examples, np.random.default_rng(0), copies=1, share=0.4)
        caught: dict[str, Batch] = {}
        losses_of = model.losses_of

        def spy(logits, batch):
            caught["batch"] = batch
            return losses_of(logits, batch)

        model.losses_of = spy
        losses = PseudoLabels(BASE, 0.0).loss(here(model), data.batch(range(24)))
        assert (losses > 0).all()
        tags = caught["batch"].targets["tags"]
        own = model.encode(examples).batch(range(24))
        scores = model.logits(own)["tags"]
        best = model.best_tags(scores, own.inputs["lengths"])
        generator = np.random.default_rng(0)
        for row, example in enumerate(examples):
            places = perturbed_places(len(example.tokens), 0.4, generator)
            assert tags[row, : len(places)].tolist() == [int(best[row, place]) for place in places]
            assert (tags[row, len(places) :] == NO_TARGET).all()

    def test_one_uncertain_word_leaves_a_texts_tags_out(self):
        model = tiny(TAGGED).eval()
        example = without_labels(TAGGED.train[:1])
        own = model.encode(example).batch([0])
        least = float(model.logits(own)["tags"].detach().softmax(-1).amax(-1).min())
        label_confidence = label(model, model.encode(example)).confidence[0]
        data = Copies(model, example, np.random.default_rng(0))
        above = max(least, label_confidence) + 1e-3
        assert not PseudoLabels(BASE, above).loss(here(model), data.batch([0])).any()
        below = min(least, label_confidence) - 1e-3
        assert PseudoLabels(BASE, below).loss(here(model), data.batch([0])).all()

    def test_a_crf_is_refused(self):
        model = models.build("bilstm", TAGGED, streams=Streams(0), crf=True, **TINY)
        data = Copies(model, without_labels(TAGGED.train[:2]), np.random.default_rng(0))
        with pytest.raises(ModelError, match="CRF"):
            PseudoLabels(BASE).loss(here(model), data.batch([0]))


class TestOfEachLabel:
    def test_thresholds_by_hand(self):
        """0.2 / 0.5 = 0.4 -> 0.4 / 1.6 = 0.25; unused texts make all of them lower at first."""
        found = adaptive_thresholds(torch.tensor([0.5, 0.2, 0.0]), 0.8)
        torch.testing.assert_close(found, torch.tensor([0.8, 0.2, 0.0]))
        early = adaptive_thresholds(torch.tensor([0.1, 0.0, 0.0]), 0.9)
        torch.testing.assert_close(early, torch.tensor([0.9 * (1 / 9) / (2 - 1 / 9), 0.0, 0.0]))

    def test_devices_tell_which_labels_they_are_confident_of(self):
        model = tiny(GIVEN)
        data, labels = copies(model, without_labels(TEXTS)), len(GIVEN.labels)
        found = label(model, model.encode(TEXTS))
        threshold = float(np.median(found.confidence))
        algorithm = PseudoLabels(BASE, threshold, labels=labels)
        sent = change(algorithm, model, data, **{CONFIDENT: torch.zeros(labels)})
        confident = found.labels[found.confidence > threshold]
        expected = np.bincount(confident, minlength=labels) / 24
        np.testing.assert_allclose(sent[CONFIDENT], expected, atol=1e-6)
        assert algorithm.sends == ("change", CONFIDENT)

    def test_the_server_keeps_a_moving_mean(self):
        algorithm = PseudoLabels(FedAvg(3, 2, LocalTraining(0.5, 8)), 0.15, labels=len(GIVEN.labels))
        model = tiny(GIVEN)
        population = Partitioned(copies(model, without_labels(TEXTS)), dealt(24, 4))
        simulate(population, model, algorithm, streams=Streams(0))
        state = algorithm.state(torch.zeros(2))
        mean = {"change": torch.ones(2), CONFIDENT: torch.full((len(GIVEN.labels),), 0.2)}
        weights = torch.zeros(2)
        algorithm.update(weights, mean, state, Round(0, 4, 2, weight=2.0))
        torch.testing.assert_close(state[CONFIDENT], torch.full((len(GIVEN.labels),), 0.01))
        assert weights.tolist() == [1.0, 1.0]

    def test_a_base_that_sends_more_still_does(self):
        algorithm = PseudoLabels(Scaffold(3, 2, LocalTraining(0.5, 8)), 0.15, labels=len(GIVEN.labels))
        model = tiny(GIVEN)
        population = Partitioned(copies(model, without_labels(TEXTS)), dealt(24, 4))
        history = simulate(population, model, algorithm, streams=Streams(0))
        assert history.rounds[-1].returned == 2


def test_copies_are_the_same_at_every_visit_and_never_change_the_text():
    model = tiny(GIVEN)
    data = copies(model, copies=3)
    first, again = data.batch([3, 5]), data.batch([3, 5])
    for name, tensor in first.inputs.items():
        assert torch.equal(tensor, again.inputs[name])
    own = model.encode(TEXTS).batch([3, 5])
    assert torch.equal(first.inputs["words"], own.inputs["words"])
    assert {name.split("/")[1] for name in first.inputs if "/" in name} == {"0", "1", "2"}
    assert len(data) == 24
    assert len(Part(data, np.array([2, 4]))) == 2


def test_what_cannot_be_learned_from_is_refused():
    model = tiny(GIVEN)
    with pytest.raises(ArgumentError, match="Copies"):
        PseudoLabels(BASE).loss(here(model), model.encode(TEXTS).batch([0]))
    with pytest.raises(ModelError, match="neither labels nor tags"):
        PseudoLabels(BASE).loss(here(Regression(3)), model.encode(TEXTS).batch([0]))
    for wrong in ({"threshold": 1.1}, {"weight": -1.0}, {"labels": 1}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            PseudoLabels(BASE, **wrong)
    with pytest.raises(ArgumentError, match="copies"):
        copies(model, copies=0)


def test_shares_of_labels_are_not_covered_by_a_plan_of_privacy():
    with pytest.raises(GuaranteeError, match="sends confident"):
        private_rounds.begin(None, PseudoLabels(BASE, labels=3), None, None, None, 4, Streams(0))
