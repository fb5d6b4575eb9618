import itertools
import json
import math
from dataclasses import replace

import pytest
import torch
from planted import STREAMS, Planted, gradients, without_probes
from rows import Rows, normal
from small_text import Tagger, Texts
from torch import nn

from trustnlp.dp import AutomaticClipping, FlatClipping, PrivacyPlan, accounting, tuning
from trustnlp.dp.noise import ChunkedNoise
from trustnlp.dp.tuning import Candidate, Suggestion, grid, suggest
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.randomness import Streams

BUDGET = {"epsilon": 4.0, "delta": 1e-4, "examples": 1000, "epochs": 3}
PLAN = PrivacyPlan(60, 20, 6, 2.0, 1e-3)
CANDIDATES = [Candidate(PLAN, rate) for rate in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)]


def labelled(count, seed):
    texts = Texts.random(count, seed)
    return replace(texts, labels=tuple(row[-1] % 3 for row in texts.ids))


PUBLIC, HELD_OUT = labelled(100, 1), labelled(60, 2)


def minus_loss(model):
    with torch.no_grad():
        return -float(model.loss(HELD_OUT.batch(range(60))).mean())


class Line(nn.Module):
    """Linear regression."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1, bias=False).double()
        nn.init.zeros_(self.layer.weight)

    def loss(self, batch):
        return (self.layer(batch.inputs["x"])[:, 0] - batch.inputs["x"].sum(1)).square()

    def logits(self, batch):
        return {}


LINE = Rows({"x": normal(200, 4)})


def minus_error(model):
    with torch.no_grad():
        return -float(model.loss(LINE.batch(range(200))).mean())


def trained(candidates=CANDIDATES, data=PUBLIC, **options):
    options = {"source": "public", "build": Tagger, "score": minus_loss, "streams": STREAMS, **options}
    with without_probes():
        return suggest(candidates, data, **options)


@pytest.fixture
def rates(monkeypatch):
    """A training in which candidates of higher rates do better, and nothing is trained."""
    monkeypatch.setattr(tuning._Run, "_train", lambda self, until: setattr(self, "step", until))
    monkeypatch.setattr(
        tuning._Run, "advance", lambda self, fraction, score: of_rate(self, math.ceil(self._sampler.steps * fraction))
    )


def of_rate(run, until):
    run._train(until)
    run.score = None if run.candidate.learning_rate > 0.85 else run.candidate.learning_rate


class TestGrid:
    def test_all_combinations_have_the_same_budget(self):
        found = grid(
            expected_batches=[50, 100],
            clippings=[FlatClipping(0.1), AutomaticClipping()],
            learning_rates=[0.1, 0.01, 1],
            **BUDGET,
        )
        assert len({(c.plan, c.learning_rate) for c in found}) == 12
        assert all(3.96 <= candidate.plan.epsilon() <= 4 for candidate in found)
        assert {(c.plan.expected_batch, c.plan.steps) for c in found} == {(50, 60), (100, 30)}

    @pytest.mark.parametrize("rate", [0, -1, math.nan])
    def test_bad_rates_are_refused(self, rate):
        with pytest.raises(ArgumentError, match="learning_rate"):
            Candidate(PLAN, rate)


class TestSuggest:
    @pytest.mark.parametrize("seed", range(3))
    def test_it_finds_the_rate_and_the_clip_norm_that_learn(self, seed):
        plans = [PrivacyPlan(1000, 40, 30, 1.0, 1e-4, clipping=FlatClipping(norm)) for norm in (1e-4, 2.0, 1e4)]
        candidates = [Candidate(plan, rate) for plan in plans for rate in (1e-4, 0.3, 300.0)]
        found = trained(
            candidates, LINE, build=Line, score=minus_error, optimizer=torch.optim.SGD, streams=Streams(seed)
        )
        assert found.best == candidates[4]
        assert len(found.trials) == 9 + 3

    def test_trials_have_the_noise_batches_and_steps_of_the_private_run(self, monkeypatch):
        plan = PrivacyPlan(1000, 25, 8, 1.5, 1e-5, clipping=FlatClipping(0.7))
        seen, real = [], ChunkedNoise.release_

        def spied(self, sums, block, stds, divisor, parts=None):
            seen.append(({*stds.values()}, divisor))
            real(self, sums, block, stds, divisor)

        monkeypatch.setattr(ChunkedNoise, "release_", spied)
        trained([Candidate(plan, 0.1)])
        assert seen == [({1.5 * 0.7}, 25)] * 8

    def test_noise_decays_as_much_in_as_many_steps(self):
        plan = PrivacyPlan(1000, 10, 400, 2.0, 1e-5, noise_decay=0.5)  # 4 epochs of 100 steps
        rehearsal = tuning._rehearsal(plan, 50)  # 80 epochs of 5 steps
        sigmas = [[p.event(step).noise_multiplier for step in range(0, 400, 100)] for p in (plan, rehearsal)]
        assert sigmas[0] == pytest.approx(sigmas[1])

    def test_a_round_keeps_a_third_and_trains_it_three_times_as_long(self, rates):
        found = trained(streams=STREAMS)
        rounds = [
            (steps, sorted(trial.candidate.learning_rate for trial in trials))
            for steps, trials in itertools.groupby(found.trials, key=lambda trial: trial.steps)
        ]
        assert rounds == [(2, [c.learning_rate for c in CANDIDATES]), (6, [0.6, 0.7, 0.8])]
        assert found.best.learning_rate == 0.8  # 0.9 has broken down

    @pytest.mark.parametrize(("count", "keep"), [(1, 0.5), (2, 0.9), (7, 0.99), (9, 1 / 3), (100, 0.01)])
    def test_one_is_left_after_the_last_round_which_is_whole(self, count, keep):
        fractions = tuning._fractions(count, keep)
        for _ in fractions:
            count = tuning._survivors(count, keep)
        assert count == 1
        assert fractions[-1] == 1
        assert fractions == sorted(fractions)

    def test_training_that_breaks_down_comes_last(self):
        found = trained([Candidate(PLAN, 1e300), Candidate(PLAN, 0.01)], optimizer=torch.optim.SGD)
        assert found.best.learning_rate == 0.01
        assert [trial.score is None for trial in found.trials] == [True, False]
        with pytest.raises(GuaranteeError, match="every candidate broke down"):
            trained([Candidate(PLAN, 1e300)], optimizer=torch.optim.SGD)

    def test_same_streams_same_suggestion(self):
        assert trained(CANDIDATES[:3]) == trained(CANDIDATES[:3])

    def test_its_record_is_json(self):
        record = json.loads(json.dumps(trained(CANDIDATES[:1]).as_dict(), allow_nan=False))
        assert PrivacyPlan.from_dict(record["best"]["plan"]) == PLAN
        assert (record["source"], record["epsilon"], len(record["trials"])) == ("public", 0, 1)

    def test_bad_arguments_are_refused(self):
        for options, name in [
            ({"candidates": []}, "candidates"),
            ({"keep": 1.0}, "keep"),
            ({"source": "mine"}, "source"),
            ({"data": labelled(19, 0)}, "at least 20 examples"),
        ]:
            with pytest.raises(ArgumentError, match=name):
                trained(**options)


class TestPrivateData:
    DATA = labelled(60, 0)

    def test_public_data_costs_nothing(self, rates):
        assert trained(source="synthetic").epsilon == 0

    def test_without_a_budget_it_is_refused_before_it_is_touched(self):
        with pytest.raises(GuaranteeError, match="no budget was given"):
            trained(data=None, source="private")

    def test_all_trials_are_charged_whether_they_were_cut_or_not(self, rates):
        found = trained(data=self.DATA, source="private", budget=20.0)
        assert found.epsilon == accounting.epsilon([accounting.Event(20 / 60, 2.0, 9 * 6)], 1e-3)
        assert found.epsilon > PLAN.epsilon()

    def test_plans_of_other_noise_and_batches_are_charged_together(self, rates):
        other = replace(PLAN, expected_batch=10, noise_multiplier=3.0, delta=1e-4)
        found = trained([Candidate(PLAN, 0.1), Candidate(other, 0.1)], self.DATA, source="private", budget=20.0)
        events = [accounting.Event(20 / 60, 2.0, 6), accounting.Event(10 / 60, 3.0, 6)]
        assert (found.epsilon, found.delta) == (accounting.epsilon(events, 1e-4), 1e-4)

    def test_more_than_the_budget_is_refused_before_it_is_touched(self):
        with pytest.raises(GuaranteeError, match="all trials together spend epsilon"):
            trained(data=None, source="private", budget=PLAN.epsilon())

    def test_plans_for_different_units_are_refused(self):
        users = replace(PLAN, unit="user")
        with pytest.raises(GuaranteeError, match="different units"):
            trained([*CANDIDATES, Candidate(users, 0.1)], data=None, source="private", budget=20.0)

    def test_trials_spend_the_plans_themselves(self):
        with pytest.raises(GuaranteeError, match="60 examples, the data has 100"):
            trained(source="private", budget=20.0)

    def test_no_noise_is_shared_between_trials_of_one_plan(self):
        """With gradients of 0 the weights are the noise alone, times the rate."""
        ends = []

        def keep_weights(model):
            ends.append(model.layers[0].weight.detach()[0])
            return 0.0

        trained(
            [Candidate(PLAN, 1.0), Candidate(PLAN, 2.0)],
            gradients([[[0.0] * 400]] * 60),
            source="private",
            budget=20.0,
            build=lambda: Planted(1, 400),
            score=keep_weights,
            optimizer=torch.optim.SGD,
        )
        assert abs(float(torch.corrcoef(torch.stack(ends))[0, 1])) < 5 / math.sqrt(400)

    def test_a_breakdown_is_not_hidden(self):
        with pytest.raises(GuaranteeError, match="no clipping bounds"):
            trained([Candidate(PLAN, 1e300)], self.DATA, source="private", budget=20.0, optimizer=torch.optim.SGD)


def test_a_suggestion_is_a_record():
    assert Suggestion(CANDIDATES[0], (), "public", 0.0, 1e-3).as_dict()["trials"] == []
