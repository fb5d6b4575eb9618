"""Every loss of a batch against the loss that the model itself gives for each of its rows alone."""

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from trustnlp.dp.task_losses import check_task_loss, task_loss
from trustnlp.errors import ArgumentError

# PEFT still asks Transformers by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

ROWS, WIDTH, VOCABULARY = 5, 7, 30
IGNORED = -100


def bert(kind, **fields):
    return kind(
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            max_position_embeddings=12,
            **fields,
        )
    )


def gpt2(kind=GPT2LMHeadModel):
    config = GPT2Config(vocab_size=VOCABULARY, n_embd=8, n_layer=1, n_head=2, n_positions=12, num_labels=3)
    config.pad_token_id = config.bos_token_id = config.eos_token_id = 0
    return kind(config)


def llama():
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, pad_token_id=0, **sizes))


def t5():
    sizes = {"d_model": 8, "d_ff": 8, "d_kv": 4, "num_layers": 1, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(vocab_size=VOCABULARY, decoder_start_token_id=0, **sizes))


def bart():
    sizes = {
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 8,
        "decoder_ffn_dim": 8,
        "max_position_embeddings": 12,
    }
    return BartForConditionalGeneration(BartConfig(vocab_size=VOCABULARY, d_model=8, **sizes))


def adapted(config, kind=GPT2LMHeadModel):
    return get_peft_model(gpt2(kind), config)


def tokens(generator):
    """Ids and mask of rows of unlike lengths."""
    ids = torch.randint(3, VOCABULARY, (ROWS, WIDTH), generator=generator)
    mask = (torch.arange(WIDTH) < torch.tensor([[7], [2], [4], [1], [6]])).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def batch(kind, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = tokens(generator)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    if kind == "class":
        return {**inputs, "labels": torch.randint(0, 3, (ROWS,), generator=generator)}
    if kind == "figure":
        return {**inputs, "labels": torch.randn(ROWS, generator=generator)}
    if kind == "figures":
        return {**inputs, "labels": torch.randn(ROWS, 3, generator=generator)}
    if kind == "marks":
        return {**inputs, "labels": torch.randint(0, 2, (ROWS, 3), generator=generator).float()}
    if kind == "tags":
        return {**inputs, "labels": torch.randint(0, 3, (ROWS, WIDTH), generator=generator).where(mask > 0, IGNORED)}
    if kind == "masked":
        drawn = torch.rand(ROWS, WIDTH, generator=generator) < 0.6
        return {**inputs, "labels": ids.where(drawn & (mask > 0), IGNORED)}
    if kind == "text":
        return {**inputs, "labels": ids.where(mask > 0, IGNORED)}
    if kind == "answer":
        places = torch.randint(0, WIDTH, (2, ROWS), generator=generator)
        places[:, 2] = WIDTH + 1  # an answer that was cut off
        return {**inputs, "start_positions": places[0], "end_positions": places[1]}
    choices = {name: tensor[:, None].repeat(1, 2, 1) for name, tensor in inputs.items()}
    choices["input_ids"][:, 1] = choices["input_ids"][:, 1].flip(0)
    return {**choices, "labels": torch.randint(0, 2, (ROWS,), generator=generator)}


CASES = {
    "classification": (lambda: bert(BertForSequenceClassification, num_labels=3), "class"),
    "regression": (lambda: bert(BertForSequenceClassification, num_labels=1), "figure"),
    "regression of several": (
        lambda: bert(BertForSequenceClassification, num_labels=3, problem_type="regression"),
        "figures",
    ),
    "multi-label": (lambda: bert(BertForSequenceClassification, num_labels=3), "marks"),
    "classification by a decoder": (lambda: gpt2(GPT2ForSequenceClassification), "class"),
    "tagging": (lambda: bert(BertForTokenClassification, num_labels=3), "tags"),
    "masked language model": (lambda: bert(BertForMaskedLM), "masked"),
    "causal language model": (gpt2, "text"),
    "causal language model, llama": (llama, "text"),
    "question answering": (lambda: bert(BertForQuestionAnswering), "answer"),
    "multiple choice": (lambda: bert(BertForMultipleChoice), "choices"),
    "encoder-decoder": (t5, "text"),
    "encoder-decoder, bart": (bart, "text"),
    "adapters": (lambda: adapted(LoraConfig(r=2, fan_in_fan_out=True, task_type="CAUSAL_LM")), "text"),
    "trained prompts": (lambda: adapted(PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")), "text"),
}


@pytest.fixture(params=CASES)
def case(request):
    build, kind = CASES[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build().double().eval()
    values = batch(kind)
    if kind in ("figure", "figures", "marks"):
        values["labels"] = values["labels"].double()
    return model, values


class TestTaskLoss:
    def test_each_row_has_the_models_own_loss_of_that_row_alone(self, case):
        model, values = case
        losses = task_loss(model)(values).detach()
        assert losses.shape == (ROWS,)
        for row in range(ROWS):
            alone = {name: tensor[row : row + 1] for name, tensor in values.items()}
            own = model(**alone).loss.detach()
            expected = 0.0 if own.isnan() else float(own)  # a row without labels
            assert float(losses[row]) == pytest.approx(expected, rel=1e-5, abs=1e-6)
            check_task_loss(model, task_loss(model), alone)
        assert len(set(losses.tolist())) > 1

    def test_the_kind_of_problem_is_told_by_the_labels(self):
        for kind, found in (("class", "single_label_classification"), ("marks", "multi_label_classification")):
            model = bert(BertForSequenceClassification, num_labels=3)
            task_loss(model)(batch(kind))
            assert model.config.problem_type == found

    @pytest.mark.parametrize("model", [nn.Linear(2, 2), bert(BertForPreTraining)])
    def test_other_models_ask_for_a_loss(self, model):
        with pytest.raises(ArgumentError, match=r"'loss' must be given for (Linear|BertForPreTraining)"):
            task_loss(model)

    def test_missing_labels_are_named(self):
        with pytest.raises(ArgumentError, match="examples with labels"):
            task_loss(gpt2())(tokens(torch.Generator()))


class TestCheckTaskLoss:
    def test_a_model_with_a_term_of_its_own_is_noticed(self):
        class Penalised(GPT2LMHeadModel):
            def forward(self, *args, **named):
                outputs = super().forward(*args, **named)
                if outputs.loss is not None:
                    outputs.loss = outputs.loss + 0.1
                return outputs

        model, row = gpt2(Penalised).train(), {name: tensor[:1] for name, tensor in batch("text").items()}
        with pytest.raises(ArgumentError, match="'loss' must be given for Penalised"):
            check_task_loss(model, task_loss(model), row)
        assert model.training
