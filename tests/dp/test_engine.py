import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from rows import clip_of
from small_text import Tagger, Texts, flat, trainable
from torch import nn

from trustnlp.dp import FlatClipping, Ledger, PoissonSampler, PrivacyPlan, per_unit_clipped_sum
from trustnlp.dp.clipping import examples
from trustnlp.dp.noise import SeededNoise
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.models.protocol import Draw
from trustnlp.models.training import ShuffledBatches, fit
from trustnlp.randomness import Streams

STREAMS = Streams(5)
TEXTS = Texts.random(20)
PLAN = PrivacyPlan(
    examples=20, expected_batch=4, steps=15, noise_multiplier=1.0, delta=1e-3, clipping=FlatClipping(0.5)
)


def prepared(plan=PLAN, model=None, rate=0.1, optimizer=torch.optim.SGD, **options):
    model = model or Tagger()
    step = plan.step(model, optimizer(model.parameters(), lr=rate), streams=STREAMS, **options)
    return model, step


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def update(plan=PLAN, texts=TEXTS, **options):
    """Minus the update of one step of SGD at rate 1 (the first draw that is not empty)."""
    model, step = prepared(plan, rate=1.0, **options)
    before = weights(model)
    step(texts, plan.sampler(STREAMS).draw(0))
    return before - weights(model)


def trained(plan=PLAN, streams=STREAMS, texts=TEXTS, **options):
    model, step = prepared(plan, **options)
    losses = [step(texts, draw) for draw in plan.sampler(streams)]
    return weights(model), losses, step


class TestPrivateStep:
    def test_one_step_is_clipped_sum_plus_noise_over_the_constant(self):
        model, draw = Tagger(), PLAN.sampler(STREAMS).draw(0)
        units, clip = examples(draw.indices), clip_of(model, 0.5)
        clipped = per_unit_clipped_sum(model, model.loss, TEXTS, units, trainable(model), clip)
        noise = SeededNoise(STREAMS.child(f"dp/{PLAN.digest()}"))
        noise.release_(clipped.gradients, 0, dict.fromkeys(clipped.gradients, 0.5), 4)
        assert len(draw.indices) != PLAN.expected_batch
        assert torch.allclose(update(), flat(clipped.gradients), atol=1e-12)

    def test_same_seed_same_bits_and_another_seed_others(self):
        assert torch.equal(trained()[0], trained()[0])
        other = PLAN.step(model := Tagger(), torch.optim.SGD(model.parameters(), 0.1), streams=Streams(6))
        for draw in PLAN.sampler(Streams(6)):
            other(TEXTS, draw)
        assert not torch.allclose(weights(model), trained()[0])

    def test_the_ledger_is_spent_before_anything_else_happens(self):
        seen = []

        def spy(*args):
            seen.append(step.ledger.spent)
            raise KeyboardInterrupt

        model, step = prepared(clipped_sum=spy)
        before = weights(model)
        with pytest.raises(KeyboardInterrupt):
            step(TEXTS, PLAN.sampler(STREAMS).draw(0))
        assert seen == [1]
        assert step.ledger.spent == step.resume_at(0) == 1
        assert torch.equal(weights(model), before)

    def test_an_empty_draw_is_a_step_of_noise_alone(self):
        plan = replace(PLAN, expected_batch=1, steps=60)
        empty = next(draw for draw in plan.sampler(STREAMS) if not len(draw.indices))
        model, step = prepared(plan, rate=1.0)
        for number in range(empty.step):
            step(TEXTS, plan.sampler(STREAMS).draw(number))
        before = weights(model)
        assert math.isnan(step(TEXTS, empty))
        noise = SeededNoise(STREAMS.child(f"dp/{plan.digest()}"))
        expected = {name: torch.zeros_like(parameter) for name, parameter in trainable(model).items()}
        noise.release_(expected, empty.step, dict.fromkeys(expected, 0.5), 1)
        assert torch.allclose(before - weights(model), flat(expected), atol=1e-12)
        assert step.ledger.spent == empty.step + 1

    def test_after_all_steps_epsilon_is_the_plans_and_no_step_is_left(self):
        step = trained()[2]
        assert step.ledger.spent_epsilon() == PLAN.epsilon()
        with pytest.raises(GuaranteeError):
            step(TEXTS, PLAN.sampler(STREAMS).draw(14))

    def test_plans_do_not_share_noise(self):
        two = [update(replace(PLAN, delta=delta), TEXTS) for delta in (1e-3, 1e-4)]
        assert not torch.allclose(*two)

    def test_gradients_are_gone_after_the_step(self):
        model, step = prepared()
        step(TEXTS, PLAN.sampler(STREAMS).draw(0))
        assert all(parameter.grad is None for parameter in model.parameters())

    def test_it_learns_when_the_budget_is_wide(self):
        texts = Texts.random(60)
        texts = replace(texts, labels=tuple(row[-1] % 3 for row in texts.ids))
        plan = PrivacyPlan(60, 20, 120, 0.3, 1e-3)
        _, step = prepared(plan, Tagger(width=6), rate=0.1, optimizer=torch.optim.Adam)
        losses = [step(texts, draw) for draw in plan.sampler(STREAMS)]
        assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])

    def test_without_a_schedule_the_learning_rate_is_left_to_others(self):
        _, step = prepared(rate=1.0)
        step._optimizer.param_groups[0]["lr"] = 0.5
        step(TEXTS, PLAN.sampler(STREAMS).draw(0))
        assert step._optimizer.param_groups[0]["lr"] == 0.5

    def test_a_schedule_scales_the_learning_rate(self):
        model, step = prepared(rate=1.0, schedule=lambda number: 0.0 if number == 0 else 0.25)
        before = weights(model)
        step(TEXTS, PLAN.sampler(STREAMS).draw(0))
        assert torch.equal(weights(model), before)  # a warm-up from 0 is no failure
        step(TEXTS, PLAN.sampler(STREAMS).draw(1))
        assert step._optimizer.param_groups[0]["lr"] == 0.25
        assert not torch.equal(weights(model), before)


class TestSecureNoise:
    PLAN = replace(PLAN, noise="secure")

    def test_it_is_of_the_planned_size_and_never_the_same(self):
        two = [update(self.PLAN, model=Tagger(width=16)) for _ in range(2)]
        spread = float((two[0] - two[1]).std()) / (2**0.5 * 0.5 / 4)
        assert abs(spread - 1) < 5 / math.sqrt(2 * len(two[0]))

    def test_draws_are_still_those_of_the_seed(self):
        draws = [plan.sampler(STREAMS).draw(3).indices for plan in (PLAN, self.PLAN)]
        assert np.array_equal(*draws)


class TestTruncatedDraws:
    def test_a_run_keeps_within_the_cap_and_spends_the_plan(self):
        plan = replace(PLAN, sampling="truncated-poisson", largest_batch=9)
        sizes = []

        def spy(model, loss, data, units, parameters, clip):
            sizes.append(len(units))
            return per_unit_clipped_sum(model, loss, data, units, parameters, clip)

        step = trained(plan, clipped_sum=spy)[2]
        assert max(sizes) <= 9
        assert step.ledger.spent_epsilon() == plan.epsilon()


class TestOptimizers:
    """What an optimizer makes of noisy gradients is post-processing; every one of these is welcome."""

    @pytest.mark.parametrize(
        "optimizer",
        [
            lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, weight_decay=0.1),
            lambda p, lr: torch.optim.AdamW(p, lr, foreach=True),
            lambda p, lr: torch.optim.Adam(p, lr, fused=True),
        ],
    )
    def test_momentum_decay_foreach_and_fused_pass(self, optimizer):
        _, step = prepared(optimizer=optimizer)
        for number in range(2):
            step(TEXTS, PLAN.sampler(STREAMS).draw(number))
        assert step.ledger.spent == 2


class TestRefusals:
    def test_a_settle_without_a_release(self):
        _, step = prepared()
        with pytest.raises(GuaranteeError, match="no gradient was released"):
            step.settle()
        step.release(TEXTS, PLAN.sampler(STREAMS).draw(0))
        step._optimizer.step()
        step.settle()
        with pytest.raises(GuaranteeError, match="no gradient was released"):
            step.settle()

    def test_draws_of_other_samplers(self):
        _, step = prepared()
        for sampler in (
            ShuffledBatches(20, 4, 3, STREAMS),
            PoissonSampler(20, 5, 15, STREAMS),
            PoissonSampler(20, 4, 16, STREAMS),
            None,
        ):
            draw = sampler.draw(0) if sampler else Draw(0, np.array([1]), "by hand")
            with pytest.raises(GuaranteeError, match="not from this plan's sampler"):
                step(TEXTS, draw)
        assert step.ledger.spent == 0

    def test_draws_that_were_not_truncated_and_the_reverse(self):
        plan = replace(PLAN, sampling="truncated-poisson", largest_batch=15)
        for own, other in ((plan, PLAN), (PLAN, plan)):
            _, step = prepared(own)
            with pytest.raises(GuaranteeError, match="not from this plan's sampler"):
                step(TEXTS, other.sampler(STREAMS).draw(0))

    def test_batches_of_a_data_loader(self):
        _, step = prepared()
        loader = torch.utils.data.DataLoader(list(range(20)), batch_size=4)
        with pytest.raises(GuaranteeError, match="no draw"):
            step(TEXTS, next(iter(loader)))
        with pytest.raises(GuaranteeError, match="DataLoader gives no chosen examples"):
            step(loader, PLAN.sampler(STREAMS).draw(0))

    def test_gradients_accumulated_outside(self):
        model, step = prepared()
        model.loss(TEXTS.batch([0])).sum().backward()
        with pytest.raises(GuaranteeError, match="left gradients"):
            step(TEXTS, PLAN.sampler(STREAMS).draw(0))
        assert step.ledger.spent == 0

    def test_several_optimizers(self):
        model = Tagger()
        two = [torch.optim.SGD(part.parameters(), 0.1) for part in (model.lstm, model.head)]
        for optimizer in two:
            with pytest.raises(GuaranteeError, match="lacks trainable parameters"):
                PLAN.step(model, optimizer, streams=STREAMS)

    def test_data_parallel(self):
        with pytest.raises(GuaranteeError, match="DataParallel adds up"):
            prepared(model=nn.DataParallel(Tagger()))

    def test_draws_that_were_tampered_with(self):
        _, step = prepared()
        draw = PLAN.sampler(STREAMS).draw(0)
        with pytest.raises(GuaranteeError, match="not those that its sampler drew"):
            step(TEXTS, replace(draw, indices=draw.indices[:-1]))

    def test_draws_out_of_turn(self):
        _, step = prepared()
        step(TEXTS, PLAN.sampler(STREAMS).draw(0))
        for number in (0, 2):
            with pytest.raises(GuaranteeError, match="1 is next"):
                step(TEXTS, PLAN.sampler(STREAMS).draw(number))

    def test_data_of_another_size(self):
        _, step = prepared()
        with pytest.raises(GuaranteeError, match="20 examples, the data has 21"):
            step(Texts.random(21), PLAN.sampler(STREAMS).draw(0))

    def test_a_ledger_of_another_plan(self):
        with pytest.raises(GuaranteeError, match="another plan"):
            prepared(ledger=Ledger.in_memory(replace(PLAN, steps=16)))

    def test_mixing_layers(self):
        model = Tagger()
        model.norm = nn.BatchNorm1d(3)
        with pytest.raises(GuaranteeError, match="BatchNorm1d"):
            prepared(model=model)

    def test_mixing_models_before_anything_is_spent(self):
        class Leaking(Tagger):
            def mix(self, pooled):
                return pooled - pooled.mean(0)

        _, step = prepared(model=Leaking())
        with pytest.raises(GuaranteeError, match="other examples"):
            step(TEXTS, PLAN.sampler(STREAMS).draw(0))
        assert step.ledger.spent == 0

    def test_models_that_mix_in_the_other_mode(self):
        class OnlyInTraining(Tagger):
            def mix(self, pooled):
                return pooled - pooled.mean(0) if self.training else pooled

        model, step = prepared(model=OnlyInTraining().eval())
        step(TEXTS, PLAN.sampler(STREAMS).draw(0))
        model.train()
        with pytest.raises(GuaranteeError, match="other examples"):
            step(TEXTS, PLAN.sampler(STREAMS).draw(1))

    def test_models_without_a_loss(self):
        with pytest.raises(ArgumentError, match="loss"):
            prepared(model=nn.Linear(2, 2))

    def test_a_foreign_optimizer(self):
        model = Tagger()
        with pytest.raises(GuaranteeError, match="optimizer"):
            PLAN.step(model, torch.optim.SGD(Tagger().parameters(), 0.1), streams=STREAMS)

    def test_weights_changed_between_steps(self):
        model, step = prepared()
        step(TEXTS, PLAN.sampler(STREAMS).draw(0))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        model.loss(TEXTS.batch([0])).sum().backward()
        optimizer.step()
        with pytest.raises(GuaranteeError, match="weights were changed"):
            step(TEXTS, PLAN.sampler(STREAMS).draw(1))

    def test_parameters_added_to_the_optimizer_later(self):
        model = Tagger()
        model.head.requires_grad_(False)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
        step = PLAN.step(model, optimizer, streams=STREAMS)
        step(TEXTS, PLAN.sampler(STREAMS).draw(0))
        model.head.requires_grad_(True)
        optimizer.add_param_group({"params": list(model.head.parameters())})
        with pytest.raises(GuaranteeError, match="holds 2 parameters"):
            step(TEXTS, PLAN.sampler(STREAMS).draw(1))

    def test_epsilon_spent_for_nothing(self):
        _, step = prepared(rate=0.0)
        with pytest.raises(GuaranteeError, match="no parameter moved"):
            step(TEXTS, PLAN.sampler(STREAMS).draw(0))

    def test_a_checkpoint_ahead_of_the_ledger(self):
        _, step = prepared()
        with pytest.raises(GuaranteeError, match="after 3 steps, but the ledger knows of 0"):
            step.resume_at(3)


class TestResume:
    def test_a_run_goes_on_where_the_ledger_stands_with_the_optimizers_moments(self, tmp_path):
        whole = trained(optimizer=torch.optim.Adam)[0]
        path = tmp_path / "ledger.jsonl"
        model, step = prepared(ledger=Ledger.open(path, PLAN), optimizer=torch.optim.Adam)
        for number in range(6):
            step(TEXTS, PLAN.sampler(STREAMS).draw(number))
        saved = model.state_dict(), step.state()
        again, resumed = prepared(model=Tagger(seed=9), ledger=Ledger.open(path, PLAN), optimizer=torch.optim.Adam)
        again.load_state_dict(saved[0])
        resumed.restore(saved[1])
        for number in range(resumed.resume_at(6), 15):
            resumed(TEXTS, PLAN.sampler(STREAMS).draw(number))
        assert torch.equal(weights(again), whole)
        assert Ledger.read(path).spent == 15

    def test_steps_lost_by_a_crash_are_skipped_and_their_noise_is_not_used_again(self, tmp_path, monkeypatch):
        blocks = []
        release = SeededNoise.release_

        def spied(self, sums, block, *args):
            blocks.append(block)
            release(self, sums, block, *args)

        monkeypatch.setattr(SeededNoise, "release_", spied)
        path = tmp_path / "ledger.jsonl"

        def run(until):
            model, step = prepared(ledger=Ledger.open(path, PLAN))
            evaluations = iter(range(100))

            def evaluate():
                if next(evaluations) + 1 == until:
                    raise RuntimeError("crash")
                return {}

            fit(model, TEXTS, PLAN.sampler(STREAMS), step, streams=STREAMS, folder=tmp_path, evaluate=evaluate)

        with pytest.raises(RuntimeError, match="crash"):
            run(until=2)  # the checkpoint is of step 5, the ledger of step 10
        run(until=None)
        assert blocks == list(range(15))
        assert Ledger.read(path).spent_epsilon() == PLAN.epsilon()
