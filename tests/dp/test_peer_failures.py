"""Failures seen in other libraries for private training, each as a test of this one; see docs/reference/peers.md.

Models are Hugging Face's own, made from their configurations with random weights, as users fine-tune them.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from rows import whole
from small_text import flat, trainable
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from trustnlp.dp import BookKeeping, Clip, ClippedSum, FlatClipping, PrivacyPlan, per_unit_clipped_sum
from trustnlp.dp.clipping import examples
from trustnlp.errors import GuaranteeError
from trustnlp.models.protocol import Batch
from trustnlp.randomness import Streams

STREAMS = Streams(3)
VOCABULARY, COUNT, TOKENS = 13, 24, 7
BERT = BertConfig(
    vocab_size=VOCABULARY, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12, num_labels=3
)
GPT2 = GPT2Config(
    vocab_size=VOCABULARY,
    n_positions=TOKENS,
    n_embd=8,
    n_layer=1,
    n_head=2,
    bos_token_id=None,
    eos_token_id=None,
    use_cache=False,
)


@dataclass(frozen=True)
class Dictionaries:
    """Data in batches of a tokenizer's names: `input_ids`, `attention_mask`, `labels`."""

    ids: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, indices) -> Batch:
        ids = self.ids[torch.as_tensor(np.asarray(indices, dtype=int))]
        return Batch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, {"labels": ids.sum(1) % 3})


DATA = Dictionaries(whole(COUNT, TOKENS, below=VOCABULARY))


def built(make, **options) -> nn.Module:
    """A model with random weights in float64; the global generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(**options).double().eval()


def bert():
    return built(lambda: BertForSequenceClassification(BERT))


def gpt2():
    return built(lambda: GPT2LMHeadModel(GPT2))


def loss(model, batch) -> torch.Tensor:
    """(B,) of a classifier or a language model, given what a tokenizer gives and no positions."""
    scores = model(**batch.inputs).logits
    if scores.dim() == 2:
        return nn.functional.cross_entropy(scores, batch.targets["labels"], reduction="none")
    following = batch.inputs["input_ids"][:, 1:]
    return nn.functional.cross_entropy(scores[:, :-1].mT, following, reduction="none").mean(1)


def sums(model, rows, clip_norm, clipped_sum):
    parameters = trainable(model)
    clipping = FlatClipping(clip_norm)
    clip = Clip(clipping, dict.fromkeys(parameters, 0), clipping.thresholds(1))
    return clipped_sum(model, functools.partial(loss, model), DATA, examples(rows), parameters, clip)


def distance(model, clip_norm=0.1) -> float:
    """How far the fast path is from one backward per example, on every parameter and norm; it must not fall back."""
    engine, rows = BookKeeping(4), np.arange(9)
    fast, slow = sums(model, rows, clip_norm, engine), sums(model, rows, clip_norm, per_unit_clipped_sum)
    assert engine.fallback == ""
    assert torch.allclose(fast.norms.double(), slow.norms.double(), rtol=1e-9)
    return float((flat(fast.gradients) - flat(slow.gradients)).norm() / flat(slow.gradients).norm())


PLAN = PrivacyPlan(COUNT, 6, 40, noise_multiplier=1.0, delta=1e-3, clipping=FlatClipping(0.5))


def prepared(model, plan=PLAN, rate=1.0, **options):
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, rate)
    return plan.step(model, optimizer, streams=STREAMS, loss=functools.partial(loss, model), **options)


def weights(model, trained=True) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad is trained}


class TestPositionsSharedByAllTexts:
    """A model that looks its positions up once, as (1, T), has one output for the B texts of a batch."""

    @pytest.mark.parametrize("make", [bert, gpt2])
    def test_positions_are_of_one_row(self, make):
        model, seen = make(), []
        embedding = model.bert.embeddings.position_embeddings if make is bert else model.transformer.wpe
        embedding.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
        loss(model, DATA.batch(range(4)))
        assert seen == [(1, TOKENS)]

    @pytest.mark.parametrize("make", [bert, gpt2])
    @pytest.mark.parametrize("clip_norm", [0.1, 1e9])
    def test_full_fine_tuning_is_exact(self, make, clip_norm):
        assert distance(make(), clip_norm) < 1e-10

    @pytest.mark.parametrize("make", [bert, gpt2])
    def test_positions_move(self, make):
        model = make()
        before = weights(model)
        prepared(model)(DATA, PLAN.sampler(STREAMS).draw(0))
        assert all(not torch.equal(before[name], after) for name, after in weights(model).items())


class TestTiedWeights:
    """Embedding and head are one tensor: its norm has a cross term, and is counted once."""

    def test_the_head_is_the_embedding(self):
        model = gpt2()
        assert model.lm_head.weight is model.transformer.wte.weight

    @pytest.mark.parametrize("clip_norm", [1e-3, 0.1, 1e9])
    def test_they_are_exact(self, clip_norm):
        assert distance(gpt2(), clip_norm) < 1e-10

    def test_either_norm_alone_and_both_without_the_cross_term_would_be_wrong(self):
        """So that the test above could fail: the three ways in which libraries get it wrong differ from the truth."""
        model, batch = gpt2(), DATA.batch([0])
        shared = model.lm_head.weight
        model.lm_head.weight = nn.Parameter(shared.detach().clone())
        parts = torch.autograd.grad(loss(model, batch).sum(), [shared, model.lm_head.weight])
        truth = float((parts[0] + parts[1]).norm())
        lookup, head = (float(part.norm()) for part in parts)
        assert all(abs(wrong / truth - 1) > 0.01 for wrong in (lookup, head, math.hypot(lookup, head)))

    def test_no_text_moves_the_sum_by_more_than_the_clip_norm(self):
        model, engine = gpt2(), BookKeeping(4)
        sizes = [float(flat(sums(model, [row], 0.1, engine).gradients).norm()) for row in range(6)]
        assert sizes == pytest.approx([0.1] * 6, rel=1e-9)


def with_adapters(model, targets):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=targets, fan_in_fan_out="c_attn" in targets)
    return built(lambda: peft.get_peft_model(model, config))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks for it
@pytest.mark.parametrize(("make", "targets"), [(bert, ["query", "value"]), (gpt2, ["c_attn"])])
class TestLoRA:
    """Adapters that a library does not see are noised without being trained, or not moved at all."""

    def test_adapters_are_exact(self, make, targets):
        model = with_adapters(make(), targets)
        with torch.no_grad():  # B is 0 at first, and then A has no gradient
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
        assert distance(model) < 1e-10

    def test_all_adapters_move_and_nothing_else_does(self, make, targets):
        model = with_adapters(make(), targets)
        step, moved, frozen = prepared(model), weights(model), weights(model, trained=False)
        assert moved
        assert all("lora" in name for name in moved)
        for number in range(2):
            step(DATA, PLAN.sampler(STREAMS).draw(number))
        assert all(not torch.equal(moved[name], after) for name, after in weights(model).items())
        assert all(torch.equal(frozen[name], after) for name, after in weights(model, trained=False).items())

    def test_a_step_that_moves_nothing_is_refused(self, make, targets):
        step = prepared(with_adapters(make(), targets), rate=0.0)
        with pytest.raises(GuaranteeError, match="epsilon was spent but no parameter moved"):
            step(DATA, PLAN.sampler(STREAMS).draw(0))

    def test_an_optimizer_without_the_adapters_is_refused(self, make, targets):
        model = with_adapters(make(), targets)
        frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
        with pytest.raises(GuaranteeError, match="lacks trainable parameters"):
            PLAN.step(model, torch.optim.SGD(frozen, 1.0), streams=STREAMS, loss=functools.partial(loss, model))


class TestEmptyDraw:
    """Poisson draws are empty now and then; a batch of named tensors without rows must not be an error."""

    PLAN = PrivacyPlan(COUNT, 1, 60, noise_multiplier=1.0, delta=1e-3, clipping=FlatClipping(0.5))

    def test_named_tensors_without_rows(self):
        empty = DATA.batch([])
        assert {name: tuple(tensor.shape) for name, tensor in empty.inputs.items()} == {
            "input_ids": (0, TOKENS),
            "attention_mask": (0, TOKENS),
        }

    @pytest.mark.parametrize("make", [bert, gpt2])
    def test_it_is_a_step_of_noise_alone(self, make):
        draws = list(self.PLAN.sampler(STREAMS))
        empty = next(draw for draw in draws if not len(draw.indices))
        model = make()
        step = prepared(model, self.PLAN)
        for draw in draws[: empty.step]:
            step(DATA, draw)
        before = weights(model)
        assert math.isnan(step(DATA, empty))
        update = flat({name: before[name] - after for name, after in weights(model).items()})
        assert step.ledger.spent == empty.step + 1
        assert float(update.std()) == pytest.approx(0.5, rel=5 / math.sqrt(2 * len(update)))  # sigma C / L
        assert abs(float(update.mean())) < 5 * 0.5 / math.sqrt(len(update))


class TestNormaliser:
    """The sum is divided by the public expected batch: a division by the drawn size tells it, and scales the noise."""

    @pytest.mark.parametrize("make", [bert, gpt2])
    def test_updates_are_divided_by_the_expected_batch_whatever_was_drawn(self, make):
        def a_million_each(model, loss, data, units, parameters, clip):
            sums = {name: torch.full_like(parameter, 1e6 * len(units)) for name, parameter in parameters.items()}
            return ClippedSum(sums, torch.ones(len(units), 1, dtype=torch.float64), 0.0)

        model, drawn = make(), set()
        step = prepared(model, clipped_sum=a_million_each)
        for draw in list(PLAN.sampler(STREAMS))[:5]:
            before = weights(model)
            step(DATA, draw)
            update = flat({name: before[name] - after for name, after in weights(model).items()})
            assert torch.allclose(update / 1e6, torch.full_like(update, len(draw.indices) / 6), atol=1e-5)
            drawn.add(len(draw.indices))
        assert len(drawn) > 2

    def test_noise_does_not_depend_on_how_many_were_drawn(self):
        """Noise of steps with few and with many texts has one deviation, sigma C / L."""
        model = bert()
        step, found = prepared(model), {}
        for draw in list(PLAN.sampler(STREAMS))[:6]:
            before = weights(model)
            signal = flat(sums(model, draw.indices, 0.5, per_unit_clipped_sum).gradients) / 6
            step(DATA, draw)
            noise = flat({name: before[name] - after for name, after in weights(model).items()}) - signal
            found[len(draw.indices)] = float(noise.std())
        assert len(found) > 2
        assert list(found.values()) == pytest.approx([0.5 / 6] * len(found), rel=5 / math.sqrt(2 * signal.numel()))
