import os
from pathlib import Path

import numpy as np
import pytest
import torch
from small_corpus import CORPUS, LABELS_ONLY, SMALL, TAGS_ONLY, TRAIN

from trustnlp import models
from trustnlp.data.corpus import Corpus, Example
from trustnlp.errors import ArgumentError, CorpusError, ModelError
from trustnlp.models import evaluation
from trustnlp.models.bio import decode
from trustnlp.models.evaluation import Predictions
from trustnlp.models.training import PlainStep, ShuffledBatches, fit
from trustnlp.randomness import Streams


@pytest.fixture(scope="module")
def model() -> models.NLUModel:
    return models.build("bilstm", CORPUS, streams=Streams(0), **SMALL["bilstm"])


def predictions(**more) -> Predictions:
    empty = {"labels": None, "tags": None, "gold_labels": None, "gold_tags": None, "losses": np.zeros(2)}
    return Predictions(**empty | more)


class TestPredict:
    def test_answers_are_those_of_the_logits(self, model):
        found = models.predict(model, model.encode(TRAIN), batch_size=3)
        model.eval()
        for i, example in enumerate(TRAIN):
            batch = model.encode([example]).batch([0])
            logits = model.logits(batch)
            assert found.labels[i] == CORPUS.labels[int(logits["label"][0].argmax())]
            best = decode(logits["tags"], batch.inputs["lengths"], CORPUS.tags)
            assert found.tags[i] == tuple(CORPUS.tags[j] for j in best[0].tolist())
            assert found.losses[i] == pytest.approx(model.loss(batch).item(), rel=1e-5)
            assert found.losses[i] == pytest.approx(models.losses(model, model.encode(TRAIN))[i], rel=1e-5)
        assert found.losses.dtype == np.float64
        assert found.gold_labels == tuple(example.label for example in TRAIN)

    @pytest.mark.parametrize("training", [True, False])
    def test_the_mode_is_left_as_it_was_even_after_an_error(self, model, training):
        model.train(training)
        models.predict(model, model.encode(TRAIN))
        assert model.training is training
        with pytest.raises(ZeroDivisionError), evaluation.scoring(model):
            _ = 1 / 0
        assert model.training is training

    def test_a_label_never_learned_is_always_wrong_and_has_no_loss(self, model):
        strangers = [Example("rain", "karaoke", ("O",)), Example("rain", "weather", ("B-new",))]
        found = models.predict(model, model.encode([*TRAIN, *strangers]))
        assert not found.correct[-2]
        assert found.accuracy == pytest.approx(found.correct.sum() / 10)
        assert np.isnan(found.losses[-2:]).all()
        assert np.isfinite(found.losses[:-2]).all()
        assert np.isfinite(found.figures()["loss"])
        assert found.tags[-1] != ("B-new",)

    def test_texts_without_gold_answers_are_answered(self, model):
        found = models.predict(model, model.encode([Example("play some jazz"), Example("rain")]))
        assert len(found.labels) == 2
        assert [len(row) for row in found.tags] == [3, 1]
        assert (found.gold_labels, found.gold_tags) == (None, None)
        assert np.isnan(found.losses).all()
        with pytest.raises(ModelError, match="no labels to compare"):
            _ = found.correct
        with pytest.raises(CorpusError, match="no example has a gold answer"):
            found.figures()

    def test_gold_answers_for_some_only_are_refused(self, model):
        with pytest.raises(CorpusError, match="only 1 of 2 examples have a gold answer"):
            models.predict(model, model.encode([TRAIN[0], Example("rain")]))

    def test_words_that_the_model_does_not_see_are_outside(self):
        short = models.build("bilstm", CORPUS, streams=Streams(0), max_words=2, **SMALL["bilstm"])
        found = models.predict(short, short.encode(TRAIN[:1]))
        assert len(found.tags[0]) == 3
        assert found.tags[0][2] == "O"

    @pytest.mark.parametrize(("corpus", "names"), [(LABELS_ONLY, {"accuracy"}), (TAGS_ONLY, {"slot_f1"})])
    def test_figures_are_those_of_the_heads(self, corpus, names):
        one = models.build("transformer", corpus, streams=Streams(0), **SMALL["transformer"])
        assert set(models.evaluate(one, one.encode(corpus.train))) == {"score", "loss"} | names

    @pytest.mark.parametrize("scored", [models.predict, models.losses, models.evaluate])
    def test_nothing_to_score(self, model, scored):
        with pytest.raises(ArgumentError, match="'encoded' must be not empty"):
            scored(model, model.encode([]))

    def test_losses_need_a_text_model(self, model):
        with pytest.raises(ArgumentError, match="'model' must be a TextModel"):
            models.losses(torch.nn.Linear(1, 1), model.encode(TRAIN))


class TestFigures:
    def test_accuracy(self):
        found = predictions(labels=("a", "b"), gold_labels=("a", "a"))
        assert (found.accuracy, found.correct.tolist()) == (0.5, [True, False])

    def test_slot_f1_counts_whole_slots(self):
        # Gold: city(1-2), day(3). Answered: city(1) cut short, day(3) right. Precision 1/2, recall 1/2.
        gold, answered = (("O", "B-city", "I-city", "B-day"),), (("O", "B-city", "O", "B-day"),)
        assert predictions(tags=answered, gold_tags=gold).slot_f1 == pytest.approx(0.5)

    def test_slot_f1_of_nothing_found_is_zero(self):
        assert predictions(tags=(("O",),), gold_tags=(("B-day",),)).slot_f1 == 0

    def test_parts_of_speech_have_no_slots(self):
        found = predictions(tags=(("NOUN", "VERB"),), gold_tags=(("NOUN", "NOUN"),))
        assert found.tag_accuracy == 0.5
        assert "tag_accuracy" in found.figures()
        with pytest.raises(ModelError, match="not BIO tags"):
            _ = found.slot_f1

    def test_the_score_is_the_mean(self):
        found = predictions(
            labels=("a", "b"), gold_labels=("a", "a"), tags=(("B-x",), ("O",)), gold_tags=(("B-x",), ("O",))
        )
        assert found.figures() == {"score": 0.75, "accuracy": 0.5, "slot_f1": 1.0, "loss": 0.0}


def read_slots(folder: Path, limit: int) -> tuple[Example, ...]:
    columns = [
        (folder / name).read_text(encoding="utf-8").splitlines()[:limit] for name in ("seq.in", "label", "seq.out")
    ]
    return tuple(Example(text, label.strip(), tuple(tags.split())) for text, label, tags in zip(*columns, strict=True))


def test_a_few_hundred_real_utterances_beat_the_majority():
    root = os.environ.get("TRUSTNLP_DATA")
    if not root or not (Path(root) / "snips").is_dir():
        pytest.skip("the SNIPS corpus is not under $TRUSTNLP_DATA")
    corpus = Corpus(
        "snips", read_slots(Path(root) / "snips/train", 400), (), read_slots(Path(root) / "snips/test", 300)
    )
    streams = Streams(0)
    model = models.build("bilstm", corpus, streams=streams, buckets=2048, width=48, hidden=48)
    train, test = model.encode(corpus.train, for_training=True), model.encode(corpus.test)
    step = PlainStep(model, torch.optim.AdamW(model.parameters(), 5e-3))
    fit(model, train, ShuffledBatches(len(train), 16, 4, streams), step, streams=streams)
    gold = [example.label for example in corpus.test]
    majority = max(gold.count(label) for label in corpus.labels) / len(gold)
    figures = models.evaluate(model, test)
    assert figures["accuracy"] > majority + 0.4
    assert figures["slot_f1"] > 0.1
