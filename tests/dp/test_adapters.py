"""Adapters of PEFT: clipped by the fast way, equal to one backward per example, and nothing else moves."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from small_text import flat
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel, TrainingArguments

from trustnlp.dp import BookKeeping, FlatClipping, PrivacyPlan, PrivateTrainer, per_unit_clipped_sum
from trustnlp.dp.clipping import Clip, examples
from trustnlp.dp.collated import Collated, on_values
from trustnlp.dp.task_losses import task_loss
from trustnlp.errors import GuaranteeError
from trustnlp.randomness import Streams

# PEFT still asks Transformers by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

GENERATOR = torch.Generator().manual_seed(0)


def rows(count, generative):
    found = []
    for _ in range(count):
        length = int(torch.randint(2, 9, (1,), generator=GENERATOR))
        ids = torch.randint(3, 30, (length,), generator=GENERATOR).tolist()
        rest = 9 - length
        labels = ids + [-100] * rest if generative else ids[0] % 3
        mask = [1] * length + [0] * rest
        found.append({"input_ids": ids + [0] * rest, "attention_mask": mask, "labels": labels})
    return found


def tensors(rows):
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


def gpt2():
    config = GPT2Config(vocab_size=30, n_embd=16, n_layer=2, n_head=2, n_positions=12)
    config.bos_token_id = config.eos_token_id = 0
    return GPT2LMHeadModel(config)


def bert():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return BertForSequenceClassification(
        BertConfig(vocab_size=30, max_position_embeddings=12, num_labels=3, hidden_dropout_prob=0.0, **sizes)
    )


def adapted(kind, dropout=0.0, **fields):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "gpt2":
            base, usual = (
                gpt2(),
                {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True, "task_type": "CAUSAL_LM"},
            )
        else:
            base, usual = bert(), {"target_modules": ["query", "value"], "task_type": "SEQ_CLS"}
        model = get_peft_model(base, LoraConfig(r=2, lora_dropout=dropout, **{**usual, **fields}))
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "lora_embedding_B" in name:  # zero at first, and then half of the gradients are
                torch.nn.init.normal_(parameter, std=0.1)
    return model


def sums(model, generative, function):
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    clip = Clip(FlatClipping(0.05), dict.fromkeys(parameters, 0), torch.tensor([0.05], dtype=torch.float64))
    data = Collated(rows(10, generative), tensors)
    return function(model, on_values(task_loss(model)), data, examples(range(10)), parameters, clip)


CASES = {
    "a causal language model": ("gpt2", {}),
    "a classifier": ("bert", {}),
    "with biases": ("bert", {"bias": "lora_only"}),
    "with whole modules": ("bert", {"task_type": None, "modules_to_save": ["classifier", "pooler"]}),
    "stabilised by rank": ("bert", {"use_rslora": True}),
}


class TestLoRA:
    @pytest.mark.parametrize("case", CASES)
    def test_book_keeping_gives_the_sums_of_one_backward_per_example(self, case):
        kind, fields = CASES[case]
        model, fast = adapted(kind, **fields).double().eval(), BookKeeping(4)
        state = GENERATOR.get_state()
        found = sums(model, kind == "gpt2", fast)
        GENERATOR.set_state(state)
        expected = sums(model, kind == "gpt2", per_unit_clipped_sum)
        assert fast.fallback == ""
        assert all(
            "lora" in name or "classifier" in name or "pooler" in name or "bias" in name for name in found.gradients
        )
        assert torch.allclose(found.norms, expected.norms, rtol=1e-9)
        assert torch.allclose(flat(found.gradients), flat(expected.gradients), rtol=1e-9, atol=1e-12)
        assert (found.norms > 0.05).any()

    def test_dropout_in_adapters_keeps_the_fast_way(self):
        fast = BookKeeping(4)
        sums(adapted("bert", dropout=0.3).double().train(), False, fast)
        assert fast.fallback == ""  # a probe with equal masks agreed

    @pytest.mark.parametrize("fields", [{"use_dora": True}, {"target_modules": ["word_embeddings", "query"]}])
    def test_other_adapters_go_the_slow_way_to_the_same_bound(self, fields):
        slow = BookKeeping(4)
        found = sums(adapted("bert", **fields).double().eval(), False, slow)
        assert "no rule" in slow.fallback
        assert float(flat(found.gradients).norm()) <= 10 * 0.05


PLAN = PrivacyPlan(examples=20, expected_batch=5, steps=6, noise_multiplier=0.45, delta=1e-3)


def trainer(folder, model):
    args = TrainingArguments(
        str(folder),
        learning_rate=0.01,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        per_device_train_batch_size=4,
    )
    return PrivateTrainer(model=model, args=args, train_dataset=rows(20, False), privacy=PLAN, streams=Streams(0))


class TestTraining:
    def test_adapters_and_the_head_move_and_nothing_else(self, tmp_path):
        model = adapted("bert", dropout=0.1)
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        private = trainer(tmp_path, model)
        private.train()
        moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
        assert moved == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert all("lora" in name or "classifier" in name for name in moved)
        assert private._step._clipped_sum.fallback == ""
        private.save_model(tmp_path / "adapter")
        assert (tmp_path / "adapter/adapter_model.safetensors").exists()

    def test_merged_adapters_are_refused_and_unmerged_ones_train(self, tmp_path):
        model = adapted("bert")
        model.merge_adapter()
        with pytest.raises(GuaranteeError, match=r"merged|reaches no trainable|no parameter"):
            trainer(tmp_path / "merged", model).train()
        model.unmerge_adapter()
        private = trainer(tmp_path / "unmerged", model)
        private.train()
        assert private.ledger.spent == 6
