"""Sequence to sequence: pieces, losses, greedy and beam search against slow references, learning, saving; Multi30k."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trustnlp import data, models
from trustnlp.data.corpus import Example
from trustnlp.dp import PrivacyPlan, per_unit_clipped_sum
from trustnlp.dp.book_keeping import BookKeeping
from trustnlp.dp.clipping import Clip, examples
from trustnlp.errors import ArgumentError, CorpusError, ModelError
from trustnlp.models import text_scores
from trustnlp.models.language_model import open_tokenizer
from trustnlp.models.seq2seq import Pairs
from trustnlp.models.training import PlainStep, ShuffledBatches, fit
from trustnlp.randomness import Streams

TRAIN = tuple(
    Example(text, target=target)
    for text, target in (
        ("a dog", "ein hund"),
        ("a cat runs", "eine katze läuft"),
        ("two dogs", "zwei hunde"),
        ("a dog runs", "ein hund läuft"),
        ("two dogs run", "zwei hunde laufen"),
        ("dogs", "hunde"),
    )
)
TINY = {"width": 24, "hidden": 16, "dropout": 0.0}


def small(seed: int = 0, **options):
    return models.build_seq2seq_model(streams=Streams(seed), **(TINY | options))


class TestPairs:
    @given(st.text(min_size=1, max_size=20))
    def test_pieces_give_back_the_text(self, text):
        if not text.strip() or "<|endoftext|>" in text:
            return
        (row,) = small_rows([text])
        assert len(row) == len(text.encode()) + 1
        assert PAIRS.text(row) == text.strip()

    def test_what_follows_the_end_is_not_read(self):
        (row,) = small_rows(["ab"])
        assert PAIRS.text([*row, *row]) == "ab"
        assert PAIRS.text(row[:1]) == "a"
        assert PAIRS.text([]) == ""

    def test_long_texts_are_cut_and_have_no_end(self):
        model = small(max_pieces=4)
        batch = model.encode([Example("abcdef", target="abc")]).batch([0])
        assert batch.inputs["pieces"].shape == (1, 4)
        assert (batch.inputs["pieces"] == model.encoding.end).sum() == 0
        assert batch.targets["pieces"][0, -1] == model.encoding.end


TOKENIZER = open_tokenizer()
PAIRS = Pairs(TOKENIZER, 257, 257, 257, 100)


def small_rows(texts):
    rows = PAIRS.rows(texts)
    return [rows.padded(np.array([i]))[0].tolist() for i in range(len(texts))]


class TestSplit:
    def test_targets_are_read_after_the_pieces_before_them(self):
        model = small()
        batch = model.encode(TRAIN).batch([0, 5])
        end, begin = model.encoding.end, model.encoding.begin
        written = TOKENIZER.encode("ein hund", add_special_tokens=False).ids
        assert batch.targets["pieces"][0].tolist() == [*written, end]
        assert batch.inputs["previous"][0].tolist() == [begin, *written]
        assert batch.targets["pieces"][1, -3:].tolist() == [-100] * 3
        assert batch.inputs["spans"].tolist() == [len("a dog") + 1, len("dogs") + 1]

    def test_a_text_without_target_has_no_loss_and_is_not_trained_on(self):
        model = small()
        encoded = model.encode([TRAIN[0], Example("dogs")])
        assert encoded.complete.tolist() == [True, False]
        assert np.isnan(models.losses(model, encoded)).tolist() == [False, True]
        with pytest.raises(ModelError, match="training example 1 has no target"):
            model.encode([TRAIN[0], Example("dogs")], for_training=True)
        with pytest.raises(CorpusError, match="no target to compare with"):
            models.evaluate(model, encoded)


class TestModel:
    def test_the_loss_is_the_mean_over_pieces(self):
        model = small().eval()
        encoded = model.encode(TRAIN)
        for place, loss in enumerate(models.losses(model, encoded)):
            batch = encoded.batch([place])
            with torch.no_grad():
                scores = model.logits(batch)["pieces"][0].double().log_softmax(-1)
            pieces = batch.targets["pieces"][0]
            assert loss == pytest.approx(-scores[range(len(pieces)), pieces].mean().item(), abs=1e-5)

    def test_padding_neighbours_and_later_pieces_never_show(self):
        model = small().eval()
        encoded = model.encode(TRAIN)
        with torch.no_grad():
            together = model.logits(encoded.batch(range(6)))["pieces"]
            for place in range(6):
                alone = model.logits(encoded.batch([place]))["pieces"][0]
                torch.testing.assert_close(together[place, : len(alone)], alone, rtol=0, atol=1e-5)
            # Texts are the same, targets only as far as "eine".
            one, other = (Example("cats", target=target) for target in ("eine katze", "einer"))
            first, second = model.logits(model.encode([one, other]).batch([0, 1]))["pieces"]
        torch.testing.assert_close(first[:5], second[:5], rtol=0, atol=1e-6)
        assert not torch.allclose(first[5], second[5], atol=1e-6)

    def test_embedding_and_head_are_one(self):
        model = small()
        assert model.head.weight is model.vectors.weight

    def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator(self):
        before = torch.get_rng_state()
        one, same, other = (small(seed).state_dict() for seed in (0, 0, 1))
        assert torch.equal(before, torch.get_rng_state())
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert not torch.equal(one["head.weight"], other["head.weight"])

    @pytest.mark.parametrize(
        ("options", "name"), [({"width": 0}, "width"), ({"dropout": 2}, "dropout"), ({"layers": 1}, "options")]
    )
    def test_bad_options(self, options, name):
        with pytest.raises(ArgumentError, match=f"'{name}'"):
            small(**options)


def letters(tmp_path: Path, end_bias: float = 0.0):
    """A model over a few pieces, whose targets can all be listed; weights large enough for clear preferences."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel

    tokenizer = Tokenizer(WordLevel({"a": 0, "b": 1, "c": 2}, unk_token="a"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    model = models.build_seq2seq_model(tmp_path, streams=Streams(0), **TINY).eval()
    with torch.no_grad():
        model.head.bias[-1] = end_bias
        model.vectors.weight.mul_(4)
    return model


def mean_likelihood(model, batch, pieces):
    """Mean log-likelihood of a target, scored whole."""
    begun = torch.tensor([[model.encoding.begin, *pieces[:-1]]])
    asked = type(batch)({**batch.inputs, "previous": begun}, {})
    with torch.no_grad():
        scores = model.logits(asked)["pieces"][0].double().log_softmax(-1)
    return scores[range(len(pieces)), list(pieces)].mean().item()


class TestSearch:
    TEXTS = tuple(Example(" ".join(letters)) for letters in itertools.product("abc", repeat=3))

    @pytest.mark.parametrize("end_bias", [0.0, 2.0])
    def test_greedy_takes_the_best_piece_each_time(self, tmp_path, end_bias):
        model = letters(tmp_path, end_bias)
        encoded = model.encode(self.TEXTS)
        with torch.no_grad():
            found = model.search(encoded.batch(range(27)), 1, 6)
            for place, pieces in enumerate(found):
                expected: list[int] = []
                batch = encoded.batch([place])
                while len(expected) < 6 and (not expected or expected[-1] != 3):
                    begun = torch.tensor([[3, *expected]])
                    scores = model.logits(type(batch)({**batch.inputs, "previous": begun}, {}))["pieces"]
                    expected.append(int(scores[0, -1].argmax()))
                assert pieces == expected

    @pytest.mark.parametrize("end_bias", [-1.0, 0.0, 2.0])
    def test_a_wide_beam_finds_the_best_of_all_targets(self, tmp_path, end_bias):
        model = letters(tmp_path, end_bias)
        encoded = model.encode(self.TEXTS[::5])
        ended = [(*body, 3) for size in range(3) for body in itertools.product(range(3), repeat=size)]
        every = [*ended, *itertools.product(range(3), repeat=3)]
        with torch.no_grad():
            found = model.search(encoded.batch(range(len(encoded))), 64, 3)
        for place, pieces in enumerate(found):
            batch = encoded.batch([place])
            assert tuple(pieces) == max(every, key=lambda target, batch=batch: mean_likelihood(model, batch, target))

    def test_no_beam_is_likelier_than_that_of_all_targets(self, tmp_path):
        model = letters(tmp_path)
        batch = model.encode(self.TEXTS[:1]).batch([0])
        with torch.no_grad():
            likelihoods = [mean_likelihood(model, batch, model.search(batch, width, 4)[0]) for width in (1, 2, 300)]
        assert likelihoods[2] >= max(likelihoods) - 1e-9

    def test_lengths_and_modes(self):
        model = small()
        encoded = model.encode([Example("dogs"), Example("a cat")])
        found = model.generate(encoded, longest=5)
        assert model.training
        assert len(found) == 2
        assert all(len(text.encode()) <= 5 * 3 for text in found)  # a piece that is no whole character is read as 3
        assert model.generate(encoded, longest=5, batch_size=1) == found
        for wrong in ({"width": 0}, {"longest": 0}):
            with pytest.raises(ArgumentError, match=f"'{next(iter(wrong))}'"):
                model.generate(encoded, **wrong)
        with pytest.raises(ArgumentError, match="'encoded' must be not empty"):
            model.generate(model.encode([]))


def test_it_learns_to_write():
    model, streams = small(), Streams(1)
    encoded = model.encode(TRAIN, for_training=True)
    before = models.evaluate(model, encoded)
    step = PlainStep(model, torch.optim.Adam(model.parameters(), 1e-2))
    fit(model, encoded, ShuffledBatches(len(TRAIN), 3, 60, streams), step, streams=streams)
    figures = models.evaluate(model, encoded)
    assert set(figures) == {"score", "rouge_l", "bleu", "chrf", "loss"}
    assert figures["loss"] < 0.5 < before["loss"]
    assert figures["score"] > 0.9 > before["score"]
    assert model.generate(encoded, width=4) == tuple(example.target for example in TRAIN)


class TestPrivateTraining:
    def test_one_backward_gives_the_sums_of_one_per_example(self):
        model = small().double().eval()
        data = model.encode(TRAIN, for_training=True)
        plan = PrivacyPlan(len(TRAIN), 3, 3, noise_multiplier=1.0, delta=0.01)
        parameters = dict(model.named_parameters())
        clip = Clip(plan.clipping, plan.clipping.groups(model, parameters), plan.clipping.thresholds(1) * 0.1)
        engine, units = BookKeeping(3), examples(range(len(TRAIN)))
        found = engine(model, model.loss, data, units, parameters, clip)
        expected = per_unit_clipped_sum(model, model.loss, data, units, parameters, clip)
        assert engine.fallback == ""
        assert float(expected.norms.min()) > 0.1  # every example is clipped
        for name, gradient in expected.gradients.items():
            torch.testing.assert_close(found.gradients[name], gradient, rtol=1e-6, atol=1e-9)

    def test_it_trains_under_a_plan(self):
        model, streams = small(), Streams(2)
        encoded = model.encode(TRAIN, for_training=True)
        plan = PrivacyPlan(len(TRAIN), 4, 5, noise_multiplier=0.5, delta=0.01)
        engine = BookKeeping(8)
        step = plan.step(model, torch.optim.Adam(model.parameters(), 1e-3), streams=streams, clipped_sum=engine)
        history = fit(model, encoded, plan.sampler(streams), step, streams=streams)
        assert engine.fallback == ""
        assert (history.steps, step.ledger.spent) == (5, 5)


def test_a_saved_model_answers_the_same(tmp_path):
    (tmp_path / "merges.txt").write_text("h u\nhu n\n")
    model = models.build_seq2seq_model(tmp_path, streams=Streams(0), merges=1, **TINY).eval()
    models.save(model, tmp_path / "model")
    again = models.load(tmp_path / "model")
    assert isinstance(again, models.Seq2SeqModel)
    assert not again.training
    assert again.head.weight is again.vectors.weight
    assert again.encoding.rows(["hund"]).lengths.tolist() == [len("hund")]  # "hu" is one piece, and the end
    assert np.array_equal(models.losses(again, again.encode(TRAIN)), models.losses(model, model.encode(TRAIN)))
    assert again.generate(again.encode(TRAIN), longest=9) == model.generate(model.encode(TRAIN), longest=9)


@pytest.mark.slow
@pytest.mark.skipif("TRUSTNLP_DATA" not in os.environ, reason="needs $TRUSTNLP_DATA/multi30k and tokenizers/gpt2")
def test_it_translates_better_than_copying():
    """6,000 short captions seen once; less than a minute on one core."""
    corpus, streams = data.load("multi30k"), Streams(0)
    train, test = (
        [example for example in split if max(len(example.tokens), len(example.target.split())) <= 10]
        for split in (corpus.train, corpus.test)
    )
    drawn = [train[i] for i in streams.numpy("train").permutation(len(train))[:6000]]
    folder = Path(os.environ["TRUSTNLP_DATA"]) / "tokenizers/gpt2"
    model = models.build_seq2seq_model(folder, streams=streams, merges=1000)
    encoded = model.encode(drawn, for_training=True)
    step = PlainStep(model, torch.optim.Adam(model.parameters(), 3e-3), clip_grad_norm=1.0)
    fit(model, encoded, ShuffledBatches(len(drawn), 32, 1, streams), step, streams=streams)
    figures = models.evaluate(model, model.encode(test))
    texts, targets = [example.text for example in test], [example.target for example in test]
    copied = {"bleu": text_scores.bleu(texts, targets), "rouge_l": text_scores.rouge_l(texts, targets)}
    print({"model": figures, "copied": copied})
    assert figures["bleu"] > 2 * copied["bleu"]
    assert figures["rouge_l"] > 2 * copied["rouge_l"]
