"""Language models from scratch: public tokenizers, training by the plain and by the private step, saving."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_corpus import TRAIN, tokenizer

from trustnlp import models
from trustnlp.data.corpus import Example
from trustnlp.dp import PrivacyPlan, per_unit_clipped_sum
from trustnlp.dp.book_keeping import BookKeeping
from trustnlp.dp.clipping import Clip, examples
from trustnlp.errors import ArgumentError, ModelError
from trustnlp.models import language_model
from trustnlp.models.existing import ExistingLanguageModel
from trustnlp.models.language_model import BEGIN, open_tokenizer
from trustnlp.models.training import PlainStep, ShuffledBatches, fit
from trustnlp.randomness import Streams

TINY = {"width": 16, "layers": 2, "heads": 2, "max_pieces": 64}
BYTE_PIECES = open_tokenizer()


def build(seed: int = 0, **options) -> models.LanguageModel:
    return models.build_language_model(streams=Streams(seed), **(TINY | options))


class TestTokenizers:
    @given(st.text())
    def test_bytes_are_a_beginning_and_one_piece_each(self, text):
        if BEGIN in text:
            return
        ids = BYTE_PIECES.encode(text).ids
        assert ids[0] == BYTE_PIECES.token_to_id(BEGIN) == 256
        assert len(ids) == 1 + len(text.encode())
        assert BYTE_PIECES.decode(ids) == text

    def test_the_first_merges_are_a_tokenizer_too(self, tmp_path):
        (tmp_path / "merges.txt").write_text("#version: 0.2\na b\nab c\nĠ abc\n")
        pieces = {merges: open_tokenizer(tmp_path, merges).encode("abc abc").tokens[1:] for merges in (None, 2, 1, 0)}
        assert pieces[None] == ["abc", "Ġabc"]
        assert pieces[2] == ["abc", "Ġ", "abc"]
        assert pieces[1] == ["ab", "c", "Ġ", "ab", "c"]
        assert pieces[0] == [*"abcĠabc"]
        assert open_tokenizer(tmp_path, 2).get_vocab_size() == 256 + 2 + 1

    @pytest.mark.skipif("TRUSTNLP_DATA" not in os.environ, reason="needs $TRUSTNLP_DATA/tokenizers/gpt2")
    def test_gpt2s_merges_give_gpt2s_pieces(self):
        folder = Path(os.environ["TRUSTNLP_DATA"]) / "tokenizers/gpt2"
        numbers = json.loads((folder / "encoder.json").read_text())
        found = open_tokenizer(folder)
        assert found.get_vocab_size() == len(numbers) == 50257
        # As OpenAI's released encoder numbers it, for instance in the documentation of Transformers' GPT2Tokenizer.
        assert [numbers[piece] for piece in found.encode("Hello world").tokens[1:]] == [15496, 995]
        assert [numbers[piece] for piece in found.encode(" Hello world").tokens[1:]] == [18435, 995]

    def test_a_tokenizer_of_its_own_is_taken_as_it_is(self, tmp_path):
        tokenizer().save_pretrained(tmp_path)
        model = build(tokenizer=tmp_path)
        batch = model.encode([Example("will it rain")]).batch([0])
        assert batch.inputs["pieces"].tolist() == [tokenizer()("will it rain")["input_ids"]]

    @pytest.mark.parametrize("content", [None, "{}"])
    def test_no_tokenizer(self, tmp_path, content):
        if content is not None:
            (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(ModelError, match="cannot be opened as a tokenizer"):
            open_tokenizer(tmp_path)

    def test_a_damaged_list_of_merges(self, tmp_path):
        (tmp_path / "vocab.bpe").write_text("a b\nnonsense\n")
        with pytest.raises(ModelError, match="no merges of two pieces"):
            open_tokenizer(tmp_path)

    def test_merges_that_cannot_be_cut(self, tmp_path):
        tokenizer().save_pretrained(tmp_path)
        for source in ("bytes", tmp_path):
            with pytest.raises(ArgumentError, match="'merges' must be left out"):
                open_tokenizer(source, 5)


class TestModel:
    def test_the_loss_is_the_mean_over_predicted_tokens(self):
        model = build(dropout=0.0).eval()
        found = models.losses(model, model.encode(TRAIN))
        for loss, example in zip(found, TRAIN, strict=True):
            ids = torch.tensor([BYTE_PIECES.encode(example.text).ids])
            with torch.no_grad():
                assert loss == pytest.approx(model.model(input_ids=ids, labels=ids).loss.item(), abs=1e-5)

    def test_padding_and_later_pieces_never_show(self):
        model = build().eval()
        encoded = model.encode(TRAIN)
        with torch.no_grad():
            together = model.logits(encoded.batch(range(len(TRAIN))))["pieces"]
            alone = model.logits(encoded.batch([1]))["pieces"][0]
        torch.testing.assert_close(together[1, : len(alone)], alone, rtol=0, atol=1e-5)
        shared = len("play ")  # of texts 0 and 1; the next piece differs
        torch.testing.assert_close(together[0, : shared + 1], together[1, : shared + 1], rtol=0, atol=1e-5)
        assert not torch.allclose(together[0, shared + 1], together[1, shared + 1], atol=1e-5)

    def test_embedding_and_head_are_one(self):
        model = build()
        assert model.model.lm_head.weight is model.model.transformer.wte.weight

    def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator(self):
        before = torch.get_rng_state()
        one, same, other = (build(seed).state_dict() for seed in (0, 0, 1))
        assert torch.equal(before, torch.get_rng_state())
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert not torch.equal(one["model.lm_head.weight"], other["model.lm_head.weight"])

    def test_long_texts_are_cut(self):
        batch = build(max_pieces=8).encode([Example("rain " * 50)]).batch([0])
        assert batch.inputs["pieces"].shape == (1, 8)

    @pytest.mark.parametrize(
        ("options", "name"), [({"width": 15}, "width"), ({"dropout": 2}, "dropout"), ({"colour": 1}, "options")]
    )
    def test_bad_options(self, options, name):
        with pytest.raises(ArgumentError, match=f"'{name}'"):
            build(**options)


def test_a_texts_representation_is_the_mean_of_its_own_hidden_states():
    model = build(dropout=0.0)
    split = model.encode([Example("will it rain"), Example("no")])
    found, alone = model.representation(split.batch([0, 1])), model.representation(split.batch([1]))
    torch.testing.assert_close(found[1:], alone)
    states = model.model.transformer(input_ids=split.batch([1]).inputs["pieces"].long()).last_hidden_state
    torch.testing.assert_close(alone, states.mean(1))


def test_it_learns_its_texts_and_goes_on_where_it_was_interrupted(tmp_path):
    def trained(folder: Path | None, epochs_before: int = 0) -> tuple[models.LanguageModel, float]:
        model, streams = build(), Streams(1)
        encoded = model.encode(TRAIN, for_training=True)
        sampler = ShuffledBatches(len(TRAIN), 4, 20, streams)
        step = PlainStep(model, torch.optim.Adam(model.parameters(), 1e-2))
        heard = []

        def progress(stage, done, total, figures):
            heard.append(done)
            if epochs_before and done == epochs_before * sampler.steps_per_epoch:
                raise KeyboardInterrupt

        fit(model, encoded, sampler, step, streams=streams, folder=folder, progress=progress)
        return model, float(models.losses(model, encoded).mean())

    model, loss = trained(None)
    assert loss < 0.75 * float(models.losses(build(), build().encode(TRAIN)).mean())
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, epochs_before=7)
    again, _ = trained(tmp_path)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))


class TestPrivateTraining:
    def test_one_backward_gives_the_sums_of_one_per_example(self):
        model = build(dropout=0.0).double().eval()
        data = model.encode(TRAIN, for_training=True)
        plan = PrivacyPlan(len(TRAIN), 4, 3, noise_multiplier=1.0, delta=0.01)
        parameters = dict(model.named_parameters())
        groups = plan.clipping.groups(model, parameters)
        clip = Clip(plan.clipping, groups, plan.clipping.thresholds(1) * 0.1)
        engine, units = BookKeeping(3), examples(range(len(TRAIN)))
        found = engine(model, model.loss, data, units, parameters, clip)
        expected = per_unit_clipped_sum(model, model.loss, data, units, parameters, clip)
        assert engine.fallback == ""
        assert float(expected.norms.min()) > 0.1  # every example is clipped
        for name, gradient in expected.gradients.items():
            torch.testing.assert_close(found.gradients[name], gradient, rtol=1e-6, atol=1e-9)

    def test_it_trains_under_a_plan(self):
        model, streams = build(), Streams(2)
        encoded = model.encode(TRAIN, for_training=True)
        plan = PrivacyPlan(len(TRAIN), 4, 40, noise_multiplier=0.5, delta=0.01)
        engine = BookKeeping(8)
        before = models.losses(model, encoded).mean()
        optimizer = torch.optim.Adam(model.parameters(), 5e-3)
        step = plan.step(model, optimizer, streams=streams, clipped_sum=engine)
        history = fit(model, encoded, plan.sampler(streams), step, streams=streams)
        assert engine.fallback == ""
        assert (history.steps, step.ledger.spent) == (40, 40)
        assert models.losses(model, encoded).mean() < before - 0.3


class TestSaving:
    @pytest.mark.parametrize("opened", [models.load, models.load_checkpoint])
    def test_a_saved_model_answers_the_same(self, tmp_path, opened):
        model = build().eval()
        models.save(model, tmp_path)
        again = opened(tmp_path)
        assert isinstance(again, models.LanguageModel)
        assert not again.training
        assert again.model.lm_head.weight is again.model.transformer.wte.weight
        np.testing.assert_array_equal(
            models.losses(model, model.encode(TRAIN)), models.losses(again, again.encode(TRAIN))
        )
        assert again.config == model.config

    def test_with_its_tokenizer(self, tmp_path):
        (tmp_path / "merges.txt").write_text("r a\nra i\nrai n\n")
        model = build(tokenizer=tmp_path)
        models.save(model, tmp_path / "model")
        texts = [Example("rain"), Example("will it rain")]
        one, other = (each.encode(texts).batch([0, 1]).inputs for each in (model, models.load(tmp_path / "model")))
        assert one["spans"].tolist() == [2, 1 + len("will it ") + 1]
        assert all(torch.equal(one[name], other[name]) for name in one)

    def test_a_model_of_somebody_else_is_left_to_transformers(self, tmp_path):
        theirs = build()
        with pytest.raises(ModelError, match=r"cannot be built again by trustnlp; use model\.model\.save_pretrained"):
            models.save(ExistingLanguageModel(theirs.model, theirs.encoding), tmp_path)
        assert not any(tmp_path.iterdir())


def test_its_figures_are_of_its_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.build_language_model(streams=Streams(0), width=8, layers=1, heads=1).eval()
    encoded = model.encode([Example("play some jazz"), Example("rain"), Example("now")])
    found = models.losses(model, encoded)
    assert models.evaluate(model, encoded)["loss"] == pytest.approx(found.mean())
    monkeypatch.setattr(language_model, "losses", lambda *_: np.array([2.0, np.nan, 1.0]))  # one text without loss
    assert models.evaluate(model, encoded) == {"loss": 1.5, "score": pytest.approx(np.exp(-1.5))}
