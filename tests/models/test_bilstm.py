import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_corpus import TRAIN
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from trustnlp.data.encoding import HashedWords
from trustnlp.errors import ArgumentError
from trustnlp.models.bilstm import BiLSTM, BiLSTMOptions, reverse


def test_equals_the_bidirectional_lstm_of_torch_over_packed_texts(made):
    ours: BiLSTM = made["bilstm"].backbone
    theirs = nn.LSTM(ours.words.width, ours.width // 2, batch_first=True, bidirectional=True)
    weights = dict(ours.forwards.named_parameters())
    weights |= {f"{name}_reverse": value for name, value in ours.backwards.named_parameters()}
    theirs.load_state_dict(weights)
    inputs = made["bilstm"].encode(TRAIN).batch([0, 5, 7]).inputs
    with torch.no_grad():
        packed = pack_padded_sequence(ours.words(inputs), inputs["lengths"], batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(theirs(packed)[0], batch_first=True)
        found = ours(inputs)
    for row, length in enumerate(inputs["lengths"].tolist()):
        torch.testing.assert_close(found.words[row, :length], states[row, :length])
        torch.testing.assert_close(found.text[row], states[row, :length].amax(0))


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_each_text_is_reversed_within_its_length(lengths):
    states = torch.arange(len(lengths) * max(lengths) * 2.0).reshape(len(lengths), max(lengths), 2)
    turned = reverse(states, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        assert turned[row, :length].tolist() == states[row, :length].flip(0).tolist()
    assert torch.equal(reverse(turned, torch.tensor(lengths)), states)


def test_dropout_only_in_training(made):
    model = made["bilstm"]
    batch = model.encode(TRAIN).batch(range(8))
    assert torch.equal(model.loss(batch), model.loss(batch))
    model.train()
    noisy = [model.loss(batch) for _ in range(2)]
    model.eval()
    assert not torch.equal(*noisy)


@pytest.mark.parametrize(
    ("option", "value"),
    [("width", 0), ("char_width", 0), ("hidden", 0), ("char_filters", -1), ("dropout", 1.5), ("word_dropout", -0.1)],
)
def test_options_have_ranges(option, value):
    with pytest.raises(ArgumentError, match=f"'{option}' must be"):
        BiLSTMOptions(**{option: value})


def test_characters_may_be_left_out():
    backbone = BiLSTM(BiLSTMOptions(buckets=8, width=4, char_filters=0, hidden=3), HashedWords(buckets=8))
    assert not [name for name, _ in backbone.named_parameters() if "characters" in name or "filters" in name]
    assert backbone.width == 6
