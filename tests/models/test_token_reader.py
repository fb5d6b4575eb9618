"""Whatever way questions are put together, answers are those of one text at a time."""

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from trustnlp.models.token_reader import TokenReader

VOCABULARY = 30
SIZE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "initializer_range": 0.6,  # far from 0, so that every token in sight shows
}
SHORT = SIZE | {"max_position_embeddings": 160, "num_key_value_heads": 2}
LOCAL = {"attention_types": [[["global", "local"], 1]], "window_size": 8, "max_position_embeddings": 160}
CAUSAL = {
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=160, initializer_range=0.6)
    ),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHORT)),
    "eager llama": lambda: LlamaForCausalLM(LlamaConfig(**SHORT, attn_implementation="eager")),
    "window": lambda: MistralForCausalLM(MistralConfig(**SHORT, sliding_window=8)),
    "local": lambda: GPTNeoForCausalLM(
        GPTNeoConfig(vocab_size=VOCABULARY, hidden_size=16, num_layers=2, num_heads=2, initializer_range=0.6, **LOCAL)
    ),
    "alibi": lambda: BloomForCausalLM(
        BloomConfig(vocab_size=VOCABULARY, hidden_size=16, n_layer=2, n_head=2, initializer_range=0.6)
    ),
}
READ_AS_TREES = {"gpt2", "llama", "eager llama"}
MASKED = {
    "bert": lambda: BertForMaskedLM(BertConfig(**SIZE)),
    "roberta": lambda: RobertaForMaskedLM(RobertaConfig(**SIZE)),
}


def made(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval()


@pytest.fixture(scope="module", params=CAUSAL)
def causal(request):
    return request.param, made(CAUSAL[request.param])


def rows_and_questions(longest=30):
    """Texts of which many begin alike, some are equal and one is the beginning of another; questions to all places."""
    generator = np.random.default_rng(0)
    starts = [tuple(generator.integers(2, VOCABULARY, size).tolist()) for size in (3, 9, longest - 6)]
    ends = [tuple(generator.integers(2, VOCABULARY, size).tolist()) for size in (1, 4, 6, 2)]
    rows = [start + end for start in starts for end in ends] + [starts[0], starts[0] + ends[0]]
    questions = [(row, place, token) for row in range(len(rows)) for place in range(len(rows[row])) for token in (3, 7)]
    return rows, np.array(questions, dtype=np.int64)[generator.permutation(len(questions))]


@torch.no_grad()
def one_at_a_time(model, rows, questions):
    scores = [model(input_ids=torch.tensor([row])).logits[0].double().log_softmax(-1) for row in rows]
    return np.array([float(scores[row][place, token]) for row, place, token in questions])


def reader(model, is_causal=True, batch_tokens=100):
    return TokenReader(model, causal=is_causal, pad=1, divider=None, batch_tokens=batch_tokens)


@pytest.mark.parametrize("batch_tokens", [1, 100, 5000])
def test_causal_answers(causal, batch_tokens):
    _, model = causal
    rows, questions = rows_and_questions(longest=140)  # beyond the largest tree
    found = reader(model, batch_tokens=batch_tokens).log_probabilities(rows, questions)
    np.testing.assert_allclose(found, one_at_a_time(model, rows, questions), rtol=0, atol=1e-4)


@pytest.mark.parametrize("batch_tokens", [1, 100])
@pytest.mark.parametrize("kind", MASKED)
def test_masked_answers(kind, batch_tokens):
    model = made(MASKED[kind])
    rows, questions = rows_and_questions()
    found = reader(model, False, batch_tokens).log_probabilities(rows, questions)
    np.testing.assert_allclose(found, one_at_a_time(model, rows, questions), rtol=0, atol=1e-4)


def computed(model, ask):
    """How many tokens the model computes."""
    shapes = []
    handle = model.get_input_embeddings().register_forward_hook(lambda _m, inputs, _o: shapes.append(inputs[0].shape))
    ask()
    handle.remove()
    return sum(shape.numel() for shape in shapes)


def test_what_texts_share_is_computed_once(causal):
    name, model = causal
    rows, questions = rows_and_questions()
    asked = reader(model, batch_tokens=1)
    asked.log_probabilities(rows, questions)  # finds out whether it reads trees
    expected = sum(len(row) for row in set(rows))
    if name in READ_AS_TREES:
        expected = len({row[: end + 1] for row in rows for end in range(len(row))})
    assert computed(model, lambda: asked.log_probabilities(rows, questions)) == expected


def test_equal_rows_are_computed_once():
    model = made(MASKED["bert"])
    asked = reader(model, False)
    twice = [(2, 3, 4)] * 5
    questions = np.array([[row, 1, token] for row in range(5) for token in (3, 7)])
    assert computed(model, lambda: asked.log_probabilities(twice, questions)) == 3
    assert computed(model, lambda: asked.means(twice, [[1]] * 5)) == 3


def test_the_models_mode_is_left_as_it_was():
    model = made(CAUSAL["gpt2"]).train()
    rows, questions = rows_and_questions()
    first = reader(model).log_probabilities(rows, questions)
    assert model.training
    np.testing.assert_array_equal(first, reader(model).log_probabilities(rows, questions))


@torch.no_grad()
@pytest.mark.parametrize("make", [CAUSAL["gpt2"], MASKED["roberta"]])
def test_means_of_states(make):
    model = made(make)
    rows, _ = rows_and_questions()
    places = [[0, len(row) - 1, len(row) // 2][: 1 + number % 3] for number, row in enumerate(rows)]
    found = reader(model, batch_tokens=60).means(rows, places)
    for mean, row, chosen in zip(found, rows, places, strict=True):
        states = model(input_ids=torch.tensor([row]), output_hidden_states=True).hidden_states[-1][0]
        np.testing.assert_allclose(mean, states[chosen].mean(0).numpy(), rtol=0, atol=1e-5)
