"""Heads of several kinds, each asked at a few places, answer what the whole model answers there."""

import pytest
import torch
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from trustnlp.models.picked import answers_at, body_of, states

SIZE = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
GEMMA = {"num_key_value_heads": 1, "head_dim": 8, "final_logit_softcapping": 0.5, "bos_token_id": 1, "eos_token_id": 1}
MADE = {
    "bert": lambda: BertForMaskedLM(BertConfig(**SIZE)),
    "roberta": lambda: RobertaForMaskedLM(RobertaConfig(**SIZE)),
    "distilbert": lambda: DistilBertForMaskedLM(DistilBertConfig(vocab_size=20, dim=16, n_layers=1, n_heads=2)),
    "albert": lambda: AlbertForMaskedLM(AlbertConfig(**SIZE, embedding_size=8)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=16, n_layer=2, n_head=2)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZE)),
    "gemma with a cap": lambda: Gemma2ForCausalLM(Gemma2Config(**SIZE, **GEMMA)),
}
IDS = torch.tensor([[3, 4, 5, 6, 7], [8, 9, 10, 11, 12]])
ROWS, PLACES = torch.tensor([[0], [1], [1]]), torch.tensor([[4], [0], [3]])


@pytest.fixture(scope="module", params=MADE)
def model(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MADE[request.param]().eval()


@torch.no_grad()
def test_answers_are_those_of_the_whole_model(model):
    whole = model(input_ids=IDS).logits
    torch.testing.assert_close(answers_at(model, ROWS, PLACES, input_ids=IDS), whole[ROWS, PLACES])
    every = torch.arange(2)[:, None].expand(2, 5), torch.arange(5).flip(0).expand(2, 5)
    torch.testing.assert_close(answers_at(model, *every, input_ids=IDS), whole.flip(1))
    torch.testing.assert_close(model(input_ids=IDS).logits, whole)  # nothing is left behind


@torch.no_grad()
def test_the_head_sees_asked_places_only(model):
    seen = []
    head = model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].shape[:-1]))
    answers_at(model, ROWS, PLACES, input_ids=IDS)
    handle.remove()
    assert seen == [(3, 1)]


@torch.no_grad()
def test_states_are_those_that_the_head_reads(model):
    expected = model(input_ids=IDS, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(states(model, input_ids=IDS), expected)


class Whole(nn.Module):
    """A model without a body, or whose head does not read what its body hands on."""

    def __init__(self, inner: nn.Module, body: nn.Module | None) -> None:
        super().__init__()
        self.inner = inner
        self.base_model = body

    def forward(self, input_ids, **more):
        if self.base_model is not None:
            self.base_model(input_ids=input_ids)
        return self.inner(input_ids=input_ids, **more)


@torch.no_grad()
@pytest.mark.parametrize("apart", [False, True])
def test_other_models_compute_all(apart):
    inner = MADE["bert"]().eval()
    model = Whole(inner, MADE["gpt2"]().transformer if apart else None)
    assert (body_of(model) is not None) == apart
    found = answers_at(model, ROWS, PLACES, input_ids=IDS)
    torch.testing.assert_close(found, inner(input_ids=IDS).logits[ROWS, PLACES])
    if not apart:
        torch.testing.assert_close(states(model, input_ids=IDS), states(inner, input_ids=IDS))
