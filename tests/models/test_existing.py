"""Checkpoints saved by plain Hugging Face code that never saw this package."""

import json

import numpy as np
import pytest
import torch
from small_corpus import CORPUS, LABELS, SMALL, TRAIN, bert_config, save_plainly, tokenizer
from transformers import (
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
)

from trustnlp import models
from trustnlp.data.corpus import Example
from trustnlp.errors import ModelError
from trustnlp.models.existing import ExistingLanguageModel
from trustnlp.randomness import Streams

TEXTS = [example.text for example in TRAIN]


@pytest.mark.parametrize(
    ("name", "auto"),
    [("classifier", BertForSequenceClassification), ("decoder-classifier", GPT2ForSequenceClassification)],
)
def test_a_classifier_answers_as_the_library_does(folders, name, auto):
    ours, theirs = models.load_checkpoint(folders[name]), auto.from_pretrained(folders[name]).eval()
    theirs.config.pad_token_id = 0 if name == "classifier" else 3
    found = models.predict(ours, ours.encode(TRAIN))
    for i, text in enumerate(TEXTS):
        with torch.no_grad():
            logits = theirs(**tokenizer()(text, return_tensors="pt", return_token_type_ids=False)).logits[0].double()
        assert found.labels[i] == LABELS["id2label"][int(logits.argmax())]
        gold = LABELS["label2id"][TRAIN[i].label]
        assert found.losses[i] == pytest.approx(-logits.log_softmax(0)[gold].item(), abs=1e-5)


def test_gold_labels_by_name_or_by_number(folders):
    model = models.load_checkpoint(folders["classifier"])
    named = models.predict(model, model.encode([Example("rain", "weather"), Example("rain", "music")]))
    numbered = models.predict(model, model.encode([Example("rain", "1"), Example("rain", "0")]))
    assert numbered.gold_labels == named.gold_labels == ("weather", "music")
    np.testing.assert_array_equal(numbered.losses, named.losses)
    unknown = models.predict(model, model.encode([Example("rain", "2"), Example("rain", "other")]))
    assert not unknown.correct.any()
    assert np.isnan(unknown.losses).all()


def test_a_tagger_is_read_at_first_pieces(folders):
    ours = models.load_checkpoint(folders["tagger"], task="tagging")
    theirs = BertForTokenClassification.from_pretrained(folders["tagger"]).eval()
    found = models.predict(ours, ours.encode([Example("play jazzy song", None, ("O", "B-genre", "O")), TRAIN[5]]))
    with torch.no_grad():
        best = theirs(**tokenizer()("play jazzy song", return_tensors="pt")).logits[0].argmax(-1)
    assert found.tags[0] == tuple(CORPUS.tags[int(best[i])] for i in (1, 2, 4))  # [CLS] play jazz ##y song [SEP]
    assert len(found.tags[1]) == 6


def test_a_language_models_loss_is_the_mean_over_predicted_tokens(folders):
    ours = models.load_checkpoint(folders["language"])
    assert isinstance(ours, ExistingLanguageModel)
    theirs = GPT2LMHeadModel.from_pretrained(folders["language"]).eval()
    found = models.losses(ours, ours.encode([Example(text) for text in TEXTS]))
    for loss, text in zip(found, TEXTS, strict=True):
        ids = tokenizer()(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            assert loss == pytest.approx(theirs(input_ids=ids, labels=ids).loss.item(), abs=1e-5)


def test_a_text_of_one_token_has_no_language_model_loss(copied):
    folder = copied("language")
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["post_processor"] = None
    path.write_text(json.dumps(content))
    model = models.load_checkpoint(folder)
    examples = [Example("rain"), Example("will it rain")]
    assert np.isnan(models.losses(model, model.encode(examples))).tolist() == [True, False]
    with pytest.raises(ModelError, match="training example 0 is too short"):
        model.encode(examples, for_training=True)


@pytest.mark.parametrize("name", ["classifier", "decoder-classifier", "tagger"])
def test_a_checkpoint_is_read_by_its_vectors(folders, name):
    model = models.load_checkpoint(folders[name])
    batch = model.encode(TRAIN).batch([0, 5, 7])  # padded: a decoder looks for the last real piece
    (found,) = model.logits_of_vectors(model.embed(batch.inputs), batch).values()
    (expected,) = model.logits(batch).values()
    assert torch.equal(found, expected)
    (without,) = model.logits_of_vectors(torch.zeros_like(model.embed(batch.inputs)), batch).values()
    assert not torch.allclose(without, expected)


class TestRefusals:
    @pytest.mark.parametrize(("name", "head"), [("bare", "BertModel"), ("masked", "BertForMaskedLM")])
    def test_no_task_head(self, folders, name, head):
        with pytest.raises(ModelError, match=rf"no task head that can be audited \({head}\).*classifier"):
            models.load_checkpoint(folders[name])

    def test_another_head_than_asked(self, folders):
        with pytest.raises(ModelError, match=r"has no language-model head, but one for classification"):
            models.load_checkpoint(folders["classifier"], task="language-model")

    def test_a_head_that_is_only_claimed(self, copied):
        folder = copied("bare")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"architectures": ["BertForSequenceClassification"]}))
        with pytest.raises(ModelError, match=r"lacks weights that its architecture needs, such as 'classifier\.bias'"):
            models.load_checkpoint(folder)

    def test_regression_and_multi_label(self, tmp_path):
        one = BertForSequenceClassification(bert_config(num_labels=1))
        with pytest.raises(ModelError, match="does not choose one of several labels"):
            models.load_checkpoint(save_plainly(one, tmp_path))


def test_our_own_folders_are_opened_too(tmp_path):
    model = models.build("bilstm", CORPUS, streams=Streams(0), **SMALL["bilstm"])
    models.save(model, tmp_path)
    assert torch.equal(models.load_checkpoint(tmp_path).label_head.weight, model.label_head.weight)
