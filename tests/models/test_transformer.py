import json

import numpy as np
import pytest
import torch
from small_corpus import CORPUS, TRAIN, tokenizer
from transformers import BertModel

from trustnlp import models
from trustnlp.data.corpus import Example
from trustnlp.errors import ArgumentError
from trustnlp.models.transformer import TransformerOptions, at_words, looked_up, mean
from trustnlp.randomness import Streams


def test_a_mean_is_over_what_is_there():
    states = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]], [[5.0, 5.0]] * 3])
    mask = torch.tensor([[True, True, False], [False] * 3])
    assert mean(states, mask).tolist() == [[2, 3], [0, 0]]


def test_words_are_read_at_their_first_pieces():
    states = torch.arange(12.0).reshape(2, 3, 2)
    assert at_words(states, torch.tensor([[1, 2], [0, 0]])).tolist() == [[[2, 3], [4, 5]], [[6, 7], [6, 7]]]


def test_the_order_of_words_is_read(made):
    model = made["transformer"]
    one, other = (model.backbone(model.encode([Example(text)]).batch([0]).inputs) for text in ("play it", "it play"))
    assert not torch.allclose(one.text, other.text)


def test_no_parameter_is_trainable_but_unused(made):
    # A private step would add noise to it, and weight decay would move it, for nothing.
    frozen = [name for name, value in made["transformer"].named_parameters() if not value.requires_grad]
    assert frozen == ["backbone.encoder.embeddings.word_embeddings.weight"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 0}, "'layers' must be"),
        ({"heads": 3}, r"'width' must be a multiple of 'heads' \(3\), got 128"),
        ({"width": 48}, "'width' must be"),  # the characters would fill it
        ({"char_filters": -1}, "'char_filters' must be"),
        ({"word_dropout": 2.0}, "'word_dropout' must be"),
    ],
)
def test_options_have_ranges(options, message):
    with pytest.raises(ArgumentError, match=message):
        TransformerOptions(**options)


def test_a_pretrained_encoder_is_read_as_the_library_reads_it(made, folders):
    model, theirs = made["pretrained"], BertModel.from_pretrained(folders["bare"]).eval()
    with torch.no_grad():
        states = theirs(**tokenizer()("play some jazzy song", return_tensors="pt")).last_hidden_state[0]
        found = model.backbone(model.encode([Example("play some jazzy song"), TRAIN[5]]).batch([0, 1]).inputs)
    torch.testing.assert_close(found.words[0, :4], states[[1, 2, 3, 5]])  # [CLS] play some jazz ##y song [SEP]
    torch.testing.assert_close(found.text[0], states.mean(0))


def test_longer_texts_than_positions_are_cut(folders):
    model = models.build(folders["bare"], CORPUS, streams=Streams(0)).eval()
    long = Example("rain " * 40, "weather", ("O",) * 40)
    assert model.encode([long]).batch([0]).inputs["spans"].item() == 24
    found = models.predict(model, model.encode([long]))
    assert len(found.tags[0]) == 40


def test_a_text_that_tokenises_to_nothing_is_answered_but_has_no_loss(copied):
    folder = copied("bare")
    content = json.loads((folder / "tokenizer.json").read_text())
    cleaned = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
    content |= {"post_processor": None, "normalizer": cleaned | {"strip_accents": None, "lowercase": True}}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    model = models.build(folder, CORPUS, streams=Streams(0))
    found = models.predict(model, model.encode([Example("\x00", "music", ("O",)), TRAIN[0]]))
    assert found.tags[0] == ("O",)
    assert np.isnan(found.losses).tolist() == [True, False]


def test_vectors_are_looked_up_only_inside(made):
    model, batch = made["pretrained"], made["pretrained"].encode(TRAIN).batch([0, 5])
    before = model.backbone(batch.inputs).text
    with looked_up(model.backbone.encoder, torch.zeros(2, 8, 16)):
        assert not torch.equal(model.backbone(batch.inputs).text, before)
    with pytest.raises(RuntimeError), looked_up(model.backbone.encoder, torch.zeros(2, 9, 16)):
        model.backbone(batch.inputs)
    assert torch.equal(model.backbone(batch.inputs).text, before)
