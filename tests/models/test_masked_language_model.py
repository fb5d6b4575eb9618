"""Masked language models from scratch: masks, training by the plain and by the private step, saving; and others'."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from small_corpus import PIECES, TRAIN

from trustnlp import models
from trustnlp.data.corpus import Example
from trustnlp.data.encoding import NO_TARGET
from trustnlp.dp import PrivacyPlan, per_unit_clipped_sum
from trustnlp.dp.book_keeping import BookKeeping
from trustnlp.dp.clipping import Clip, examples
from trustnlp.errors import ArgumentError, ModelError
from trustnlp.models.masked_language_model import SPECIAL, Masking, mask_of, open_word_pieces
from trustnlp.models.training import PlainStep, ShuffledBatches, fit, seeded
from trustnlp.randomness import Streams

TINY = {"width": 16, "layers": 2, "heads": 2, "max_pieces": 64}
WORDS = [piece for piece in PIECES if piece not in SPECIAL]
MASK = 4
TEXTS = [example for example in TRAIN if "-" not in example.text]  # of known pieces alone


@pytest.fixture(scope="module")
def pieces(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pieces") / "vocab.txt"
    path.write_text("\n".join([*SPECIAL, *WORDS]) + "\n")
    return path


def build(pieces: Path, seed: int = 0, **options) -> models.MaskedLanguageModel:
    return models.build_masked_language_model(pieces, streams=Streams(seed), **(TINY | options))


class TestWordPieces:
    def test_pieces_and_ends(self, pieces):
        for source in (pieces, pieces.parent):
            found = open_word_pieces(source).encode("Play jazzy, Nína")
            assert found.tokens == ["[CLS]", "play", "jazz", "##y", "[UNK]", "nina", "[SEP]"]
        pair = open_word_pieces(pieces).encode("play", "song")
        assert pair.tokens == ["[CLS]", "play", "[SEP]", "song", "[SEP]"]
        assert pair.type_ids == [0, 0, 0, 1, 1]
        assert open_word_pieces(pieces, lower_case=False).encode("Play").tokens[1] == "[UNK]"
        assert open_word_pieces(pieces).encode("[MASK]").ids == [2, MASK, 3]

    @pytest.mark.skipif("TRUSTNLP_DATA" not in os.environ, reason="needs $TRUSTNLP_DATA/tokenizers/bert")
    def test_berts_pieces(self):
        found = open_word_pieces(Path(os.environ["TRUSTNLP_DATA"]) / "tokenizers/bert")
        # As in the documentation of Transformers' BertTokenizer for bert-base-uncased.
        assert found.encode("Hello, my dog is cute").ids == [101, 7592, 1010, 2026, 3899, 2003, 10140, 102]
        assert (found.get_vocab_size(), mask_of(found)) == (30522, 103)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (None, "cannot be read as word pieces"),
            (b"\xff", "cannot be read as word pieces"),
            (b"play\n", r"lacks \[PAD\], \[UNK\], \[CLS\], \[SEP\], \[MASK\]"),
            ("\n".join([*SPECIAL, "play", "play"]).encode(), "names a piece twice"),
        ],
    )
    def test_no_word_pieces(self, tmp_path, content, reason):
        path = tmp_path / "vocab.txt"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ModelError, match=reason):
            open_word_pieces(path)

    def test_no_mask(self, tmp_path):
        from trustnlp.models.language_model import open_tokenizer

        with pytest.raises(ModelError, match="has no mask"):
            mask_of(open_tokenizer())


class TestMasks:
    def test_shares(self, pieces):
        masking = Masking(open_word_pieces(pieces), Streams(0))
        plain = np.random.default_rng(0).integers(5, 5 + len(WORDS), 100)
        row = np.array([2, *plain, 3])
        counts = np.zeros(3)
        for visit in range(400):
            shown, places = masking.hide(row, 0, visit)
            assert len(set(places)) == 15
            assert set(places) <= set(range(1, 101))
            other = np.setdiff1d(np.arange(102), places)
            np.testing.assert_array_equal(shown[other], row[other])
            masked, kept = shown[places] == MASK, shown[places] == row[places]
            assert shown[places][~masked].min(initial=5) >= 5  # no special piece but the mask
            counts += [masked.sum(), (~masked & ~kept).sum(), kept.sum()]
        chance = 0.1 / len(WORDS)  # that another piece is the same one
        expected = np.array([0.8, 0.1 - chance, 0.1 + chance])
        np.testing.assert_allclose(counts / 6000, expected, atol=0.02)  # 4 standard errors

    @pytest.mark.parametrize(("length", "count"), [(1, 1), (3, 1), (9, 1), (10, 2), (20, 3)])
    def test_how_many(self, pieces, length, count):
        masking = Masking(open_word_pieces(pieces), Streams(0))
        _, places = masking.hide(np.array([2, *[6] * length, 3]), 0, 0)
        assert len(places) == count

    def test_each_visit_has_its_masks_and_evaluation_one(self, pieces):
        model = build(pieces)
        training, evaluating = model.encode(TEXTS, for_training=True), model.encode(TEXTS)

        every = [*range(len(TEXTS))]

        def shown(split, seed, chosen=every):
            with seeded(seed, model):
                torch.rand(seed)  # what dropout draws before does not move the masks
                return split.batch(chosen).inputs["pieces"]

        assert torch.equal(shown(training, 1), shown(training, 1))
        assert not torch.equal(shown(training, 1), shown(training, 2))
        assert torch.equal(shown(evaluating, 1), shown(evaluating, 2))
        for i in range(len(TEXTS)):  # whatever the company
            alone = shown(training, 1, [i])[0]
            assert torch.equal(alone, shown(training, 1)[i, : len(alone)])

    def test_targets_are_what_was_hidden(self, pieces):
        model = build(pieces)
        batch = model.encode(TEXTS).batch(range(len(TEXTS)))
        plain = model.encoding.encode([example.text for example in TEXTS]).batch(np.arange(len(TEXTS)))["pieces"]
        hidden = plain.copy()
        for row, (places, targets) in enumerate(
            zip(batch.inputs["places"].numpy(), batch.targets["pieces"].tolist(), strict=True)
        ):
            count = int(batch.inputs["hidden"][row])
            assert plain[row, places[:count]].tolist() == targets[:count]
            assert set(targets[count:]) <= {NO_TARGET}
            hidden[row, places[:count]] = batch.inputs["pieces"][row, places[:count]]
        np.testing.assert_array_equal(hidden, batch.inputs["pieces"])


class TestModel:
    def test_the_loss_is_the_mean_over_hidden_pieces(self, pieces):
        model = build(pieces).eval()
        encoded = model.encode(TEXTS)
        found = models.losses(model, encoded)
        for i, loss in enumerate(found):
            batch = encoded.batch([i])
            labels = torch.full_like(batch.inputs["pieces"], NO_TARGET).long()
            labels[0, batch.inputs["places"][0].long()] = batch.targets["pieces"][0]
            with torch.no_grad():
                theirs = model.model(input_ids=batch.inputs["pieces"].long(), labels=labels).loss
            assert loss == pytest.approx(theirs.item(), abs=1e-5)

    def test_embedding_and_head_are_one(self, pieces):
        model = build(pieces).model
        assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight

    def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator(self, pieces):
        before = torch.get_rng_state()
        one, same, other = (build(pieces, seed).state_dict() for seed in (0, 0, 1))
        assert torch.equal(before, torch.get_rng_state())
        assert all(torch.equal(one[name], same[name]) for name in one)
        name = "model.bert.embeddings.word_embeddings.weight"
        assert not torch.equal(one[name], other[name])

    def test_texts_without_a_piece_to_hide(self, pieces):
        model = build(pieces)
        found = models.losses(model, model.encode([Example("§"), Example("rain")]))
        assert np.isnan(found).tolist() == [True, False]
        assert model.figures(model.encode([Example("§"), Example("rain")]))["loss"] == pytest.approx(found[1])
        with pytest.raises(ModelError, match="training example 0 is too short"):
            model.encode([Example("§")], for_training=True)

    @pytest.mark.parametrize(
        ("options", "name"), [({"width": 15}, "width"), ({"dropout": 2}, "dropout"), ({"colour": 1}, "options")]
    )
    def test_bad_options(self, pieces, options, name):
        with pytest.raises(ArgumentError, match=f"'{name}'"):
            build(pieces, **options)


def test_it_learns_its_texts_and_goes_on_where_it_was_interrupted(pieces, tmp_path):
    def trained(folder: Path | None, epochs_before: int = 0) -> tuple[models.MaskedLanguageModel, float]:
        model, streams = build(pieces), Streams(1)
        encoded = model.encode(TEXTS, for_training=True)
        sampler = ShuffledBatches(len(TEXTS), 4, 40, streams)
        step = PlainStep(model, torch.optim.Adam(model.parameters(), 1e-2))

        def progress(stage, done, total, figures):
            if epochs_before and done == epochs_before * sampler.steps_per_epoch:
                raise KeyboardInterrupt

        fit(model, encoded, sampler, step, streams=streams, folder=folder, progress=progress)
        return model, models.evaluate(model, model.encode(TEXTS))["loss"]

    model, loss = trained(None)
    assert loss < 0.75 * models.evaluate(build(pieces), build(pieces).encode(TEXTS))["loss"]
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, epochs_before=20)
    again, _ = trained(tmp_path)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))


class TestPrivateTraining:
    def test_one_backward_gives_the_sums_of_one_per_example(self, pieces):
        model = build(pieces, dropout=0.0).double().eval()
        data = model.encode(TEXTS, for_training=True)
        plan = PrivacyPlan(len(TEXTS), 4, 3, noise_multiplier=1.0, delta=0.01)
        parameters = dict(model.named_parameters())
        groups = plan.clipping.groups(model, parameters)
        clip = Clip(plan.clipping, groups, plan.clipping.thresholds(1) * 0.1)
        engine, units = BookKeeping(3), examples(range(len(TEXTS)))
        found = engine(model, model.loss, data, units, parameters, clip)
        expected = per_unit_clipped_sum(model, model.loss, data, units, parameters, clip)
        assert engine.fallback == ""
        assert float(expected.norms.min()) > 0.1  # every example is clipped
        for name, gradient in expected.gradients.items():
            torch.testing.assert_close(found.gradients[name], gradient, rtol=1e-6, atol=1e-9)

    def test_it_trains_under_a_plan(self, pieces):
        model, streams = build(pieces), Streams(2)
        encoded = model.encode(TEXTS, for_training=True)
        plan = PrivacyPlan(len(TEXTS), 4, 10, noise_multiplier=0.5, delta=0.01)
        engine = BookKeeping(8)
        step = plan.step(model, torch.optim.Adam(model.parameters(), 5e-3), streams=streams, clipped_sum=engine)
        history = fit(model, encoded, plan.sampler(streams), step, streams=streams)
        assert engine.fallback == ""
        assert (history.steps, step.ledger.spent) == (10, 10)


class TestOpening:
    @pytest.mark.parametrize("opened", [models.load, models.load_masked_language_model])
    def test_a_saved_model_answers_the_same(self, pieces, tmp_path, opened):
        model = build(pieces).eval()
        models.save(model, tmp_path)
        again = opened(tmp_path)
        assert isinstance(again, models.MaskedLanguageModel)
        assert not again.training
        np.testing.assert_array_equal(
            models.losses(model, model.encode(TEXTS)), models.losses(again, again.encode(TEXTS))
        )
        assert again.config == model.config
        assert again.model.cls.predictions.decoder.weight is again.model.bert.embeddings.word_embeddings.weight

    def test_one_that_was_trained_elsewhere(self, pieces, tmp_path):
        from transformers import PreTrainedTokenizerFast

        theirs = build(pieces).eval()
        theirs.model.save_pretrained(tmp_path)
        special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        fast = PreTrainedTokenizerFast(tokenizer_object=open_word_pieces(pieces), mask_token="[MASK]", **special)  # noqa: S106
        fast.save_pretrained(tmp_path)
        model = models.load_masked_language_model(tmp_path)
        batch = theirs.encode(TEXTS).batch(range(len(TEXTS)))
        assert torch.equal(model.loss(batch), theirs.loss(batch))
        with pytest.raises(ModelError, match=r"use model\.model\.save_pretrained"):
            models.save(model, tmp_path / "ours")

    def test_other_heads(self, folders, tmp_path):
        for name in ("bare", "language"):
            with pytest.raises(ModelError, match="has no head of a masked language model"):
                models.load_masked_language_model(folders[name])
        models.save(models.build_language_model(streams=Streams(0), width=16, heads=2), tmp_path)
        with pytest.raises(ModelError, match=r"is a LanguageModel; give a masked"):
            models.load_masked_language_model(tmp_path)

    def test_a_head_that_is_only_claimed(self, copied):
        folder = copied("bare")
        path = folder / "config.json"
        path.write_text(path.read_text().replace('"BertModel"', '"BertForMaskedLM"'))
        with pytest.raises(ModelError, match="lacks weights that its architecture needs"):
            models.load_masked_language_model(folder)

    def test_without_a_mask(self, folders):
        with pytest.raises(ModelError, match="has no mask"):
            models.load_masked_language_model(folders["masked"])
