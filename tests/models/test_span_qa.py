"""Span question answering: targets, the best span, learning by plain and private steps, saving; SQuAD where it is."""

import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_questions import TINY, TRAIN, save_bert

from trustnlp import data, models
from trustnlp.data.corpus import Answer, Example
from trustnlp.dp import PrivacyPlan, per_unit_clipped_sum
from trustnlp.dp.book_keeping import BookKeeping
from trustnlp.dp.clipping import Clip, examples
from trustnlp.errors import ArgumentError, CorpusError, ModelError
from trustnlp.models import text_scores
from trustnlp.models.span_qa import best_spans
from trustnlp.models.training import PlainStep, ShuffledBatches, fit
from trustnlp.randomness import Streams


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(params=["reader", "pretrained"])
def model(request, bert):
    if request.param == "reader":
        return models.build_span_model(streams=Streams(0), **TINY)
    return models.build_span_model(bert, streams=Streams(0), dropout=0.0)


def small(**options):
    return models.build_span_model(streams=Streams(0), **(TINY | options))


class TestTargets:
    @pytest.mark.parametrize(
        ("text", "start", "answer", "positions"),
        [
            ("Ada met Bob.", 8, "Bob", (2, 2)),
            ("Ada met Bob.", 4, "met Bob.", (1, 3)),
            ("Ada met Bob.", 3, " met ", (1, 1)),  # white space at the ends is of no word
            ("in 1973-74", 3, "1973", (1, 1)),
            ("the 10th", 4, "10", (1, 1)),  # inside a word: the word
            ("bob and bob", 8, "bob", (2, 2)),  # the place counts, not the text
        ],
    )
    def test_are_the_words_of_the_first_answer(self, text, start, answer, positions):
        asked = Example(text, question="?", answers=(Answer(start, answer), Answer(0, text)))
        batch = small().encode([asked], for_training=True).batch([0])
        assert (batch.targets["start"].item(), batch.targets["end"].item()) == positions

    def test_an_answer_that_is_cut_off_has_none(self):
        encoded = small(max_words=7).encode(TRAIN[:2])
        assert encoded.complete.tolist() == [True, False]
        assert encoded.batch([1]).targets["start"].tolist() == [-100]
        assert np.isnan(models.losses(small(max_words=7), encoded)).tolist() == [False, True]
        # Half of it is seen: that is not the answer.
        cut = Example("she lives in new york", question="Where?", answers=(Answer(13, "new york"),))
        assert not small(max_words=4).encode([cut]).complete.any()

    def test_training_refuses_what_has_no_loss(self):
        unanswered = Example("Ada left.", question="Who?")
        with pytest.raises(ModelError, match="2 training examples, the first of them 1, have no answer in the part"):
            small(max_words=7).encode([TRAIN[0], TRAIN[1], unanswered], for_training=True)
        with pytest.raises(ModelError, match="example 0 asks no question"):
            small().encode([Example("Ada left.")])


class TestBestSpan:
    @given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**32 - 1))
    def test_against_all_spans(self, width, longest, seed):
        start, end = torch.randn(2, 3, width, generator=torch.Generator().manual_seed(seed))
        found = best_spans(start, end, longest)
        for row in range(3):
            spans = [(i, j) for i in range(width) for j in range(i, min(width, i + longest))]
            best = max(spans, key=lambda span: (start[row, span[0]] + end[row, span[1]]).item())
            assert tuple(found[row].tolist()) == best

    def test_never_leaves_the_context(self):
        least = torch.finfo(torch.float32).min
        scores = torch.tensor([[least, least, -3.0, -4.0, least]])
        assert best_spans(scores, scores, 5).tolist() == [[2, 2]]

    def test_a_length_below_one_is_refused(self):
        with pytest.raises(ArgumentError, match="'longest' must be a whole number >= 1"):
            best_spans(torch.zeros(1, 2), torch.zeros(1, 2), 0)


def test_the_loss_is_the_mean_of_both_ends(model):
    model.eval()
    encoded = model.encode(TRAIN)
    batch = encoded.batch(range(5))
    with torch.no_grad():
        logits = model.logits(batch)
    for row, loss in enumerate(models.losses(model, encoded)[:5]):
        parts = [
            -logits[end][row].double().softmax(0)[batch.targets[end][row]].log().item() for end in ("start", "end")
        ]
        assert loss == pytest.approx(sum(parts) / 2, abs=1e-5)


def test_it_learns_to_answer_as_asked(model):
    streams = Streams(1)
    encoded = model.encode(TRAIN, for_training=True)
    before = models.evaluate(model, encoded)
    step = PlainStep(model, torch.optim.Adam(model.parameters(), 1e-2))
    fit(model, encoded, ShuffledBatches(len(TRAIN), 6, 12, streams), step, streams=streams)
    model.train()
    figures = models.evaluate(model, encoded)
    assert model.training
    assert set(figures) == {"score", "f1", "exact_match", "loss"}
    assert figures["exact_match"] > 0.9 > before["exact_match"]
    assert figures["loss"] < before["loss"] / 2
    for answer, example in zip(model.answers(encoded), TRAIN, strict=True):
        assert example.text.startswith(answer.text, answer.start)


def test_longer_answers_are_not_given():
    model = small()
    assert all(len(answer.text.split()) == 1 for answer in model.answers(model.encode(TRAIN), longest=1))


def test_figures_need_right_answers():
    model = small()
    with pytest.raises(CorpusError, match="no right answer to compare with"):
        models.evaluate(model, model.encode([Example("Ada left.", question="Who?")]))
    with pytest.raises(ArgumentError, match="'encoded' must be not empty"):
        models.evaluate(model, model.encode([]))
    # Nothing to compute a loss from, but an answer to compare with.
    cut = small(max_words=2)
    assert "loss" not in models.evaluate(cut, cut.encode(TRAIN))


class TestPrivateTraining:
    def test_one_backward_gives_the_sums_of_one_per_example(self, model):
        model = model.double().eval()
        data = model.encode(TRAIN[:6], for_training=True)
        plan = PrivacyPlan(6, 3, 3, noise_multiplier=1.0, delta=0.01)
        parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        clip = Clip(plan.clipping, plan.clipping.groups(model, parameters), plan.clipping.thresholds(1) * 0.1)
        engine, units = BookKeeping(3), examples(range(6))
        found = engine(model, model.loss, data, units, parameters, clip)
        expected = per_unit_clipped_sum(model, model.loss, data, units, parameters, clip)
        assert engine.fallback == ""
        assert float(expected.norms.min()) > 0.1  # every example is clipped
        for name, gradient in expected.gradients.items():
            torch.testing.assert_close(found.gradients[name], gradient, rtol=1e-6, atol=1e-9)

    def test_it_trains_under_a_plan(self, model):
        streams = Streams(2)
        encoded = model.encode(TRAIN, for_training=True)
        plan = PrivacyPlan(len(TRAIN), 8, 5, noise_multiplier=0.5, delta=0.01)
        engine = BookKeeping(8)
        step = plan.step(model, torch.optim.Adam(model.parameters(), 1e-3), streams=streams, clipped_sum=engine)
        history = fit(model, encoded, plan.sampler(streams), step, streams=streams)
        assert engine.fallback == ""
        assert (history.steps, step.ledger.spent) == (5, 5)


class TestBuilding:
    def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator(self, bert):
        before = torch.get_rng_state()
        for source, options in (("reader", TINY), (bert, {})):
            one, same, other = (
                models.build_span_model(source, streams=Streams(seed), **options).state_dict() for seed in (0, 0, 1)
            )
            assert all(torch.equal(one[name], same[name]) for name in one)
            assert not torch.equal(one["reader.ends.weight"], other["reader.ends.weight"])
        assert torch.equal(before, torch.get_rng_state())

    def test_an_option_that_it_does_not_have(self):
        with pytest.raises(ArgumentError, match="'options' must be among buckets"):
            small(layers=2)

    def test_a_saved_model_answers_the_same(self, model, tmp_path):
        model.eval()
        models.save(model, tmp_path / "model")
        again = models.load(tmp_path / "model")
        assert isinstance(again, models.SpanModel)
        assert not again.training
        assert again.answers(again.encode(TRAIN)) == model.answers(model.encode(TRAIN))
        assert np.array_equal(models.losses(again, again.encode(TRAIN)), models.losses(model, model.encode(TRAIN)))

    def test_it_is_not_taken_for_a_model_to_audit(self, tmp_path):
        models.save(small(), tmp_path)
        with pytest.raises(ModelError, match=r"is a SpanModel, which is neither.*; open it with models\.load"):
            models.load_checkpoint(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif("TRUSTNLP_DATA" not in os.environ, reason="needs $TRUSTNLP_DATA/squad")
def test_it_answers_squad_better_than_chance():
    """4,000 questions seen once, by a model without any pretrained part; about a minute on one core."""
    corpus, streams = data.load("squad"), Streams(0)
    short = [example for example in corpus.train if len(example.tokens) <= 120]
    train = [short[i] for i in streams.numpy("train").permutation(len(short))[:4000]]
    test = [corpus.test[i] for i in streams.numpy("test").permutation(len(corpus.test))[:500]]
    model = models.build_span_model(streams=streams)
    step = PlainStep(model, torch.optim.Adam(model.parameters(), 2e-3), clip_grad_norm=5.0)
    fit(model, model.encode(train, for_training=True), ShuffledBatches(4000, 32, 1, streams), step, streams=streams)
    figures = models.evaluate(model, model.encode(test))
    right = [[answer.text for answer in example.answers] for example in test]
    first = [" ".join(example.tokens[:3]) for example in test]
    generator = streams.numpy("random")
    starts = [int(generator.integers(len(example.tokens))) for example in test]
    drawn = [
        " ".join(example.tokens[start : start + int(generator.integers(1, 6))])
        for example, start in zip(test, starts, strict=True)
    ]
    chance = {name: text_scores.token_f1(found, right) for name, found in (("first", first), ("random", drawn))}
    print({"model": figures, **chance})
    assert figures["f1"] > 0.2 > 2 * max(chance.values())
