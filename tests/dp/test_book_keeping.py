import functools
import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import Loss, Rows, assert_one_backward_is_exact, both, clip_of, normal, random_weights, same, whole
from small_text import Tagger, Texts, flat, trainable
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from trustnlp import models
from trustnlp.data import Corpus, Example
from trustnlp.dp import ghost_norms, layer_rules, recurrent_rules
from trustnlp.dp.book_keeping import BookKeeping
from trustnlp.dp.clipping import examples
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.randomness import Streams

TEXTS = Texts.random(9)
TRAIN = tuple(
    Example(" ".join(words), label, tuple("B-x" if word == "jazz" else "O" for word in words))
    for words, label in [
        (["play", "jazz"], "a"),
        (["wake", "me", "at", "noon", "or", "never"], "b"),
        (["jazz", "jazz", "and", "jazz"], "a"),
        (["stop"], "b"),
        (["more", "jazz", "for", "everybody", "today"], "a"),
    ]
)


class TestOneBackward:
    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, 9), st.integers(1, 10), st.integers(0, 99), st.sampled_from([0.1, 1e9]))
    def test_it_is_the_slow_path_for_all_sizes_of_draw_and_physical_batch(self, count, size, seed, clip_norm):
        model = Tagger(seed=seed)
        indices = np.random.default_rng(seed).permutation(9)[:count]
        fast, found, expected = both(model, TEXTS, clip_norm, size, indices)
        assert fast.fallback == ""
        assert same(found, expected)
        assert found.mean_loss == pytest.approx(expected.mean_loss, nan_ok=True)

    def test_no_example_gives_zeros(self):
        _, found, _ = both(Tagger(), TEXTS, 1.0, indices=[])
        assert not flat(found.gradients).any()
        assert found.norms.shape == (0, 1)
        assert math.isnan(found.mean_loss)

    def test_one_more_example_moves_the_sum_by_at_most_the_clip_norm(self):
        model = Tagger(dropout=0.0)
        sums = [flat(both(model, TEXTS, 0.2, indices=range(count))[1].gradients) for count in (6, 7)]
        assert 0.1 < float((sums[1] - sums[0]).norm()) <= 0.2 * (1 + 1e-9)

    def test_the_model_is_left_as_it_was(self):
        model = Tagger()
        model.head.bias.requires_grad_(False)
        model.head.weight.grad = held = torch.ones_like(model.head.weight)
        before = {name: (p.requires_grad, p.grad, p._version) for name, p in model.named_parameters()}
        both(model, TEXTS, 0.1)
        assert {name: (p.requires_grad, p.grad, p._version) for name, p in model.named_parameters()} == before
        assert model.head.weight.grad is held
        assert not any("forward" in module.__dict__ for module in model.modules())

    def test_dropout_draws_from_the_global_generator(self):
        model, engine = Tagger(dropout=0.5), BookKeeping(4)
        sums = []
        for seed in (0, 0, 1):
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                sums.append(
                    flat(
                        engine(
                            model, model.loss, TEXTS, examples(range(9)), trainable(model), clip_of(model, 0.1)
                        ).gradients
                    )
                )
        assert engine.fallback == ""
        assert torch.equal(sums[0], sums[1])
        assert not torch.allclose(sums[0], sums[2])

    def test_half_precision_is_summed_in_single(self):
        model, engine = Tagger().bfloat16(), BookKeeping()
        found = engine(model, model.loss, TEXTS, examples(range(9)), trainable(model), clip_of(model, 0.1))
        assert engine.fallback == ""
        assert all(gradient.dtype is torch.float32 for gradient in found.gradients.values())
        assert float(flat(found.gradients).norm()) <= 0.9 * (1 + 1e-6)

    @pytest.mark.parametrize("poison", [math.nan, math.inf])
    def test_what_is_not_finite_is_refused(self, poison):
        model, engine = Tagger(), BookKeeping()
        engine(model, model.loss, TEXTS, examples([0]), trainable(model), clip_of(model, 1.0))
        poisoned = functools.partial(lambda batch: model.loss(batch) * poison)
        with pytest.raises(GuaranteeError, match="no clipping bounds"):
            engine(model, poisoned, TEXTS, examples([0, 1]), trainable(model), clip_of(model, 1.0))
        assert not any("forward" in module.__dict__ for module in model.modules())
        assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())

    @pytest.mark.parametrize("clip_norm", [0.0, -1.0, math.nan, math.inf])
    def test_bad_clip_norms_are_refused(self, clip_norm):
        with pytest.raises(ArgumentError, match="clip_norm"):
            both(Tagger(), TEXTS, clip_norm)

    def test_a_physical_batch_has_examples(self):
        with pytest.raises(ArgumentError, match="physical_batch"):
            BookKeeping(0)


def language_model(batch_ids, model):
    scores = model(input_ids=batch_ids).logits[:, :-1]
    return nn.functional.cross_entropy(scores.mT, batch_ids[:, 1:], reduction="none").mean(1)


class TestWholeModels:
    @pytest.mark.parametrize("clip_norm", [0.1, 1e9])
    @pytest.mark.parametrize("kind", ["bilstm", "transformer"])
    def test_models_from_scratch(self, kind, clip_norm):
        corpus = Corpus("tiny", TRAIN)
        small = {"buckets": 64, "char_width": 3, "char_filters": 4}
        small |= {"hidden": 5, "width": 6} if kind == "bilstm" else {"width": 16, "heads": 2, "layers": 1}
        model = random_weights(models.build(kind, corpus, streams=Streams(0), **small)).eval()
        assert_one_backward_is_exact(model, model.encode(TRAIN, for_training=True), clip_norm, physical_batch=2)

    @pytest.mark.parametrize("clip_norm", [0.1, 1e9])
    def test_gpt2_with_its_tied_head(self, clip_norm):
        config = GPT2Config(vocab_size=13, n_positions=12, n_embd=8, n_layer=1, n_head=2)
        gpt2 = random_weights(GPT2LMHeadModel(config)).eval()
        assert gpt2.lm_head.weight is gpt2.transformer.wte.weight
        model = Loss(lambda self, batch: language_model(batch.inputs["ids"], self.gpt2), gpt2=gpt2)
        assert_one_backward_is_exact(model, Rows({"ids": whole(5, 7, below=13)}), clip_norm, physical_batch=3)

    def test_bert_whose_positions_are_one_row_for_all(self):
        config = BertConfig(
            vocab_size=13, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12, num_labels=3
        )
        bert = random_weights(BertForSequenceClassification(config)).eval()
        model = Loss(lambda self, batch: self.bert(input_ids=batch.inputs["ids"]).logits.logsumexp(1), bert=bert)
        assert_one_backward_is_exact(model, Rows({"ids": whole(5, 7, below=13)}), physical_batch=3)


def functional(self, batch):
    return nn.functional.linear(self.layer(batch.inputs["x"]), self.layer.weight).sin().sum((1, 2))


def sorted_by_length(self, batch):
    order = batch.inputs["lengths"].argsort(stable=True)
    return self.layer(batch.inputs["x"][order])[order.argsort()].sin().sum((1, 2))


def positions_first(self, batch):
    return self.layer(batch.inputs["x"].transpose(0, 1)).sin().sum((0, 2))


def overwritten(self, batch):
    hidden = batch.inputs["x"].exp()
    output = self.layer(hidden).detach() + self.layer(hidden)
    hidden.mul_(2)
    return output.sin().sum((1, 2))


def penalised(self, batch):
    x = batch.inputs["x"].clone().requires_grad_()
    (slope,) = torch.autograd.grad(self.layer(x).sin().sum(), x, create_graph=True)
    return slope.square().sum((1, 2))


def over_rows_of_tokens(self, batch):
    x = batch.inputs["x"]
    return self.layer(x.flatten(0, 1)).sin().view(len(x), -1).sum(1)


def of_the_whole_batch(self, batch):
    return self.layer(batch.inputs["x"]).sin().sum()


class TestFallback:
    """What the rules cannot follow goes the slow way, with the same result, and says so."""

    @pytest.mark.parametrize(
        ("loss", "reason"),
        [
            (functional, "outside their layers: layer.weight"),
            (sorted_by_length, "not those of one backward"),
            (positions_first, "batch of 3 examples"),
            (penalised, "takes gradients itself"),
            (over_rows_of_tokens, "batch of 3 examples"),
        ],
    )
    def test_uses_that_cannot_be_followed(self, loss, reason, caplog):
        model = random_weights(Loss(loss, layer=nn.Linear(4, 4)))
        data = Rows({"x": normal(9, 5, 4), "lengths": whole(9, below=50)})
        with caplog.at_level(logging.WARNING):
            fast, found, expected = both(model, data, 0.1)
        assert reason in fast.fallback
        assert "slow" in caplog.text
        assert same(found, expected, 0)
        assert not any("forward" in module.__dict__ for module in model.modules())

    def test_an_input_overwritten_in_place(self):
        """Plain autograd notices, as it keeps the input for the weight; the tape has to notice by itself."""
        model, engine = random_weights(Loss(overwritten, layer=nn.Linear(4, 4))), BookKeeping()
        data = Rows({"x": normal(9, 5, 4)})
        with pytest.raises(RuntimeError, match="inplace"):
            engine(model, model.loss, data, examples(range(9)), trainable(model), clip_of(model, 0.1))

    def test_a_use_that_begins_later_is_still_noticed(self):
        model, engine = random_weights(Loss(functional, layer=nn.Linear(4, 4))), BookKeeping(4)
        data, parameters = Rows({"x": normal(9, 5, 4)}), trainable(model)

        def harmless(batch):
            return model.layer(batch.inputs["x"]).sin().sum((1, 2))

        engine(model, harmless, data, examples(range(9)), parameters, clip_of(model, 0.1))
        assert engine.fallback == ""
        found = engine(model, model.loss, data, examples(range(9)), parameters, clip_of(model, 0.1))
        assert "layer.weight" in engine.fallback
        _, _, expected = both(model, data, 0.1)
        assert same(found, expected, 0)

    def test_a_forward_method_replaced_later_stays_replaced(self):
        engine, model = BookKeeping(), Tagger()
        engine(model, model.loss, TEXTS, examples([0]), trainable(model), clip_of(model, 0.1))
        model.head.forward = replaced = lambda x: 2 * nn.Linear.forward(model.head, x)
        found = engine(model, model.loss, TEXTS, examples(range(9)), trainable(model), clip_of(model, 0.1))
        assert "replaced" in engine.fallback
        assert model.head.forward is replaced
        assert same(found, both(model, TEXTS, 0.1)[2], 0)

    def test_a_layer_without_a_rule_sends_the_whole_model_the_slow_way(self):
        model = Tagger()
        model.extra = nn.Bilinear(2, 2, 2).double()
        fast, found, expected = both(model, TEXTS, 0.1)
        assert fast.fallback == "extra (Bilinear): no rule for this type of layer"
        assert same(found, expected, 0)

    def test_long_lists_of_reasons_are_cut(self):
        model = Tagger()
        model.extra = nn.ModuleList(nn.Bilinear(2, 2, 2).double() for _ in range(5))
        assert both(model, TEXTS, 0.1)[0].fallback.endswith("and 2 more")

    def test_another_model_is_looked_at_anew(self):
        engine, slow, quick = BookKeeping(), Tagger(), Tagger()
        slow.extra = nn.Bilinear(2, 2, 2).double()
        for model, falls in ((slow, True), (quick, False), (slow, True)):
            engine(model, model.loss, TEXTS, examples([0]), trainable(model), clip_of(model, 0.1))
            assert bool(engine.fallback) is falls

    def test_the_probe_is_made_once_for_each_mode(self, monkeypatch):
        calls = []
        monkeypatch.setattr("trustnlp.dp.book_keeping.disagreement", lambda *_: calls.append(1) or "")
        engine, model = BookKeeping(), Tagger()
        for training in (True, True, False):
            model.train(training)
            engine(model, model.loss, TEXTS, examples([0]), trainable(model), clip_of(model, 0.1))
        assert len(calls) == 2


def without_bias_in_the_norm(monkeypatch):
    real = ghost_norms.OuterProducts.squared_norms
    monkeypatch.setattr(
        ghost_norms.OuterProducts,
        "squared_norms",
        lambda self: real(ghost_norms.OuterProducts(self.a, self.g, 0)),
    )


def with_each_example_in_another_ones_place(monkeypatch):
    real = ghost_norms.OuterProducts.squared_norms
    monkeypatch.setattr(ghost_norms.OuterProducts, "squared_norms", lambda self: real(self).flip(0))


def without_factors(monkeypatch):
    def unclipped(self, total, factors):
        real(self, total, torch.ones_like(factors))

    real = ghost_norms.OuterProducts.add_matrix
    monkeypatch.setattr(ghost_norms.OuterProducts, "add_matrix", unclipped)


def with_the_last_call_alone(monkeypatch):
    monkeypatch.setattr(layer_rules, "joined", lambda parts: parts[-1])


def without_equal_ids(monkeypatch):
    monkeypatch.setattr(ghost_norms, "gram_norms", lambda products, g: (g.square()).sum((1, 2)))


def with_padding(monkeypatch):
    real = layer_rules.EmbeddingRule._take

    def take(self, pairs):
        self.module.padding_idx, padding = None, self.module.padding_idx
        real(self, pairs)
        self.module.padding_idx = padding

    monkeypatch.setattr(layer_rules.EmbeddingRule, "_take", take)


def without_normalising(monkeypatch):
    monkeypatch.setattr(layer_rules.NormRule, "_normalised", lambda self, value: value)


def without_the_cross_term(monkeypatch):
    monkeypatch.setattr(layer_rules, "inner_products", lambda lookups, products: 0.0)


def with_states_of_the_same_step(monkeypatch):
    monkeypatch.setattr(recurrent_rules._Call, "before", lambda self: self.states())


def with_one_of_two_biases(monkeypatch):
    real = recurrent_rules.OuterProducts
    monkeypatch.setattr(recurrent_rules, "OuterProducts", lambda a, g, biases: real(a, g, min(biases, 1)))


def everything(self, batch):
    """A model in which every bug shows."""
    ids = batch.inputs["ids"]
    hidden = self.norm(self.layer(self.embedding(ids)))
    hidden = self.layer(hidden.sin()) + self.lstm(hidden)[0]
    return nn.functional.cross_entropy(self.head(hidden.cumsum(1)).mT, ids, reduction="none").sum(1)


BUGS = [
    without_bias_in_the_norm,
    with_each_example_in_another_ones_place,
    without_factors,
    with_the_last_call_alone,
    without_equal_ids,
    with_padding,
    without_normalising,
    without_the_cross_term,
    with_states_of_the_same_step,
    with_one_of_two_biases,
]


class TestPlantedBugs:
    """The comparison that proves the rules right, and the probe of every run, are shown to notice bugs."""

    def case(self):
        model = Loss(
            everything,
            embedding=nn.Embedding(5, 6, padding_idx=0),
            layer=nn.Linear(6, 6),
            norm=nn.LayerNorm(6),
            lstm=nn.LSTM(6, 6, batch_first=True),
            head=nn.Linear(6, 5),
        )
        model.head.weight = model.embedding.weight
        return random_weights(model), Rows({"ids": whole(6, 5, below=5)})

    def test_without_a_bug_there_is_nothing_to_notice(self):
        assert_one_backward_is_exact(*self.case())

    @pytest.mark.parametrize("bug", BUGS)
    def test_the_comparison_notices(self, bug, monkeypatch):
        model, data = self.case()
        monkeypatch.setattr("trustnlp.dp.book_keeping.disagreement", lambda *_: "")
        bug(monkeypatch)
        fast, found, expected = both(model, data, 0.1)
        assert fast.fallback == ""
        assert not same(found, expected, 1e-4)

    @pytest.mark.parametrize("bug", BUGS)
    def test_the_probe_notices_and_the_result_stays_right(self, bug, monkeypatch):
        model, data = self.case()
        bug(monkeypatch)
        fast, found, expected = both(model, data, 0.1)
        assert "probe" in fast.fallback
        assert same(found, expected, 0)
