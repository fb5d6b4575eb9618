"""Reactions as labels: planted noise is recovered, corrected losses are unbiased and uncorrected ones are not."""

import numpy as np
import pytest
import torch
from few_labels import assistant, dealt, few_of_each, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from trustnlp.data.encoding import NO_TARGET
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.federated.fedavg import FedAvg
from trustnlp.federated.flat_parameters import FlatParameters
from trustnlp.federated.implicit_feedback import (
    REACTIONS,
    ImplicitFeedback,
    NoiseModel,
    WithFeedback,
    accuracy,
    corrected_losses,
    estimate,
)
from trustnlp.federated.local_training import LocalTraining, Visit
from trustnlp.federated.population import Partitioned
from trustnlp.federated.pseudo_labels import label, without_labels
from trustnlp.federated.server_steps import train_alone
from trustnlp.federated.simulator import simulate
from trustnlp.models.evaluation import evaluate
from trustnlp.randomness import Streams

NOISE = NoiseModel(right=(0.05, 0.05, 0.5, 0.4), wrong=(0.45, 0.2, 0.05, 0.3))
SURE = NoiseModel((0.0, 1.0), (1.0, 0.0), ("rephrase", "accept"))
BASE = FedAvg(1, 1, LocalTraining(0.5, 8))


def seeded(seed=0):
    return np.random.default_rng(seed)


class TestNoiseModel:
    def test_reactions_are_drawn_as_it_says(self):
        right = np.arange(40_000) % 2 == 0
        drawn = NOISE.draw(right, seeded())
        for side, expected in ((right, NOISE.right), (~right, NOISE.wrong)):
            shares = np.bincount(drawn[side], minlength=4) / side.sum()
            np.testing.assert_allclose(shares, expected, atol=0.012)  # over 4 standard deviations

    @settings(max_examples=50)
    @given(st.integers(0, 10_000), st.integers(2, 6))
    def test_weights_tell_right_from_wrong_in_the_mean(self, seed, reactions):
        wrong, right = seeded(seed).dirichlet(np.ones(reactions), 2)
        noise = NoiseModel(tuple(right), tuple(wrong), tuple("abcdef"[:reactions]))
        np.testing.assert_allclose(noise.table @ noise.weights, np.eye(2), atol=1e-6)

    def test_information_by_hand(self):
        assert NOISE.information == pytest.approx((0.4 + 0.15 + 0.45 + 0.1) / 2)
        assert SURE.information == 1

    def test_reactions_that_say_nothing_are_refused(self):
        with pytest.raises(GuaranteeError, match="alike"):
            NoiseModel((0.25,) * 4, (0.25,) * 4)

    @pytest.mark.parametrize(
        ("right", "wrong", "names"),
        [((0.5, 0.6), (1.0, 0.0), "ab"), ((1.0,), (0.5, 0.5), "ab"), ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), "abc")],
    )
    def test_what_is_no_noise_model_is_refused(self, right, wrong, names):
        with pytest.raises(ArgumentError):
            NoiseModel(right, wrong, tuple(names))


class TestCorrection:
    LABELS = 4

    def simulated(self, truth, seed, draws=200_000):
        """Losses of one text by label; answers at random, so that wrong ones are spread evenly; reactions to them."""
        generator = seeded(seed)
        scores = torch.from_numpy(generator.normal(size=self.LABELS))
        answers = generator.integers(self.LABELS, size=draws)
        reactions = NOISE.draw(answers == truth, generator)
        return scores.expand(draws, -1), torch.from_numpy(answers), torch.from_numpy(reactions)

    @pytest.mark.parametrize("truth", range(4))
    def test_backward_is_unbiased_for_the_loss_of_the_true_label(self, truth):
        scores, answers, reactions = self.simulated(truth, truth)
        losses = corrected_losses(scores, answers, reactions, NOISE, "backward").numpy()
        expected = float(F.cross_entropy(scores[0], torch.tensor(truth)))
        error = losses.std() / np.sqrt(len(losses))
        assert losses.mean() == pytest.approx(expected, abs=4 * error)
        assert 4 * error < 0.1

    def test_taking_reactions_at_their_word_is_biased(self):
        """Accepted or passed over in silence counts as right: the mean is off by far more than chance."""
        biases = []
        for truth in range(self.LABELS):
            scores, answers, reactions = self.simulated(truth, truth)
            believed = torch.isin(reactions, torch.tensor([2, 3])).long()
            naive = corrected_losses(scores, answers, believed, SURE, "backward")
            expected = float(F.cross_entropy(scores[0], torch.tensor(truth)))
            error = float(naive.std()) / np.sqrt(len(naive))
            biases.append(abs(float(naive.mean()) - expected) / error)
        assert min(biases) > 10
        assert max(biases) > 50

    def test_a_mean_over_all_answers_and_reactions_is_exact(self):
        """The expectation itself, without simulation: 1 / K for each answer and the noise model for each reaction."""
        scores = torch.from_numpy(seeded(1).normal(size=self.LABELS))
        answers = torch.arange(4).repeat_interleave(4)
        reactions = torch.arange(4).repeat(4)
        losses = corrected_losses(scores.expand(16, -1), answers, reactions, NOISE, "backward")
        chance = torch.from_numpy(NOISE.table)[(answers == 2).long(), reactions] / 4
        assert float((chance * losses).sum()) == pytest.approx(float(F.cross_entropy(scores, torch.tensor(2))))

    def test_forward_is_the_likelihood_of_the_reaction(self):
        scores = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64)
        p = scores.softmax(-1)[0, 2]
        for reaction in range(4):
            found = corrected_losses(scores, torch.tensor([2]), torch.tensor([reaction]), NOISE)
            expected = -torch.log(NOISE.right[reaction] * p + NOISE.wrong[reaction] * (1 - p))
            torch.testing.assert_close(found[0], expected)

    def test_forward_is_least_at_the_truth_whatever_wrong_answers_stand_for(self):
        """A deployed model that errs in its own way: the minimum over all models is at the chance of each label."""
        truth = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
        deployed = torch.tensor([0.2, 0.1, 0.7], dtype=torch.float64)
        table = torch.from_numpy(NOISE.table)
        answers, reactions = torch.arange(3).repeat_interleave(4), torch.arange(4).repeat(3)
        right = truth[answers]
        chance = deployed[answers] * (right * table[1, reactions] + (1 - right) * table[0, reactions])
        scores = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS([scores], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-12)

        def risk():
            optimiser.zero_grad()
            value = (chance * corrected_losses(scores.expand(12, -1), answers, reactions, NOISE)).sum()
            value.backward()
            return value

        optimiser.step(risk)
        torch.testing.assert_close(scores.detach().softmax(-1), truth, atol=1e-4, rtol=0)

    def test_a_sure_model_stays_finite(self):
        scores = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
        losses = corrected_losses(scores, torch.tensor([0]), torch.tensor([0]), NOISE)
        losses.sum().backward()
        assert torch.isfinite(losses).all()
        assert torch.isfinite(scores.grad).all()

    def test_other_corrections_are_refused(self):
        with pytest.raises(ArgumentError, match="correction"):
            corrected_losses(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([0]), NOISE, "sideways")


class TestEstimate:
    def test_a_planted_noise_model_is_recovered(self):
        right = seeded().random(4000) < 0.7
        found = estimate(right, NOISE.draw(right, seeded(1)), seeded(2))
        np.testing.assert_allclose(found.noise.table, NOISE.table, atol=0.05)
        assert found.p_value < 0.001
        assert found.audited == (right.sum(), (~right).sum())

    def test_intervals_hold_all_at_once(self):
        held = 0
        for seed in range(40):
            right = seeded(seed).random(120) < 0.7
            found = estimate(right, NOISE.draw(right, seeded(seed + 1000)), seeded(2))
            held += all(
                NOISE.right[place] in of_right and NOISE.wrong[place] in of_wrong
                for place, (of_right, of_wrong) in enumerate(found.intervals[name] for name in REACTIONS)
            )
        assert held >= 36  # 0.95 or more of 40 expected, as exact intervals of shares hold more often than they say

    def test_reactions_without_information_are_refused_as_often_as_the_level_says(self):
        refused = 0
        for seed in range(40):
            right = seeded(seed).random(100) < 0.6
            silent = seeded(seed + 500).choice(4, 100, p=[0.1, 0.2, 0.3, 0.4])
            try:
                estimate(right, silent, seeded(seed))
            except GuaranteeError as refusal:
                refused += "nothing to do with" in str(refusal)
        assert refused >= 33  # 0.95 of 40 expected; fewer happen in 1 of 1000

    def test_too_small_a_sample_is_refused(self):
        right = np.arange(100) < 95
        with pytest.raises(GuaranteeError, match="95 right and 5 wrong"):
            estimate(right, NOISE.draw(right, seeded()), seeded())
        with pytest.raises(ArgumentError, match="reactions"):
            estimate([True, False], [0, 9], seeded())


def test_accuracy_by_reactions_alone():
    right = seeded().random(5000) < 0.8
    found = accuracy(NOISE.draw(right, seeded(1)), NOISE)
    assert found.low < right.mean() < found.high
    assert found.value == pytest.approx(right.mean(), abs=0.04)
    assert accuracy([1] * 50, SURE).value == 1


class TestTraining:
    GIVEN = assistant()
    TEXTS = GIVEN.train[:24]

    def here(self, model):
        parameters = FlatParameters(model)
        return Visit(model, parameters, parameters.values.clone(), {}, {}, 0.1, 24)

    def test_labels_where_there_are_some_and_reactions_elsewhere(self):
        model = tiny(self.GIVEN).eval()
        mixed = [*self.TEXTS[:8], *without_labels(self.TEXTS[8:])]
        answers, reactions = seeded().integers(len(self.GIVEN.labels), size=24), seeded(1).integers(4, size=24)
        reactions[20:] = NO_TARGET
        batch = WithFeedback(model.encode(mixed), answers, reactions).batch(range(24))
        losses = ImplicitFeedback(BASE, NOISE, weight=2.0).loss(self.here(model), batch)
        plain = model.encode(self.TEXTS).batch(range(24))
        torch.testing.assert_close(losses[:8], model.loss(plain)[:8])
        scores = model.logits(plain)["label"][8:20]
        expected = corrected_losses(scores, *(torch.from_numpy(each[8:20]) for each in (answers, reactions)), NOISE)
        torch.testing.assert_close(losses[8:20], 2 * expected)
        assert not losses[20:].any()

    def test_texts_without_reactions_are_refused(self):
        model = tiny(self.GIVEN)
        with pytest.raises(ArgumentError, match="WithFeedback"):
            ImplicitFeedback(BASE, NOISE).loss(self.here(model), model.encode(self.TEXTS).batch([0]))
        with pytest.raises(ArgumentError, match="encoded"):
            WithFeedback(model.encode(self.TEXTS), [0], [0])
        for wrong in ({"correction": "none"}, {"weight": -1.0}):
            with pytest.raises(ArgumentError, match=next(iter(wrong))):
                ImplicitFeedback(BASE, NOISE, **wrong)

    def test_devices_learn_from_reactions_what_the_server_could_not_tell_them(self):
        unseen, streams = [*self.GIVEN.valid, *self.GIVEN.test], Streams(3)
        few, rest = few_of_each(self.GIVEN.train, 10)
        model = tiny(self.GIVEN, dropout=0.4, word_dropout=0.2)
        train_alone(model, model.encode(few), LocalTraining(0.2, 16, momentum=0.9, steps=200), streams)
        before = evaluate(model, model.encode(unseen))["accuracy"]
        texts = model.encode(without_labels(rest[:800]))
        answers = label(model, texts).labels
        right = answers == [self.GIVEN.labels.index(example.label) for example in rest[:800]]
        heard = WithFeedback(texts, answers, NOISE.draw(right, streams.numpy("reactions")))
        algorithm = ImplicitFeedback(FedAvg(15, 8, LocalTraining(0.1, 16, momentum=0.9)), NOISE)
        simulate(Partitioned(heard, dealt(len(heard), 20)), model, algorithm, streams=streams)
        assert evaluate(model, model.encode(unseen))["accuracy"] > before + 0.03
