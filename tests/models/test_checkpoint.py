import json

import pytest
import torch
from small_corpus import CORPUS, SMALL, TRAIN, bert_config, save_plainly
from transformers import BertModel

from trustnlp import models
from trustnlp.errors import ModelError
from trustnlp.models import checkpoint
from trustnlp.randomness import Streams


@pytest.fixture(params=["bilstm", "bilstm with a CRF", "transformer", "pretrained"])
def model(request, tmp_path):
    kind = request.param
    if kind == "bilstm with a CRF":
        tagger = models.build("bilstm", CORPUS, streams=Streams(0), **SMALL["bilstm"], crf=True)
        tagger.crf.transitions.data.normal_(generator=torch.Generator().manual_seed(0))
        return tagger
    source = save_plainly(BertModel(bert_config()), tmp_path / "bert") if kind == "pretrained" else kind
    return models.build(source, CORPUS, streams=Streams(0), **SMALL.get(kind, {}))


def test_a_saved_model_answers_the_same(model, tmp_path):
    folder = tmp_path / "model"
    models.save(model, folder)
    before = torch.get_rng_state()
    again = models.load(folder)
    assert torch.equal(before, torch.get_rng_state())
    assert not again.training
    assert again.schema == model.schema
    model.eval()
    batch, theirs = model.encode(TRAIN).batch(range(8)), again.encode(TRAIN).batch(range(8))
    assert torch.equal(model.loss(batch), again.loss(theirs))


def test_what_is_written_can_be_read_by_people_and_names_no_path(model, tmp_path):
    models.save(model, tmp_path / "model")
    text = (tmp_path / "model/config.json").read_text()
    assert json.loads(text)["labels"] == ["music", "weather"]
    assert str(tmp_path) not in text
    models.save(models.load(tmp_path / "model"), tmp_path / "again")
    assert (tmp_path / "again/config.json").read_text() == text


def small():
    return models.build("bilstm", CORPUS, streams=Streams(0), **SMALL["bilstm"])


def test_saving_over_another_model_replaces_it(tmp_path):
    models.save(small(), tmp_path)
    other = models.build("bilstm", CORPUS, streams=Streams(1), **SMALL["bilstm"])
    models.save(other, tmp_path)
    assert torch.equal(models.load(tmp_path).label_head.weight, other.label_head.weight)


def test_a_torn_folder_never_loads(tmp_path, monkeypatch):
    models.save(small(), tmp_path)

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint.files, "write_json", full)
    with pytest.raises(OSError, match="no space"):
        models.save(models.build("bilstm", CORPUS, streams=Streams(1), **SMALL["bilstm"]), tmp_path)
    with pytest.raises(ModelError, match="does not belong to its config"):
        models.load(tmp_path)


@pytest.mark.parametrize("lost", ["model.safetensors", "config.json"])
def test_a_missing_file_is_named(tmp_path, lost):
    models.save(small(), tmp_path)
    (tmp_path / lost).unlink()
    with pytest.raises(ModelError, match=lost.replace(".", r"\.")):
        models.load(tmp_path)


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match=r"no config\.json of a trustnlp model"):
        models.load(tmp_path)
    assert not checkpoint.is_ours(tmp_path / "absent")
