import pytest
import torch
from small_questions import PIECES, tokenizer
from transformers import BartConfig, BartForConditionalGeneration, BertModel, T5Config, T5ForConditionalGeneration

import small_transformers
from trustnlp import models
from trustnlp.data.corpus import Example
from trustnlp.errors import ModelError
from trustnlp.models.training import PlainStep, ShuffledBatches, fit
from trustnlp.randomness import Streams

TRAIN = tuple(
    Example(f"where does {who} live ?", target=f"{who} lives in {where} .")
    for who, where in (("ada", "rome"), ("bob", "paris"), ("eve", "new york"), ("cid", "bonn"))
)
ENDS = {"pad_token_id": 0, "eos_token_id": 3, "decoder_start_token_id": 2}


def bart(**more):
    size = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 24}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
    none = {"dropout": 0.0, "attention_dropout": 0.0, "forced_eos_token_id": None, "bos_token_id": 2}
    return BartConfig(vocab_size=len(PIECES), **(size | heads | none | ENDS | more))


def saved(model, folder):
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(params=["bart", "t5"])
def folder(request, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if request.param == "bart":
            return saved(BartForConditionalGeneration(bart()), tmp_path)
        size = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0}
        config = T5Config(vocab_size=len(PIECES), **size, **(ENDS | {"decoder_start_token_id": 0}))
        return saved(T5ForConditionalGeneration(config), tmp_path)


def test_the_loss_is_that_of_transformers(folder):
    model = models.load_seq2seq(folder)
    losses = models.losses(model, model.encode(TRAIN))
    for example, loss in zip(TRAIN, losses, strict=True):
        ids, labels = (tokenizer()(text, return_tensors="pt")["input_ids"] for text in (example.text, example.target))
        with torch.no_grad():
            assert loss == pytest.approx(model.model(input_ids=ids, labels=labels).loss.item(), abs=1e-5)


def test_padding_and_neighbours_never_show(folder):
    model = models.load_seq2seq(folder)
    examples = [*TRAIN, Example("ada", target="ada lives in rome and in paris .")]
    together = models.losses(model, model.encode(examples))
    alone = [models.losses(model, model.encode([example]))[0] for example in examples]
    assert together == pytest.approx(alone, abs=1e-5)


def test_it_is_trained_further_and_writes(folder):
    model, streams = models.load_seq2seq(folder), Streams(0)
    encoded = model.encode(TRAIN, for_training=True)
    step = PlainStep(model, torch.optim.Adam(model.parameters(), 1e-2))
    fit(model, encoded, ShuffledBatches(len(TRAIN), 4, 240, streams), step, streams=streams)
    model.eval()
    assert model.generate(encoded, longest=12) == tuple(example.target for example in TRAIN)
    assert model.generate(encoded, longest=12, width=3)[0] == TRAIN[0].target
    assert models.evaluate(model, encoded)["score"] == 1.0


def test_what_belongs_to_transformers_is_saved_by_it(folder, tmp_path):
    with pytest.raises(ModelError, match=r"a PretrainedSeq2Seq cannot be built again.*; use model\.model\.save_pre"):
        models.save(models.load_seq2seq(folder), tmp_path / "again")


def test_no_encoder_decoder(tmp_path):
    saved(BertModel(small_transformers.bert_config(PIECES, 24)), tmp_path / "bert")
    with pytest.raises(ModelError, match="cannot be opened as a model"):
        models.load_seq2seq(tmp_path / "bert")


def test_ends_that_are_not_told(tmp_path):
    saved(BartForConditionalGeneration(bart(eos_token_id=None)), tmp_path)
    with pytest.raises(ModelError, match="does not say which piece begins and which ends a target"):
        models.load_seq2seq(tmp_path)
