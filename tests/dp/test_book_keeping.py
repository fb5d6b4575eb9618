import functools
import logging
import math
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import Loss, Rows, assert_one_backward_is_exact, both, clip_of, normal, random_weights, same, whole
from small_text import Tagger, Texts, flat, trainable
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from trustnlp import models
from trustnlp.data import Corpus, Example
from trustnlp.dp import (
    AutomaticClipping,
    FlatClipping,
    LayerwiseClipping,
    Unit,
    book_keeping,
    ghost_norms,
    layer_rules,
    per_unit_clipped_sum,
    recurrent_rules,
    tape,
)
from trustnlp.dp.book_keeping import BookKeeping
from trustnlp.dp.clipping import examples
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.models.crf import LinearChainCRF
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
    monkeypatch.setattr(layer_rules, "joined", lambda parts, units: units.joined(parts[-1]))


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
    monkeypatch.setattr(
        recurrent_rules, "OuterProducts", lambda a, g, biases, **rest: real(a, g, min(biases, 1), **rest)
    )


def everything(self, batch):
    """A model in which every bug shows."""
    ids = batch.inputs["ids"]
    hidden = self.norm(self.layer(self.embedding(ids)))
    hidden = self.layer(hidden.sin()) + self.lstm(hidden)[0]
    return nn.functional.cross_entropy(self.head(hidden.cumsum(1)).mT, ids, reduction="none").sum(1)


def everything_and_model():
    """A model in which every kind of rule has a part, and its data."""
    model = Loss(
        everything,
        embedding=nn.Embedding(5, 6, padding_idx=0),
        layer=nn.Linear(6, 6),
        norm=nn.LayerNorm(6),
        lstm=nn.LSTM(6, 6, batch_first=True),
        head=nn.Linear(6, 5),
    )
    model.head.weight = model.embedding.weight
    return random_weights(model), Rows({"ids": whole(12, 5, below=5)})


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

    def test_without_a_bug_there_is_nothing_to_notice(self):
        assert_one_backward_is_exact(*everything_and_model())

    @pytest.mark.parametrize("bug", BUGS)
    def test_the_comparison_notices(self, bug, monkeypatch):
        model, data = everything_and_model()
        monkeypatch.setattr("trustnlp.dp.book_keeping.disagreement", lambda *_: "")
        bug(monkeypatch)
        fast, found, expected = both(model, data, 0.1)
        assert fast.fallback == ""
        assert not same(found, expected, 1e-4)

    @pytest.mark.parametrize("bug", BUGS)
    def test_the_probe_notices_and_the_result_stays_right(self, bug, monkeypatch):
        model, data = everything_and_model()
        bug(monkeypatch)
        fast, found, expected = both(model, data, 0.1)
        assert "probe" in fast.fallback
        assert same(found, expected, 0)


def compared(model, data, units, clipping, physical_batch):
    """The engine asked, and whether it gave what one backward per unit gives."""
    fast, clip = BookKeeping(physical_batch), clip_of(model, clipping)
    arguments = (model, model.loss, data, units, trainable(model), clip)
    found, expected = fast(*arguments), per_unit_clipped_sum(*arguments)
    assert fast.fallback == ""
    assert found.mean_loss == pytest.approx(expected.mean_loss, nan_ok=True)
    return fast, same(found, expected)


CLIPPINGS = [FlatClipping(0.1), FlatClipping(1e9), LayerwiseClipping(0.3), AutomaticClipping()]


class TestUnits:
    """What is clipped as one may be several examples: their positions count as those of one long text."""

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.integers(0, 4), max_size=6), st.integers(1, 9), st.sampled_from(CLIPPINGS), st.integers(0, 9))
    def test_units_of_any_size_for_all_sizes_of_physical_batch(self, sizes, physical_batch, clipping, seed):
        model, data = everything_and_model()
        rng = np.random.default_rng(seed)
        units = [Unit(rng.permutation(12)[:size], float(rng.uniform(0.1, 2))) for size in sizes]
        assert compared(model, data, units, clipping, physical_batch)[1]

    @pytest.mark.parametrize("kind", ["gru", "rnn", "conv", "crf", "rms"])
    def test_other_layers(self, kind):
        layers = {
            "gru": nn.GRU(3, 4, batch_first=True, bidirectional=True),
            "rnn": nn.RNN(3, 4, batch_first=True),
            "conv": nn.Conv1d(5, 4, 2),
            "rms": nn.RMSNorm(3),
            "crf": LinearChainCRF(3),
        }

        def loss(self, batch):
            x = batch.inputs["x"]
            if kind == "crf":
                return self.layer(x.sin(), batch.inputs["tags"], batch.inputs["lengths"])
            output = self.layer(x)
            return (output if isinstance(output, torch.Tensor) else output[0]).sin().sum((1, 2))

        model = random_weights(Loss(loss, layer=layers[kind]))
        tensors = {"x": normal(9, 5, 3), "tags": whole(9, 5, below=3), "lengths": 1 + whole(9, below=5)}
        units = [Unit(np.array(rows), 0.5) for rows in ([0, 1, 2], [3], [4, 5])]
        assert compared(model, Rows(tensors), units, FlatClipping(0.1), 9)[1]

    def test_a_unit_larger_than_a_physical_batch_goes_alone(self, monkeypatch):
        slow = []

        def watched(*arguments):
            slow.append(len(arguments[3]))
            return per_unit_clipped_sum(*arguments)

        model, data = everything_and_model()
        units = [Unit(np.arange(7)), Unit(np.array([7])), Unit(np.arange(8, 12))]
        compared(model, data, units, FlatClipping(0.1), 4)  # the probe is behind us
        monkeypatch.setattr(book_keeping, "per_unit_clipped_sum", watched)
        monkeypatch.setattr(book_keeping, "disagreement", lambda *_: "")
        assert compared(model, data, units, FlatClipping(0.1), 4)[1]
        assert slow == [1]

    def test_one_row_more_of_a_unit_changes_it_by_no_more_than_its_threshold(self):
        model, data = everything_and_model()
        sums = []
        for last in (3, 7):
            fast, clip = BookKeeping(8), clip_of(model, 0.2)
            units = [Unit(np.array([0, 1])), Unit(np.arange(2, last))]
            sums.append(flat(fast(model, model.loss, data, units, trainable(model), clip).gradients))
        assert 0.01 < float((sums[1] - sums[0]).norm()) <= 0.4 * (1 + 1e-9)


class TestInsideBackward:
    """Where every layer has its own threshold, it is clipped and forgotten while backward goes on."""

    @pytest.mark.parametrize("clipping", [LayerwiseClipping(0.3), LayerwiseClipping(1e9)])
    def test_it_is_the_slow_path(self, clipping):
        model, data = everything_and_model()
        assert compared(model, data, examples(range(12)), clipping, 5)[1]

    @pytest.mark.parametrize(("clipping", "held"), [(LayerwiseClipping(), 2), (FlatClipping(), 7)])
    def test_what_is_kept_is_dropped_layer_by_layer(self, clipping, held, monkeypatch):
        """The most layers whose output gradients are held at one time, of seven in a row."""
        layers = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(7)))
        model = random_weights(Loss(lambda self, batch: self.layers(batch.inputs["x"]).sum((1, 2)), layers=layers))
        alive, most = weakref.WeakSet(), []

        class Counted(tape.Kept):
            def __init__(self, tensor):
                super().__init__(tensor)
                if not torch.is_grad_enabled():  # in backward
                    alive.add(self)
                    most.append(len(alive))

        engine, data, clip = BookKeeping(), Rows({"x": normal(5, 3, 4)}), clip_of(model, clipping)
        engine(model, model.loss, data, examples([0]), trainable(model), clip)
        monkeypatch.setattr(tape, "Kept", Counted)
        engine(model, model.loss, data, examples(range(5)), trainable(model), clip)
        assert engine.fallback == ""
        assert len(most) == 7
        assert max(most) <= held
        assert (max(most) == 7) is (held == 7)

    def test_a_layer_that_the_loss_does_not_always_reach(self):
        def loss(self, batch):
            x = batch.inputs["x"]
            self.idle(x)
            self.layer(x)  # one call that leads nowhere, and one that does
            return self.layer(x).sin().sum((1, 2))

        model = random_weights(Loss(loss, idle=nn.Linear(3, 3), layer=nn.Linear(3, 3)))
        assert compared(model, Rows({"x": normal(4, 5, 3)}), examples(range(4)), LayerwiseClipping(0.1), 3)[1]

    def test_what_is_not_finite_is_refused(self):
        model, engine = Tagger(), BookKeeping()
        clip = clip_of(model, LayerwiseClipping())
        engine(model, model.loss, TEXTS, examples([0]), trainable(model), clip)
        with pytest.raises(GuaranteeError, match="no clipping bounds"):
            engine(model, lambda batch: model.loss(batch) * math.inf, TEXTS, examples([0, 1]), trainable(model), clip)
        assert not any("forward" in module.__dict__ for module in model.modules())

    def test_another_clipping_of_the_same_model_is_looked_at_anew(self):
        model, engine = Tagger(), BookKeeping()
        for clipping in (FlatClipping(0.1), LayerwiseClipping(0.1), FlatClipping(0.1)):
            arguments = (model, model.loss, TEXTS, examples(range(9)), trainable(model), clip_of(model, clipping))
            assert same(engine(*arguments), per_unit_clipped_sum(*arguments))
            assert engine.fallback == ""

    def test_inputs_of_several_layers_are_multiplied_once(self, monkeypatch):
        def loss(self, batch):
            x = self.first(batch.inputs["x"]).sin()
            return (self.query(x) * self.key(x) + self.value(x)).sin().sum((1, 2))

        model = Loss(loss, **{name: nn.Linear(6, 6) for name in ("first", "query", "key", "value")})
        made, real = [], tape.Kept.products
        monkeypatch.setattr(tape.Kept, "products", lambda kept: made.append(id(kept)) or real(kept))
        for clipping in (FlatClipping(0.1), LayerwiseClipping(0.1)):
            made.clear()
            assert compared(random_weights(model), Rows({"x": normal(4, 2, 6)}), examples(range(4)), clipping, 4)[1]
            assert len(made) % 3 == 0
            assert len(set(made)) < len(made)


class TestCheckpointing:
    """Layers that are computed a second time in backward count once."""

    def case(self, reentrant):
        def loss(self, batch):
            hidden = self.embedding(batch.inputs["ids"])
            hidden = checkpoint(lambda x: self.layer(self.norm(self.layer(x).sin())), hidden, use_reentrant=reentrant)
            return self.head(hidden.sin()).logsumexp(-1).sum(1)

        layers = {"embedding": nn.Embedding(5, 4), "layer": nn.Linear(4, 4), "norm": nn.LayerNorm(4)}
        return random_weights(Loss(loss, **layers, head=nn.Linear(4, 3))), Rows({"ids": whole(7, 5, below=5)})

    @pytest.mark.parametrize("clipping", [FlatClipping(0.1), LayerwiseClipping(0.1)])
    def test_half_of_a_model(self, clipping):
        assert compared(*self.case(reentrant=False), examples(range(7)), clipping, 3)[1]

    def test_reentrance_is_refused(self):
        with pytest.raises(RuntimeError, match="use_reentrant=False"):
            both(*self.case(reentrant=True), 0.1)

    @pytest.mark.parametrize("clipping", [FlatClipping(0.1), LayerwiseClipping(0.1)])
    def test_bert(self, clipping):
        config = BertConfig(
            vocab_size=13, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12, num_labels=3
        )
        config._attn_implementation = "eager"
        bert = random_weights(BertForSequenceClassification(config)).train()
        for module in bert.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        enable = getattr(bert, "activation_checkpointing_enable", bert.gradient_checkpointing_enable)
        enable({"use_reentrant": False})
        assert any(getattr(module, "gradient_checkpointing", False) for module in bert.modules())
        model = Loss(lambda self, batch: self.bert(input_ids=batch.inputs["ids"]).logits.logsumexp(1), bert=bert)
        assert compared(model, Rows({"ids": whole(5, 7, below=13)}), examples(range(5)), clipping, 3)[1]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
class TestCompiled:
    def model(self, **layers):
        def loss(self, batch):
            output = self.layer(batch.inputs["x"])
            return (self.bend(output) if hasattr(self, "bend") else output.sin()).sum((1, 2))

        return Loss(loss, **layers)

    def test_a_compiled_model_goes_the_slow_way_and_says_so(self):
        model = random_weights(
            Loss(lambda self, batch: self.layer(batch.inputs["x"]).sin().sum((1, 2)), layer=nn.Linear(3, 3))
        )
        model.layer.compile(backend="eager")
        fast, found, expected = both(model, Rows({"x": normal(4, 5, 3)}), 0.1)
        assert "torch.compile" in fast.fallback
        assert same(found, expected, 0)

    def test_a_compiled_module_inside(self):
        compiled = torch.compile(random_weights(nn.Linear(3, 3)), backend="eager")
        model = self.model(layer=compiled)
        fast, found, expected = both(model, Rows({"x": normal(4, 5, 3)}), 0.1)
        assert "torch.compile" in fast.fallback
        assert same(found, expected, 0)

    def test_a_compiled_part_without_trained_parameters_is_no_matter(self):
        bend = torch.compile(nn.Tanh(), backend="eager")
        model = Loss(
            lambda self, batch: self.bend(self.layer(batch.inputs["x"])).sum((1, 2)), layer=nn.Linear(3, 3), bend=bend
        )
        assert_one_backward_is_exact(random_weights(model), Rows({"x": normal(4, 5, 3)}))


class TestAutocast:
    @pytest.mark.parametrize("clipping", [FlatClipping(0.1), LayerwiseClipping(0.1), FlatClipping(1e9)])
    @pytest.mark.parametrize("outside", [False, True])
    def test_bfloat16(self, clipping, outside):
        """Both sides round activations to 8 bits; inputs of products are rounded by the slow path alone."""

        def loss(self, batch):
            with torch.autocast("cpu", torch.bfloat16):
                hidden = self.norm(self.layer(self.embedding(batch.inputs["ids"])))
                return self.head(hidden).float().logsumexp(-1).sum(1)

        layers = {"embedding": nn.Embedding(9, 8), "layer": nn.Linear(8, 8), "norm": nn.LayerNorm(8)}
        model = random_weights(Loss(loss, **layers, head=nn.Linear(8, 5))).float()
        data, engine, clip = Rows({"ids": whole(8, 6, below=9)}), BookKeeping(4), clip_of(model, clipping)
        arguments = (model, model.loss, data, examples(range(8)), trainable(model), clip)
        with torch.autocast("cpu", torch.bfloat16, enabled=outside):
            found = engine(*arguments)
        assert engine.fallback == ""
        one, other = flat(found.gradients), flat(per_unit_clipped_sum(*arguments).gradients)
        assert float((one - other).norm()) <= 2**-6 * float(other.norm())
        assert all(gradient.dtype is torch.float32 for gradient in found.gradients.values())
        assert float(one.norm()) <= 8 * float(clip.thresholds.norm()) * (1 + 1e-6)
