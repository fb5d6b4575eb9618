"""Decoding against exhaustive enumeration, against a slow beam search, and against Transformers' own."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from trustnlp.errors import ArgumentError, GuaranteeError, ModelError
from trustnlp.models.decoding import Beam, FunctionDecoder, KeyValueDecoder, Sampled, greedy

VOCABULARY = 5
NO_CHANCE = torch.empty(0)


def table(seed=0, order=2):
    """A model whose next token depends on the last `order` tokens, by a random table."""
    logits = 1.5 * torch.randn((VOCABULARY,) * (order + 1), generator=torch.Generator().manual_seed(seed))
    log_probs = logits.double().log_softmax(-1)
    return FunctionDecoder(lambda ids: log_probs[tuple(ids[:, -order + i] for i in range(order))])


def likelihood(decoder, prefix, suffix):
    total, ids = 0.0, list(prefix)
    for token in suffix:
        total += float(decoder.log_probs_of(torch.tensor([ids]))[0, token])
        ids.append(token)
    return total


def ranked(decoder, prefix, length):
    every = list(itertools.product(range(VOCABULARY), repeat=length))
    return sorted(every, key=lambda suffix: -likelihood(decoder, prefix, suffix))


def slow_beams(decoder, prefix, length, width):
    kept = [((), 0.0)]
    for _ in range(length):
        longer = [
            ((*suffix, token), likelihood(decoder, prefix, (*suffix, token)))
            for suffix, _ in kept
            for token in range(VOCABULARY)
        ]
        kept = sorted(longer, key=lambda one: -one[1])[:width]
    return [list(suffix) for suffix, _ in kept]


PREFIXES = torch.tensor([[0, 1], [3, 3], [4, 2]])


@pytest.mark.parametrize("seed", range(3))
def test_a_beam_as_wide_as_the_space_ranks_it_all(seed):
    decoder = table(seed)
    found = Beam(VOCABULARY**3).continuations(decoder, PREFIXES, 3, NO_CHANCE)
    assert found.shape == (3, VOCABULARY**3, 3)
    for row, prefix in zip(found.tolist(), PREFIXES.tolist(), strict=True):
        assert row == [list(suffix) for suffix in ranked(decoder, prefix, 3)]


@pytest.mark.parametrize("width", [1, 2, 3, 7])
@pytest.mark.parametrize("seed", range(3))
def test_beams_are_those_of_a_slow_search(seed, width):
    decoder = table(seed)
    found = Beam(width).continuations(decoder, PREFIXES, 4, NO_CHANCE)
    for row, prefix in zip(found.tolist(), PREFIXES.tolist(), strict=True):
        assert row == slow_beams(decoder, prefix, 4, width)


def test_greedy_takes_the_likeliest_token_each_time():
    decoder, ids = table(), PREFIXES
    found = greedy().continuations(decoder, PREFIXES, 5, NO_CHANCE)
    for _ in range(5):
        ids = torch.cat([ids, decoder.log_probs_of(ids).argmax(-1, keepdim=True)], 1)
    assert found[:, 0].tolist() == ids[:, 2:].tolist()
    assert (greedy().name, greedy().guesses, Beam(3).name, Sampled(4).guesses) == ("greedy", 1, "beam", 4)


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.5, None), (2.0, 3), (1.0, 5)])
def test_samples_are_as_frequent_as_their_probabilities(temperature, top_k):
    decoder, draws = table(1), 20_000
    uniforms = torch.from_numpy(np.random.default_rng(0).random((1, draws, 2)))
    found = Sampled(draws, temperature, top_k).continuations(decoder, PREFIXES[:1], 2, uniforms)[0]

    def probabilities(ids):
        scores = decoder.log_probs_of(torch.tensor([ids]))[0].numpy() / temperature
        allowed = np.argsort(-scores)[: top_k or VOCABULARY]
        p = np.zeros(VOCABULARY)
        p[allowed] = np.exp(scores[allowed])
        return p / p.sum()

    expected = np.zeros((VOCABULARY, VOCABULARY))
    for first, p in enumerate(probabilities([0, 1])):
        expected[first] = p * probabilities([1, first])
    counts = np.zeros_like(expected)
    np.add.at(counts, tuple(found.numpy().T), 1)
    possible = expected > 0
    assert counts[~possible].sum() == 0
    assert stats.chisquare(counts[possible], draws * expected[possible]).pvalue > 0.001


def test_sampling_without_a_choice_is_greedy():
    uniforms = torch.from_numpy(np.random.default_rng(0).random((3, 2, 4)))
    likeliest = greedy().continuations(table(), PREFIXES, 4, NO_CHANCE).expand(-1, 2, -1)
    for strategy in (Sampled(2, top_k=1), Sampled(2, temperature=1e-6)):
        for chances in (uniforms, 0 * uniforms, 0 * uniforms + 1 - 2**-53):  # both ends of [0, 1)
            assert torch.equal(strategy.continuations(table(), PREFIXES, 4, chances), likeliest)


# --- models of Transformers ------------------------------------------------------------------------------------


def gpt2():
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=40, n_positions=24, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    )


def llama():
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=40,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=24,
        )
    )


@pytest.fixture(params=[gpt2, llama])
def model(request):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = request.param()
        for parameter in made.parameters():  # larger than at the start of training, so that tokens differ
            parameter.data.mul_(6)
    return made.eval()


def uncached(model):
    return FunctionDecoder(lambda ids: model(input_ids=ids, use_cache=False).logits[:, -1].double().log_softmax(-1))


@pytest.mark.parametrize("strategy", [greedy(), Beam(4), Sampled(5), Sampled(3, 0.7, 10)], ids=str)
def test_keys_and_values_kept_change_nothing(model, strategy):
    prefixes = torch.randint(40, (6, 5), generator=torch.Generator().manual_seed(1))
    uniforms = torch.from_numpy(np.random.default_rng(0).random((6, strategy.guesses, 8)))
    with torch.inference_mode():
        kept, again = (
            strategy.continuations(decoder, prefixes, 8, uniforms)
            for decoder in (KeyValueDecoder(model), uncached(model))
        )
    assert kept.shape == (6, strategy.guesses, 8)
    assert torch.equal(kept, again)
    assert len(kept.unique(dim=0)) > 1  # not one continuation whatever the prefix


@pytest.mark.parametrize("width", [1, 4])
def test_continuations_are_those_of_transformers(model, width):
    prefixes = torch.randint(1, 40, (4, 5), generator=torch.Generator().manual_seed(2))
    theirs = model.generate(
        prefixes,
        attention_mask=torch.ones_like(prefixes),
        do_sample=False,
        num_beams=width,
        num_return_sequences=width,
        min_new_tokens=6,
        max_new_tokens=6,
        eos_token_id=None,
        pad_token_id=0,
        length_penalty=0.0,
    )[:, 5:].view(4, width, 6)
    with torch.inference_mode():
        ours = Beam(width).continuations(KeyValueDecoder(model), prefixes, 6, NO_CHANCE)
    assert torch.equal(ours, theirs)


# --- what is refused -------------------------------------------------------------------------------------------


def test_models_that_cannot_be_asked_are_refused():
    with pytest.raises(ModelError, match="FunctionDecoder"):
        KeyValueDecoder(torch.nn.Linear(2, 2))
    for answer, error, says in [
        (torch.full((3, 5), torch.nan), GuaranteeError, "NaN"),
        (torch.zeros(3, 2, 5), ArgumentError, "shape"),
        (torch.zeros(1, 5), ArgumentError, "shape"),
    ]:
        with pytest.raises(error, match=says):
            greedy().continuations(FunctionDecoder(lambda ids, answer=answer: answer), PREFIXES, 2, NO_CHANCE)


def test_settings_out_of_range_are_refused():
    for make in (lambda: Beam(0), lambda: Sampled(0), lambda: Sampled(temperature=0), lambda: Sampled(top_k=0)):
        with pytest.raises(ArgumentError):
            make()
